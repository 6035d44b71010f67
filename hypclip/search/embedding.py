"""Shards and picture files as points, a unit of work at a time: what of them becomes one Parquet file."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from hypclip.data.picture import to_rgb
from hypclip.data.record import BadSample, read_record
from hypclip.data.shards import samples_of
from hypclip.errors import ConfigError, DataError
from hypclip.model import HypCLIP
from hypclip.search.store import MAX_METADATA_BYTES, Points, Space
from hypclip.search.where import Modality

T = TypeVar("T")
Transform = Callable[[Image.Image], Tensor]
"""Picture → pixels, as `HypCLIP.transform`."""


@dataclass(frozen=True)
class Item:
    """A point before it is embedded: pixels (3, H, W) or a text."""

    id: str
    content: Tensor | str
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Unit:
    """Work that is done whole or not at all.

    Args:
        name: what messages call it.
        part: name of the file that its points go to, NAME-PLACE-VERSION.parquet; the same for the same data.
        samples: reads the raw samples.
        items: makes the points of one; BadSample where it cannot be used.
    """

    name: str
    part: str
    samples: Callable[[], Iterable[Any]]
    items: Callable[[Any], list[Item]]


@dataclass
class Tally:
    """How many samples were read, and how many of them passed over, by reason."""

    read: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def __iadd__(self, other: Tally) -> Tally:
        """Add the counts of another."""
        self.read += other.read
        self.skipped += other.skipped
        return self

    def __str__(self) -> str:
        """Say what was passed over, the most frequent reasons first."""
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.skipped.most_common(10))
        return f"skipped {self.skipped.total()} of {self.read} samples: {reasons}"


def space_of(model: HypCLIP) -> Space:
    """Return the space of a model's embeddings.

    Raises:
        ConfigError: it is not a hyperboloid of one curvature.
    """
    if model.config.geometry != "lorentz":
        raise ConfigError(
            f"model {model.model_id!r} has geometry {model.config.geometry!r}; an index needs 'lorentz', because "
            "distances, radii and cones are those of hyperbolic space"
        )
    return Space(model.model_id, model.curv.item(), model.dim, getattr(model, "revision", ""))


def embed_unit(model: HypCLIP, unit: Unit, tally: Tally, batch_size: int = 128, threads: int = 4) -> Iterator[Points]:
    """Yield the points of a unit in the order of its samples, a batch at a time; bad samples are counted.

    Threads prepare the next samples while a batch is embedded; memory holds the pixels of three batches.

    Args:
        model: in evaluation mode.
        unit: what to embed.
        tally: counts here.
        batch_size: samples a forward pass, at least 1.
        threads: which decode pictures, at least 1.

    Raises:
        DataError: the unit cannot be read.
        InputError: two samples have the same key.
    """

    def prepare(sample: Any) -> list[Item] | BadSample:
        try:
            return unit.items(sample)
        except BadSample as bad:
            return bad

    batch: list[Item] = []
    samples = 0
    with ThreadPoolExecutor(threads) as pool:
        for one in _ahead(pool, prepare, unit.samples(), 2 * batch_size):
            tally.read += 1
            if isinstance(one, BadSample):
                tally.skipped[one.reason] += 1
                continue
            batch += one
            samples += 1
            if samples == batch_size:
                yield _embed(model, batch)
                batch, samples = [], 0
        if batch:
            yield _embed(model, batch)


def _ahead(pool: ThreadPoolExecutor, function: Callable[[Any], T], items: Iterable[Any], ahead: int) -> Iterator[T]:
    """Map in order, in threads that are `ahead` items ahead."""
    waiting: deque[Future[T]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@torch.no_grad()
def _embed(model: HypCLIP, items: Sequence[Item]) -> Points:
    pictures = [(item, item.content) for item in items if isinstance(item.content, Tensor)]
    texts = [(item, item.content) for item in items if isinstance(item.content, str)]
    vectors = []
    if pictures:
        vectors.append(model.encode_image(torch.stack([pixels for _, pixels in pictures]).to(model.device)).cpu())
    if texts:
        vectors.append(model.embed_text([text for _, text in texts]))
    ordered = [item for item, _ in (*pictures, *texts)]
    image: list[Modality] = ["image"] * len(pictures)
    text: list[Modality] = ["text"] * len(texts)
    return Points(
        [item.id for item in ordered], torch.cat(vectors), [*image, *text], [item.metadata for item in ordered]
    )


# Shards ---------------------------------------------------------------------------------------------------------------


def shard_unit(shard: str, limit: int | None, transform: Transform) -> Unit:
    """Return the work of a shard: KEY/image and KEY/text of each sample, of the first `limit` only if one is given."""
    file = Path(shard)
    place, version = (str(file.absolute()), _version(file)) if file.is_file() else (shard, None)
    return Unit(
        shard,
        _part_name(file.stem, place, (version, limit)),
        functools.partial(_read_shard, shard, limit),
        functools.partial(_sample_items, transform=transform),
    )


def first_samples(shards: Sequence[str], samples: int) -> list[tuple[str, int | None]]:
    """Return the shards that hold the first `samples` samples, good and bad, and of the last one how many.

    Reads the shards up to there. What of a damaged shard cannot be read does not count.
    """
    chosen: list[tuple[str, int | None]] = []
    left = samples
    for shard in shards:
        if left <= 0:
            break
        count = 0
        with contextlib.suppress(DataError):
            for _ in itertools.islice(samples_of(shard), left + 1):
                count += 1
        chosen.append((shard, left if count > left else None))
        left -= count
    return chosen


def _read_shard(shard: str, limit: int | None) -> Iterator[dict[str, Any]]:
    """Yield the samples; where a file is damaged, what can be read of it, and an empty sample to be counted.

    A stream that breaks off may be whole the next time, and is an error.
    """
    count = 0
    try:
        for sample in itertools.islice(samples_of(shard), limit):
            count += 1
            yield sample
    except DataError:
        if not count or not Path(shard).is_file():
            raise
        yield {}


def _sample_items(sample: dict[str, Any], transform: Transform) -> list[Item]:
    if not sample:
        raise BadSample("damaged shard")
    record = read_record(sample)
    try:
        record.key.encode()
    except UnicodeEncodeError as error:
        raise BadSample("unreadable key") from error
    metadata = {"caption": record.caption}
    if len(json.dumps(metadata, ensure_ascii=False).encode()) > MAX_METADATA_BYTES:
        raise BadSample("caption too long")
    return [
        Item(f"{record.key}/image", transform(record.image), metadata),
        Item(f"{record.key}/text", record.caption, metadata),
    ]


# Files ----------------------------------------------------------------------------------------------------------------


def picture_units(
    root: Path, files: Sequence[Path], metadata: Sequence[Mapping[str, Any]], transform: Transform, size: int = 4096
) -> list[Unit]:
    """Return the work of picture files, `size` to a unit: a point of each, named by its way from `root`, FOLDER/FILE.

    Args:
        root: folder of them all; its name is that of the units in messages and file names.
        files: the pictures.
        metadata: one a file.
        transform: of the model.
        size: at least 1.
    """
    units = []
    for start in range(0, len(files), size):
        samples = list(zip(files[start : start + size], metadata[start : start + size], strict=True))
        label = f"{root.name}-{start // size:05d}"
        versions = [
            (file.parent.relative_to(root).as_posix(), file.name, _version(file), more) for file, more in samples
        ]
        part = _part_name(label, str(root.absolute()), versions)
        read = functools.partial(iter, samples)
        units.append(Unit(label, part, read, functools.partial(_file_items, root=root, transform=transform)))
    return units


def text_unit(name: str, texts: Sequence[tuple[str, str]], metadata: Sequence[Mapping[str, Any]]) -> Unit:
    """Return the work of texts: a point of each pair of an id and a text."""
    items = [Item(point_id, text, more) for (point_id, text), more in zip(texts, metadata, strict=True)]
    versions = [(item.id, item.content, item.metadata) for item in items]
    return Unit(name, _part_name(name, name, versions), functools.partial(iter, items), lambda item: [item])


def _file_id(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _file_items(sample: tuple[Path, Mapping[str, Any]], root: Path, transform: Transform) -> list[Item]:
    file, metadata = sample
    point_id = _file_id(file, root)
    try:
        point_id.encode()
    except UnicodeEncodeError as error:
        raise BadSample("unreadable file name") from error
    try:
        with Image.open(file) as image:
            pixels = transform(to_rgb(image))
    except Exception as error:  # damaged bytes make decoders raise almost anything, such as struct.error
        raise BadSample(f"unreadable picture {file}") from error
    return [Item(point_id, pixels, metadata)]


# Parts ----------------------------------------------------------------------------------------------------------------


def remove_earlier(folder: Path, unit: Unit) -> None:
    """Remove what was made of the same place when its data was another, whose points would come twice."""
    for file in folder.glob(f"{unit.part.rpartition('-')[0]}-*.parquet"):
        if file.name != unit.part:
            file.unlink(missing_ok=True)


def _part_name(stem: str, place: str, version: object) -> str:
    """Return a file name that engines do not take for a hidden one."""
    plain = re.sub(r"[^\w.-]+", "_", stem).lstrip("._")[:80] or "part"
    return f"{plain}-{_digest(place)[:8]}-{_digest(version)[:12]}.parquet"


def _version(file: Path) -> tuple[int, int]:
    about = file.stat()
    return about.st_size, about.st_mtime_ns


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()
