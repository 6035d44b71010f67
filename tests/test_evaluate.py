"""train/evaluate.py: a list of evaluations by name, printed and written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_helpers import tiny_model
from PIL import Image

from hypclip import checkpoint
from hypclip.data.quickstart.shards import write_shards
from train.evaluate import main

CONFIG = """
zero_shot:
  squares:
    images: {root}/images
    classes: {root}/classes.json
    taxonomy: {root}/edges.json
    templates: ["{{}}"]
    ancestors: {{group: 1}}
retrieval:
  scenes: {{shards: {root}/data/validation, samples: 5}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with checkpoint.atomic_directory(tmp_path / "checkpoint") as target:
        checkpoint.save(tiny_model(), target)
    write_shards(tmp_path / "data", "validation", 8)
    for key, colour in (("r", "red"), ("b", "blue")):
        (tmp_path / "images" / key).mkdir(parents=True)
        Image.new("RGB", (20, 20), colour).save(tmp_path / "images" / key / "1.png")
    (tmp_path / "classes.json").write_text('{"r": "red", "b": "blue"}')
    (tmp_path / "edges.json").write_text('[["r", "warm"], ["b", "cold"], ["warm", "root"], ["cold", "root"]]')
    (tmp_path / "config.yaml").write_text(CONFIG.format(root=tmp_path))
    return tmp_path


def run(folder: Path, *extra: str) -> int:
    arguments = ["--checkpoint", str(folder / "checkpoint"), "--config", str(folder / "config.yaml")]
    return main([*arguments, "--output", str(folder / "metrics.json"), *extra])


def test_every_task_is_scored(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder) == 0
    written = json.loads((folder / "metrics.json").read_text())
    assert written["squares"]["n"] == 2
    assert written["scenes"]["n"] == 5
    assert written["squares"]["group_right"] == written["squares"]["top1"]  # one class a group
    assert written["curv"] == pytest.approx(1.0)
    assert written["model"].startswith("hypclip-")
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == len(written["squares"]) + len(written["scenes"])
    assert f"{written['scenes']['image_to_text_r1']:.4f}" in printed


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("retrieval.scenes.shard=x", "unknown key"),
        ("retrieval.scenes.shards=nowhere.tar", "nowhere.tar"),
        ("retrieval.scenes.samples=1", "greater than or equal to 2"),
        ("zero_shot.squares.templates=[none]", "exactly one"),
    ],
)
def test_mistakes_exit_1_with_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    assert run(folder, override) == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert message in error[0]
    assert not (folder / "metrics.json").exists()
