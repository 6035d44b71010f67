"""Shards and image files as points, a unit of work at a time: what of them becomes one Parquet file."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from hypclip.client.rgb import to_rgb
from hypclip.data.record import IMAGE_KEYS, BadSample, Reading, read_record
from hypclip.data.samples import samples_and_damage, samples_of
from hypclip.data.tally import Tally
from hypclip.errors import DataError
from hypclip.indexing.shown import Shown
from hypclip.model import HypCLIP
from hypclip.search.space import Space, require_lorentz
from hypclip.search.thumbnails import SIDE, Original, Thumbnail, make_thumbnail
from hypclip.search.types import MAX_METADATA_BYTES, Points
from hypclip.search.where import Modality

T = TypeVar("T")
Transform = Callable[[Image.Image], Tensor]
"""Image → pixels, as `HypCLIP.transform`."""


@dataclass(frozen=True)
class Item:
    """A point before it is embedded: pixels (3, H, W) or a text."""

    id: str
    content: Tensor | str
    metadata: Mapping[str, Any]
    shown: Shown | None = None


class DamagedShard(Exception):
    """The rest of a shard that cannot be read; what can be was."""

    def __init__(self, shard: str, why: str):
        super().__init__(shard, why)
        self.shard, self.why = shard, why


@dataclass(frozen=True)
class Unit:
    """Work that is done whole or not at all.

    Args:
        name: what messages call it.
        part: name of the file that its points go to, NAME-PLACE-VERSION.parquet; the same for the same data.
        source: the data it is of, wherever its parts are: the shard, or the folder or file of all its items.
        samples: reads the raw samples.
        items: makes the points of one; BadSample where it cannot be used, DamagedShard where it is none.
    """

    name: str
    part: str
    source: str
    samples: Callable[[], Iterable[Any]]
    items: Callable[[Any], list[Item]]


def space_of(model: HypCLIP) -> Space:
    """Return the space of a model's embeddings.

    Raises:
        ConfigError: it is not a hyperboloid of one curvature.
    """
    require_lorentz(model.model_id, model.config.geometry, "an index")
    return Space(model.model_id, model.curv.item(), model.dim, getattr(model, "revision", ""), model.config.entailment)


def embed_unit(
    model: HypCLIP,
    unit: Unit,
    tally: Tally,
    batch_size: int = 128,
    threads: int = 4,
    images: MutableMapping[str, Shown] | None = None,
) -> Iterator[Points]:
    """Yield the points of a unit in the order of its samples, a batch at a time; bad samples are counted.

    Threads prepare the next samples while a batch is embedded; memory holds the pixels of three batches.

    Args:
        model: in evaluation mode.
        unit: what to embed.
        tally: counts here.
        batch_size: samples per forward pass, at least 1.
        threads: which decode images, at least 1.
        images: gets what is kept of the images of a batch by the id of the point, before its points are yielded.

    Raises:
        DataError: the unit cannot be read.
        InputError: two samples have the same key.
    """

    def prepare(sample: Any) -> list[Item] | BadSample | DamagedShard:
        try:
            return unit.items(sample)
        except (BadSample, DamagedShard) as bad:
            return bad

    batch: list[Item] = []
    samples = 0
    with ThreadPoolExecutor(threads) as pool:
        for one in _ahead(pool, prepare, unit.samples(), 2 * batch_size):
            if isinstance(one, BadSample):
                tally += Tally(1, Counter([one.reason]), {one.reason: one.detail})
                continue
            if isinstance(one, DamagedShard):
                tally += Tally(damaged={one.shard: one.why})
                continue
            tally.read += 1
            batch += one
            samples += 1
            if samples == batch_size:
                _hand_over(batch, images)
                yield _embed(model, batch)
                batch, samples = [], 0
        if batch:
            _hand_over(batch, images)
            yield _embed(model, batch)


def _hand_over(items: Sequence[Item], images: MutableMapping[str, Shown] | None) -> None:
    if images is not None:
        images.update({item.id: item.shown for item in items if item.shown is not None})


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
    images = [(item, item.content) for item in items if isinstance(item.content, Tensor)]
    texts = [(item, item.content) for item in items if isinstance(item.content, str)]
    vectors = []
    if images:
        vectors.append(model.encode_image(torch.stack([pixels for _, pixels in images]).to(model.device)).cpu())
    if texts:
        vectors.append(model.embed_text([text for _, text in texts]))
    ordered = [item for item, _ in (*images, *texts)]
    image: list[Modality] = ["image"] * len(images)
    text: list[Modality] = ["text"] * len(texts)
    return Points(
        [item.id for item in ordered], torch.cat(vectors), [*image, *text], [item.metadata for item in ordered]
    )


# Shards ---------------------------------------------------------------------------------------------------------------


def shard_unit(
    shard: str,
    limit: int | None,
    transform: Transform,
    reading: Reading = Reading(),  # noqa: B008, it is frozen
    keep_damaged: bool = False,
    side: int = SIDE,
    kind: str | None = None,
    media_root: Path | None = None,
) -> Unit:
    """Return the work of a shard: KEY/image and KEY/text of each sample, of several captions KEY/text/2 and so on too.

    Args:
        shard: a file or an address.
        limit: samples to read, or None for all.
        transform: of the model.
        reading: see `Reading`.
        keep_damaged: use what can be read of a file that is damaged, in place of an error.
        side: longest side of the thumbnails of images; 0 makes none.
        kind: what metadata call the images, and captions "caption"; None where they do not.
        media_root: folder; of images below it the places are kept.
    """
    file = Path(shard)
    place, version = (str(file.absolute()), _version(file)) if file.is_file() else (shard, None)
    return Unit(
        shard,
        _part_name(file.stem, place, (version, limit, reading, keep_damaged, side, kind, media_root)),
        place,
        functools.partial(_read_shard, shard, limit, keep_damaged),
        functools.partial(
            _sample_items, transform=transform, reading=reading, side=side, kind=kind, media_root=media_root
        ),
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


def _read_shard(shard: str, limit: int | None, keep_damaged: bool) -> Iterator[dict[str, Any]]:
    """Yield the samples. A stream that breaks off may be whole the next time, and is an error in any case."""
    keep = keep_damaged and Path(shard).is_file()
    return itertools.islice(samples_and_damage(shard) if keep else samples_of(shard), limit)


def _sample_items(
    sample: dict[str, Any], transform: Transform, reading: Reading, side: int, kind: str | None, media_root: Path | None
) -> list[Item]:
    if "__damage__" in sample:
        raise DamagedShard(sample["__url__"], sample["__damage__"])
    record = read_record(sample, reading)
    several = {"captions": list(record.captions)} if len(record.captions) > 1 else {}
    of_image, of_text = ({}, {}) if kind is None else ({"kind": kind}, {"kind": "caption"})
    about = {"caption": record.caption, **several, **of_image}
    if len(json.dumps({**about, **of_text}, ensure_ascii=False).encode()) > MAX_METADATA_BYTES:
        raise BadSample("caption too long", f"{record.key} of {record.shard}: over {MAX_METADATA_BYTES:,} bytes")
    image = record.image
    return [
        Item(
            f"{record.key}/image", transform(image), about, Shown(_thumbnail(image, side), _member(sample, media_root))
        ),
        *(
            Item(
                f"{record.key}/text" + (f"/{number}" if number > 1 else ""),
                caption,
                {"caption": caption, **of_text},
            )
            for number, caption in enumerate(record.captions, 1)
        ),
    ]


def _thumbnail(image: Image.Image, side: int) -> Thumbnail | None:
    return make_thumbnail(image, side) if side else None


def _below(file: Path, media_root: Path | None) -> str | None:
    """Return the way from a folder to a file below it."""
    if media_root is None or not file.resolve().is_relative_to(media_root.resolve()):
        return None
    return file.resolve().relative_to(media_root.resolve()).as_posix()


def _member(sample: Mapping[str, Any], media_root: Path | None) -> Original | None:
    """Return the place of a sample's image in its shard; None where it cannot be read from there, as of a stream."""
    shard = Path(sample["__url__"])
    place = _below(shard, media_root)
    if place is None:
        return None
    extension = next(name for name in IMAGE_KEYS if name in sample)
    content, start = sample[extension], sample["__starts__"][extension]
    with contextlib.suppress(OSError), shard.open("rb") as opened:
        opened.seek(start)
        if opened.read(len(content)) == content:  # which is not so of a compressed one
            return Original(place, start, len(content))
    return None


