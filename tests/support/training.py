"""A tiny model, tiny shards, points to train on, and ways to run train/pretrain.py."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from torch import Tensor

from hypclip.data.batch import Batch
from hypclip.geometry import lorentz
from hypclip.roles import BOX_ROLES, MISSING
from hypclip.towers.passes import TextPasses
from tests.support.environment import ROOT, environment
from tests.support.models import TOWERS

ROLES = ("image", "text", "box_image", "box_text")
COLOURS = {"red": (220, 30, 30), "green": (20, 160, 40), "blue": (30, 40, 200), "yellow": (230, 210, 30)}


def passes_of(texts: Mapping[str, Tensor]) -> TextPasses:
    """Return a pass per role of padded token ids."""
    return TextPasses(list(texts.values()), {role: len(tokens) for role, tokens in texts.items()})


def tokens_of(texts: TextPasses) -> dict[str, Tensor]:
    """Return the token ids of each role, padded with 0 to the longest pass."""
    longest = max(tokens.shape[1] for tokens in texts.passes)
    rows = texts.read(lambda tokens: torch.nn.functional.pad(tokens, (0, longest - tokens.shape[1])))
    return dict(zip(texts.counts, torch.split(rows, list(texts.counts.values())), strict=True))


def points(
    rows: int, dim: int = 6, *, curv: float = 1.0, radius: float = 1.0, seed: int = 0, roles: Iterable[str] = ROLES
) -> dict[str, Tensor]:
    """Draw float64 space components of points at radii up to about 2 · `radius`, for every role."""
    generator = torch.Generator().manual_seed(seed)
    scale = radius / math.sqrt(dim)
    return {
        role: lorentz.exp_map0(torch.randn(rows, dim, generator=generator, dtype=torch.float64) * scale, curv)
        for role in roles
    }


SCALES = {"box_scale": 20.0, "box_whole_scale": 16.7}
"""The inverse temperatures of uncha besides logit_scale."""


def make_batch(
    boxes: Sequence[int] | None = None, samples: int = 6, max_boxes: int = 3, seed: int = 5, size: int = 32
) -> Batch:
    """Draw pixels and tokens; the first and the fifth sample share a caption, the last has its caption for a phrase.

    Args:
        boxes: how many each sample has, packed as `collate` packs them; None is one each, but for the third sample.
        samples: how many, where `boxes` does not say.
        max_boxes: N, of packed boxes.
        seed: of the pixels and tokens.
        size: side of the pictures.
    """
    generator = torch.Generator().manual_seed(seed)
    samples = samples if boxes is None else len(boxes)
    found = samples if boxes is None else sum(boxes)
    images = {
        role: torch.randn(n, 3, size, size, generator=generator)
        for role, n in (("image", samples), ("box_image", found))
    }
    texts = {
        role: torch.randint(1, 49406, (n, length), generator=generator)
        for role, n, length in (("text", samples, 9), ("box_text", found, 5))
    }
    content = {"image": torch.arange(samples), "text": torch.arange(samples) + 100}
    if samples > 4:
        content["text"][4] = content["text"][0]
    if boxes is None:
        content |= {"box_image": torch.arange(samples) + 200, "box_text": torch.arange(samples) + 300}
        content["box_text"][-1] = content["text"][-1]
        for role in ("box_image", "box_text"):
            content[role][2] = MISSING
        return Batch(images, passes_of(texts), content)
    there = torch.arange(max_boxes) < torch.tensor(boxes).unsqueeze(1)
    ids = torch.arange(samples * max_boxes).view(samples, max_boxes)
    content |= {"box_image": (ids + 200).where(there, MISSING), "box_text": (ids + 300).where(there, MISSING)}
    if boxes[-1]:
        content["box_text"][-1, 0] = content["text"][-1]
    weight = torch.rand(samples, max_boxes, generator=generator) + 0.1
    return Batch(images, passes_of(texts), content, weight * there, there.flatten().nonzero().flatten())


HIERARCHY: dict[str, Any] = {
    "geometry": "lorentz",
    "entailment": {"form": "plane"},
    "contrast": [{"query": q, "key": k} for q, k in (("box_image", "box_text"), ("image", "text"), ("text", "image"))],
    "contrast_of": "directions",
    "skip_related": True,
    "entail": [{"general": "text", "specific": "image"}, {"general": "box_text", "specific": "box_image"}],
    "order": [{"general": "text", "specific": "image", "margin": 0.5}, {"general": "concept", "specific": "box_text"}],
    "lineage": [{"specific": role} for role in ("box_text", "box_image", "concept")],
    "anchors": [{"role": "image", "radius": 1.5}, {"role": "concept", "radius": 0.4}],
}
"""A recipe with a term of every kind that a taxonomy takes part in."""


def with_taxonomy(batch: Batch, seed: int = 6) -> Batch:
    """Add four concepts: two below a third, and one alone; the phrases of boxes lie below one of the first three."""
    generator = torch.Generator().manual_seed(seed)
    ids = batch.content["box_text"]
    above = torch.tensor([[901, 903], [902, 903], [903, MISSING], [MISSING, MISSING]])
    concepts = torch.tensor([901, 902, 903, 904])
    return replace(
        batch,
        texts=passes_of({**tokens_of(batch.texts), "concept": torch.randint(1, 49406, (4, 4), generator=generator)}),
        content={**batch.content, "concept": concepts},
        ancestors={
            "box_text": above[torch.arange(ids.numel()).view(ids.shape) % 4],
            "concept": torch.tensor([[903, MISSING], [903, MISSING], [MISSING, MISSING], [MISSING, MISSING]]),
        },
        levels=torch.tensor([1, 1, 0, 0]),
    )


def below_nothing(batch: Batch, first: int, *others: str) -> Batch:
    """Take away what stands above the phrases of boxes from the sample `first` on, and above all of other roles."""
    above = {role: ids.clone() for role, ids in batch.ancestors.items()}
    above["box_text"][first:] = MISSING
    for role in others:
        above[role].fill_(MISSING)
    return replace(batch, ancestors=above)


def stand_in(batch: Batch) -> Batch:
    """Give packed boxes of which there are none the one row that counts nothing, as `collate` does."""
    if batch.box_rows is None or len(batch.box_rows):
        return batch
    images = {r: x.new_zeros(1, *x.shape[1:]) if r in BOX_ROLES else x for r, x in batch.images.items()}
    tokens = tokens_of(batch.texts)
    texts = {r: x.new_zeros(1, *x.shape[1:]) if r in BOX_ROLES else x for r, x in tokens.items()}
    return replace(batch, images=images, texts=passes_of(texts), box_rows=batch.box_rows.new_zeros(1))


# Shards ---------------------------------------------------------------------------------------------------------------


def grit_sample(rng: random.Random) -> tuple[Image.Image, dict[str, Any]]:
    """Draw two squares and describe them as raw GRIT does; about every fifth has a box for the whole caption."""
    left, right = rng.sample(sorted(COLOURS), 2)
    caption = f"a {left} square and a {right} square"
    image = Image.new("RGB", (48, 40), tuple(rng.randrange(200, 256) for _ in range(3)))
    image.paste(COLOURS[left], (3, 5, 20, 25))
    image.paste(COLOURS[right], (26, 10, 45, 33))
    start = len(f"a {left} square and ")
    chunks: list[list[float]] = [
        [0, len(f"a {left} square"), 3 / 48, 5 / 40, 20 / 48, 25 / 40, 0.9],
        [start, len(caption), 26 / 48, 10 / 40, 45 / 48, 33 / 40, 0.5],
    ]
    whole = [[0, len(caption), 0.0, 0.0, 1.0, 1.0, 0.8]] if rng.random() < 0.2 else []
    return image, {"caption": caption, "noun_chunks": chunks, "ref_exps": whole}


def write_shards(folder: Path, shards: int = 2, samples: int = 10, picture_bytes: int | None = None) -> Path:
    """Write raw GRIT shards 000.tar, 001.tar, …, with pictures cut off after so many bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:03}.tar", "w") as tar:
            for index in range(samples):
                image, fields = grit_sample(rng)
                picture = io.BytesIO()
                image.save(picture, "PNG")
                add_file(tar, f"{shard:03}{index:04}.png", picture.getvalue()[:picture_bytes])
                add_file(tar, f"{shard:03}{index:04}.json", json.dumps(fields).encode())
    return folder


