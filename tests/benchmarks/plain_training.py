"""HyCoCLIP trained the plain way, as a yardstick: what a first implementation from the paper's formulas does.

Every crop is a JPEG of its own, and all of a sample are decoded though two are used. Texts are tokenized in the loop
and padded to the longest caption, phrases too. Each of the four inputs goes through its tower by itself. Distances and
angles come from the Lorentz inner product by acosh and acos, with clamps.
"""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import webdataset as wds
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from torchvision.transforms import v2

from hypclip.data.record import read_record
from hypclip.data.samples import samples_of
from hypclip.model import HypCLIP

_EPS = 1e-8


def write_crops(shards: list[str], folder: Path, side: int) -> list[str]:
    """Write shards in which the whole and every box are pictures of their own, on white squares."""
    paths = []
    for shard in shards:
        path = folder / Path(shard).name
        with wds.TarWriter(str(path), encoder=False) as writer:
            for sample in samples_of(shard):
                record = read_record(sample)
                width, height = record.image.size
                crops = [
                    (box.phrase, record.image.crop((box.x0 * width, box.y0 * height, box.x1 * width, box.y1 * height)))
                    for box in record.boxes
                ] or [(record.caption, record.image)]
                entry: dict[str, Any] = {"__key__": record.key, "numparents.txt": str(len(crops)).encode()}
                for name, (text, picture) in [("child", (record.caption, record.image)), *_numbered(crops)]:
                    entry |= {f"{name}.jpg": _letterboxed(picture, side), f"{name}.txt": text.encode()}
                writer.write(entry)
        paths.append(str(path))
    return paths


def _numbered(crops: list[tuple[str, Image.Image]]) -> list[tuple[str, tuple[str, Image.Image]]]:
    return [(f"parent{number:03d}", crop) for number, crop in enumerate(crops)]


def _letterboxed(picture: Image.Image, side: int) -> bytes:
    scale = side / max(picture.size)
    small = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    square = Image.new("RGB", (side, side), "white")
    square.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    buffer = io.BytesIO()
    square.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


class _Samples(IterableDataset[tuple[Tensor, str, Tensor, str]]):
    def __init__(self, shards: list[str], model: HypCLIP, crop_scale: tuple[float, float]):
        self.shards = shards
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(model.image_size, scale=crop_scale, interpolation=v2.InterpolationMode.BICUBIC),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )

    def __iter__(self) -> Iterator[tuple[Tensor, str, Tensor, str]]:
        while True:
            for shard in self.shards:
                for sample in samples_of(shard):
                    pictures = {
                        name: Image.open(io.BytesIO(content)).convert("RGB")
                        for name, content in sample.items()
                        if name.endswith(".jpg")
                    }
                    box = f"parent{random.randrange(int(sample['numparents.txt'])):03d}"
                    yield (
                        self.transform(pictures["child.jpg"]),
                        sample["child.txt"].decode(),
                        self.transform(pictures[f"{box}.jpg"]),
                        sample[f"{box}.txt"].decode(),
                    )


class PlainTraining:
    """A model in training; `step` is one update with the next batch.

    Args:
        model: whose towers and scalars are trained.
        shards: as `write_crops` writes them.
        batch_size: samples.
        bf16: run the towers in bfloat16.
        crop_scale: of the random crops.
    """

    def __init__(self, model: HypCLIP, shards: list[str], batch_size: int, bf16: bool, crop_scale: tuple[float, float]):
        self.model, self.bf16 = model, bf16
        model.use_explicit_attention()  # in open_clip's towers, for a yardstick that is the faster for it
        self.mean = torch.tensor(model.config.image_mean).view(3, 1, 1)
        self.std = torch.tensor(model.config.image_std).view(3, 1, 1)
        samples = _Samples(shards, model, crop_scale)
        self.batches = iter(DataLoader(samples, batch_size=batch_size, num_workers=1))
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, betas=(0.9, 0.98), weight_decay=0.2)
        model.train()

    def step(self) -> float:
        """Make one update; return the loss."""
        image, caption, box_image, phrase = next(self.batches)
        tokens = self.model.tokenizer([*caption, *phrase])
        text, box_text = tokens[: len(caption)], tokens[len(caption) :]
        curv = self.model.log_curv.exp()
        with torch.autocast("cpu", torch.bfloat16) if self.bf16 else contextlib.nullcontext():
            towers = [
                self.model.image_tower((image - self.mean) / self.std),
                self.model.text_tower(text),
                self.model.image_tower((box_image - self.mean) / self.std),
                self.model.text_tower(box_text),
            ]
        scales = [self.model.log_image_scale.exp(), self.model.log_text_scale.exp()] * 2
        i, t, bi, bt = (_lift(x.float() * scale, curv) for x, scale in zip(towers, scales, strict=True))
        rows = torch.arange(len(i))
        logit_scale = self.model.log_logit_scale.exp()
        contrast = [
            nn.functional.cross_entropy(-_distances(x, y, curv) * logit_scale, rows)
            for x, y in ((i, t), (t, i), (bi, t), (bt, i))
        ]
        entailment = [
            _violation(general, specific, curv, eta)
            for general, specific, eta in ((t, i, 0.7), (bt, bi, 0.7), (bi, i, 1.2), (bt, t, 1.2))
        ]
        loss = torch.stack(contrast).mean() + 0.1 * torch.stack(entailment).sum()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.model.clamp_scalars()
        return loss.item()


def _lift(v: Tensor, curv: Tensor) -> Tensor:
    length = (curv.sqrt() * v.norm(dim=-1, keepdim=True)).clamp(min=_EPS)
    return length.sinh() * v / length


def _time(x: Tensor, curv: Tensor) -> Tensor:
    return (1 / curv + x.square().sum(-1, keepdim=True)).sqrt()


def _distances(x: Tensor, y: Tensor, curv: Tensor) -> Tensor:
    inner = x @ y.T - _time(x, curv) @ _time(y, curv).T
    return (-curv * inner).clamp(min=1 + 1e-7).acosh() / curv.sqrt()


def _violation(x: Tensor, y: Tensor, curv: Tensor, eta: float) -> Tensor:
    x_time, y_time = _time(x, curv).squeeze(-1), _time(y, curv).squeeze(-1)
    inner = curv * ((x * y).sum(-1) - x_time * y_time)
    size = x.norm(dim=-1)
    below = size * (inner.square() - 1).clamp(min=_EPS).sqrt()
    angle = ((y_time + inner * x_time) / (below + _EPS)).clamp(-1 + 1e-6, 1 - 1e-6).acos()
    aperture = (0.2 / (curv.sqrt() * size + _EPS)).clamp(max=1 - 1e-6).asin()
    return (angle - eta * aperture).clamp(min=0).mean()