# Files ----------------------------------------------------------------------------------------------------------------


def image_units(
    root: Path,
    files: Sequence[Path],
    metadata: Sequence[Mapping[str, Any]],
    transform: Transform,
    size: int = 4096,
    side: int = SIDE,
    media_root: Path | None = None,
) -> list[Unit]:
    """Return the work of image files, `size` to a unit: a point of each, named by its path below the root.

    Args:
        root: the folder of all.
        files: the images.
        metadata: one per file.
        transform: of the model.
        size: at least 1.
        side: longest side of the thumbnails of images; 0 makes none.
        media_root: folder; of images below it the places are kept.
    """
    units = []
    source = str(root.absolute())
    for start in range(0, len(files), size):
        samples = list(zip(files[start : start + size], metadata[start : start + size], strict=True))
        label = f"{root.name}-{start // size:05d}"
        versions = [(_file_id(file, root), _version(file), more) for file, more in samples]
        part = _part_name(label, source, (versions, side, media_root))
        read = functools.partial(iter, samples)
        items = functools.partial(_file_items, root=root, transform=transform, side=side, media_root=media_root)
        units.append(Unit(label, part, source, read, items))
    return units


def text_unit(name: str, source: str, texts: Sequence[tuple[str, str]], metadata: Sequence[Mapping[str, Any]]) -> Unit:
    """Return the work of texts: a point of each pair of an id and a text; for name and source see `Unit`."""
    items = [Item(point_id, text, more) for (point_id, text), more in zip(texts, metadata, strict=True)]
    versions = [(item.id, item.content, item.metadata) for item in items]
    return Unit(name, _part_name(name, source, versions), source, functools.partial(iter, items), lambda item: [item])


