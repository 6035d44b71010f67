"""train/hyperbolicity.py: δ of features, of an index and of what a model embeds, with its nulls."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hypclip import checkpoint
from hypclip.geometry import lorentz
from hypclip.geometry.analysis.gromov import hyperbolicity
from hypclip.search import LocalStore, Points, Space
from tests.support.models import tiny_encoder
from train import hyperbolicity as command
from train.hyperbolicity import main

CURV = 0.5


def gaussian(n: int, dim: int) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def features(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", gaussian(60, 5).numpy())
    return tmp_path / "x.npy"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    x = lorentz.exp_map0(gaussian(50, 6), CURV).float()
    with LocalStore(tmp_path / "index", create=True) as store:
        store.create_collection("default", Space("m", CURV, 6))
        store.upsert("default", Points([str(i) for i in range(50)], x, ["text"] * 30 + ["image"] * 20, None))
    return tmp_path / "index"


def reports(tmp_path: Path, *arguments: object) -> list[dict]:
    few = ["--sample-size", 20, "--base-points", 1, "--output", tmp_path / "report.json"]
    assert main([str(argument) for argument in (*arguments, *few)]) == 0
    return json.loads((tmp_path / "report.json").read_text())


def test_features_are_measured_by_two_metrics_with_all_that_a_report_needs(tmp_path, features, capsys):
    found = reports(tmp_path, "--features", features, "--seed", 3)
    assert [report["metric"] for report in found] == ["euclidean", "angle"]
    want = hyperbolicity(gaussian(60, 5), "euclidean", sample_size=20, base_points=1, seed=3)
    assert tuple(found[0]["relative_delta"]["values"]) == pytest.approx(want.relative_delta.values)
    for null in ("matched_null", "iid_null"):
        assert len(found[0][null]["values"]) == 5
        assert tuple(found[0][null]["values"]) == pytest.approx(getattr(want, null).values)
    assert (found[0]["n"], found[0]["total"], found[0]["seed"], found[0]["curv"]) == (20, 60, 3, None)
    lines = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines[: lines.index("")] == [
        "metric", "relative δ", "Gaussian of the same covariance", "i.i.d. Gaussian", "effective dimension",
        "points of a draw", "draws", "draws of each null", "seed",
    ]  # fmt: skip


def test_an_index_is_measured_in_its_own_space(tmp_path, index):
    (found,) = reports(tmp_path, "--index", index, "--modality", "image")
    assert (found["metric"], found["curv"], found["total"], found["dim"]) == ("lorentz", CURV, 20, 6)
    (angle,) = reports(tmp_path, "--index", index, "--metric", "angle")
    assert (angle["metric"], angle["curv"], angle["total"]) == ("angle", None, 50)


def test_of_a_large_index_some_points_are_taken(tmp_path, index, monkeypatch):
    monkeypatch.setattr(command, "MOST_POINTS", 25)
    (found,) = reports(tmp_path, "--index", index)
    assert found["total"] == 25


def test_a_model_embeds_texts_and_images(tmp_path):
    with checkpoint.atomic_directory(tmp_path / "checkpoint") as target:
        checkpoint.save(tiny_encoder(), target)
    (tmp_path / "texts.txt").write_text("\n".join(f"a dog {i}" for i in range(8)) + "\n\n")
    (tmp_path / "images").mkdir()
    for i in range(3):
        Image.new("RGB", (20, 20), (80 * i, 0, 0)).save(tmp_path / "images" / f"{i}.png")
    arguments = ("--checkpoint", tmp_path / "checkpoint", "--texts", tmp_path / "texts.txt")
    (found,) = reports(tmp_path, *arguments, "--images", tmp_path / "images")
    assert (found["metric"], found["curv"], found["total"]) == ("lorentz", pytest.approx(1.0), 11)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--features", "{x}", "--null-draws", "4"], "--null-draws must be at least 5, got 4"),
        (["--features", "{x}", "--draws", "1"], "--draws must be at least 5, got 1"),
        (["--features", "{x}", "--metric", "lorentz"], "features need --curv"),
        (["--features", "{x}", "--images", "i"], "--checkpoint needs --images or --texts"),
        (["--checkpoint", "{x}"], "--checkpoint needs --images or --texts"),
        (["--index", "{x}", "--curv", "1"], "--curv is of --features"),
        (["--features", "{x}", "--curv", "-1"], "curv must be positive"),
        (["--features", "{x}", "--sample-size", "3"], "at least 4 points"),
        (["--features", "nowhere.npy"], "nowhere.npy"),
        (["--index", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_named(features, arguments, said, capsys):
    assert main([argument.format(x=features) for argument in arguments]) == 1
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((5, 5), int), "got int64 of shape (5, 5)"),
        (np.zeros(5), "got float64 of shape (5,)"),
        (np.array([{}]), "cannot read"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, array, said, capsys):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    assert main(["--features", str(tmp_path / "x.npy")]) == 1
    assert said in capsys.readouterr().err
    (tmp_path / "x.npy").write_text("no array")
    assert main(["--features", str(tmp_path / "x.npy")]) == 1
    assert "cannot read" in capsys.readouterr().err
