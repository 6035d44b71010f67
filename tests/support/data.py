"""For the tests of data and evaluation: pictures with known pixels, shards good and bad, cheap readers, tiny models."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from hypclip.data.batch import Batch, Example, content_id
from hypclip.data.record import Record
from hypclip.data.stream import BatchStream, StreamConfig, StreamState
from hypclip.model import HypCLIP, ModelConfig
from hypclip.towers.passes import TextPasses
from tests.support.models import TOWERS

RED, GREEN, BLUE, YELLOW = (220, 30, 30), (20, 160, 40), (30, 40, 200), (230, 210, 30)


# Pictures -------------------------------------------------------------------------------------------------------------


def quadrants(width: int = 40, height: int = 20) -> Image.Image:
    """Paint red top left, green top right, blue bottom left, yellow bottom right."""
    image = Image.new("RGB", (width, height))
    x, y = width // 2, height // 2
    for colour, corner in ((RED, (0, 0)), (GREEN, (x, 0)), (BLUE, (0, y)), (YELLOW, (x, y))):
        image.paste(colour, (*corner, corner[0] + width - x, corner[1] + height - y))
    return image


def coordinates(width: int, height: int) -> Image.Image:
    """Paint every pixel with where it is: red is its column, green its row."""
    image = Image.new("RGB", (width, height))
    image.putdata([(x, y, 7) for y in range(height) for x in range(width)])
    return image


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def stored_as_json(caption: Any, noun_chunks: Any = (), ref_exps: Any = (), **more: Any) -> bytes:
    return json.dumps({"caption": caption, "noun_chunks": noun_chunks, "ref_exps": ref_exps, **more}).encode()


# Shards ---------------------------------------------------------------------------------------------------------------


def write_tar(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


SMALL = encoded(Image.new("RGB", (4, 4), RED))


def pair(key: str, caption: str | bytes | None = None, image: bytes = SMALL) -> list[tuple[str, bytes]]:
    """Return the files of a plain pair; its caption is its key unless given."""
    text = key if caption is None else caption
    return [(f"{key}.png", image), (f"{key}.txt", text if isinstance(text, bytes) else text.encode())]


def write_pairs(folder: Path, sizes: Sequence[int], bad: Mapping[int, str | bytes] | None = None) -> list[str]:
    """Write shards of `sizes` plain pairs, keys 0000, 0001, … throughout; `bad` replaces captions by sample number."""
    numbers = itertools.count()
    paths = []
    for shard, size in enumerate(sizes):
        files = [
            file
            for number in itertools.islice(numbers, size)
            for file in pair(f"{number:04}", (bad or {}).get(number, f"{number:04}"))
        ]
        paths.append(str(write_tar(folder / f"{shard:03}.tar", files)))
    return paths


# Streams --------------------------------------------------------------------------------------------------------------


def number_and_draw(record: Record, seed: str) -> Example:
    """Make an example of the number that a sample's key is, and of a number drawn by the seed."""
    return Example({}, {}, {"image": [int(record.key)], "text": [content_id(seed)]}, [])


def stack(examples: Sequence[Example]) -> Batch:
    content = {role: torch.tensor([example.content[role][0] for example in examples]) for role in ("image", "text")}
    return Batch({}, TextPasses([], {}), content)


def cheap_stream(config: StreamConfig, state: StreamState | None = None) -> BatchStream:
    return BatchStream(config, number_and_draw, stack, state)


def numbers(batch: Batch) -> list[int]:
    """Return the numbers of the samples of a batch."""
    found: list[int] = batch.content["image"].tolist()
    return found


def take(stream: BatchStream, count: int) -> list[list[int]]:
    """Return the sample numbers of the next batches."""
    return [numbers(batch) for batch in itertools.islice(stream, count)]


def rows(batch: Batch) -> dict[str, list[int]]:
    """Return all that a cheap batch holds."""
    return {role: ids.tolist() for role, ids in batch.content.items()}


# Models ---------------------------------------------------------------------------------------------------------------


class KnownModel(HypCLIP):
    """A model whose embeddings and similarities are given: texts by string, pictures by colour of the first pixel.

    Args:
        texts: string → space components.
        images: (r, g, b) → space components.
        curv: of the space.
        geometry: "lorentz" or another.
        settings: others of ModelConfig.
    """

    def __init__(
        self,
        texts: Mapping[str, Sequence[float]],
        images: Mapping[tuple[int, int, int], Sequence[float]],
        curv: float | Sequence[float] = 1.0,
        geometry: Any = "lorentz",
        **settings: Any,
    ):
        torch.nn.Module.__init__(self)
        self.config = ModelConfig(TOWERS, geometry, **settings)
        self.metric = self.config.metric
        self.texts, self.images = texts, images
        self.dim = len(next(iter((*texts.values(), *images.values()))))
        self.log_curv = torch.nn.Parameter(torch.tensor(curv).log())
        self.asked: list[str] = []

    def embed_text(self, texts: Sequence[str], batch_size: int = 256) -> Tensor:
        self.asked += texts
        return torch.tensor([self.texts[text] for text in texts])

    def embed_image(self, images: Sequence[Image.Image], batch_size: int = 128) -> Tensor:
        return torch.tensor([self.images[image.getpixel((0, 0))] for image in images])