def _file_id(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _file_items(
    sample: tuple[Path, Mapping[str, Any]], root: Path, transform: Transform, side: int, media_root: Path | None
) -> list[Item]:
    file, metadata = sample
    point_id = _file_id(file, root)
    try:
        point_id.encode()
    except UnicodeEncodeError as error:
        raise BadSample("unreadable file name", f"{point_id!r} is not valid Unicode") from error
    try:
        with Image.open(file) as opened:
            image = to_rgb(opened)
        pixels, thumbnail = transform(image), _thumbnail(image, side)
    except Exception as error:  # damaged bytes make decoders raise almost anything, such as struct.error
        raise BadSample("unreadable image", f"{file}: {error}") from error
    place = _below(file, media_root)
    return [Item(point_id, pixels, metadata, Shown(thumbnail, None if place is None else Original(place)))]


# Parts ----------------------------------------------------------------------------------------------------------------


def earlier_parts(folder: Path, unit: Unit) -> list[Path]:
    """Return the parts made of the same place from other data or options, whose points would come twice."""
    same_place = folder.glob(f"{unit.part.rpartition('-')[0]}-*.parquet")
    return sorted(file for file in same_place if file.name != unit.part)


def _part_name(stem: str, place: str, version: object) -> str:
    """Return a file name that engines do not take for a hidden one."""
    plain = re.sub(r"[^\w.-]+", "_", stem).lstrip("._")[:80] or "part"
    return f"{plain}-{_digest(place)[:8]}-{_digest(version)[:12]}.parquet"


def _version(file: Path) -> tuple[int, int]:
    about = file.stat()
    return about.st_size, about.st_mtime_ns


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()