def add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


# Runs -----------------------------------------------------------------------------------------------------------------


def run_config(output_dir: Path, shards: Path, **changes: Any) -> dict[str, Any]:
    """Return the settings of a run of seconds, with augmentation, dropped patches and two data workers.

    Args:
        output_dir: of the run.
        shards: folder of shards.
        changes: values by dotted key with __ for the dot, such as train__steps=3.
    """
    vision = {**TOWERS["vision_cfg"], "patch_dropout": 0.5}
    config: dict[str, Any] = {
        "output_dir": str(output_dir),
        "name": "tiny",
        "model": {"towers": {**TOWERS, "vision_cfg": vision}},
        "data": {
            "shards": str(shards),
            "workers": 2,
            "shuffle_buffer": 5,
            "box_margin": 0.2,
            "augment": {"crop_scale": [0.5, 1.0], "colour_jitter": 0.4, "grey": 0.1, "flip": 0.5},
        },
        "train": {
            "steps": 6,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "warmup_steps": 2,
            "precision": "fp32",
            "threads": 1,
            "log_every": 1,
            "checkpoint_every": 2,
        },
    }
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = config
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return config


def write_config(path: Path, config: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    return path


def read_log(output_dir: Path) -> list[dict[str, Any]]:
    lines = (output_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def logged_steps(output_dir: Path) -> int:
    """Return how many steps a run that may be under way has logged."""
    path = output_dir / "metrics.jsonl"
    return path.read_text(encoding="utf-8").count("\n") if path.is_file() else 0


def command(program: str, *arguments: object) -> list[str]:
    """Return the command line of a program installed beside this Python."""
    return [str(Path(sys.executable).parent / program), *map(str, arguments)]


@contextlib.contextmanager
def started(arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a program in a process group of its own, of which nothing outlives the block."""
    with subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=environment(),
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(condition: Callable[[], bool], what: str, deadline_s: float = 240.0) -> None:
    """Ask ten times a second until it holds."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"waited {deadline_s} s in vain for {what}"
        time.sleep(0.1)


def state_bits(folder: Path) -> dict[str, bytes]:
    """Return every file of a checkpoint directory."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def without(data: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key not in names}


def batch(rows: int = 3, roles=ROLES) -> tuple[dict[str, Tensor], TextPasses]:
    generator = torch.Generator().manual_seed(2)
    images = {r: torch.randn(rows, 3, 32, 32, generator=generator) for r in roles if "image" in r}
    texts = {r: torch.randint(1, 49406, (rows, 4 + len(r)), generator=generator) for r in roles if "text" in r}
    return images, passes_of(texts)
