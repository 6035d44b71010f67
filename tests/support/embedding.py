"""Calls of train/embed.py, what to embed, and what came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hypclip import checkpoint
from hypclip.data.quickstart.shards import write_shards
from hypclip.model import HypCLIP
from hypclip.search.local.store import LocalStore
from tests.support.data import write_pairs
from tests.support.models import tiny_encoder
from train.embed import main


def make_folder(root: Path) -> Path:
    """Three models, shards of scenes and of pairs, and pictures by class."""
    for name, model in (
        ("checkpoint", tiny_encoder()),
        ("other", tiny_encoder(1)),
        ("sphere", tiny_encoder(geometry="sphere")),
    ):
        with checkpoint.atomic_directory(root / name) as target:
            checkpoint.save(model, target)
    write_shards(root / "data", "validation", 6)
    write_pairs(root / "pairs", [3, 5, 4])
    for key, colour in (("a", "red"), ("b", "blue")):
        (root / "images" / key).mkdir(parents=True)
        Image.new("RGB", (20, 20), colour).save(root / "images" / key / "1.png")
    (root / "classes.json").write_text(json.dumps({"a": ["red square", "square"], "b": "blue square"}))
    return root


def points_in(index: Path) -> dict[str, tuple[list[float], str, Any]]:
    found = {}
    with LocalStore(index) as store:
        for block in store.scan("default"):
            rows = zip(block.ids, block.vectors.tolist(), block.modality, block.metadata, strict=True)
            found |= {point_id: (vector, modality, dict(more)) for point_id, vector, modality, more in rows}
    return found


def ids_of(*numbers: int) -> set[str]:
    return {f"{number:04}/{kind}" for number in numbers for kind in ("image", "text")}


def call(folder: Path, *arguments: object) -> int:
    return main(["--checkpoint", str(folder / "checkpoint"), *map(str, arguments)])


def count_embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many pictures were embedded, a number a forward pass."""
    rows: list[int] = []
    encode = HypCLIP.encode_image

    def counting(self: HypCLIP, pixels: torch.Tensor) -> torch.Tensor:
        rows.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(HypCLIP, "encode_image", counting)
    return rows
