"""train/prototypes.py: unseen classes by their place in a tree, from features in a file and from images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from hypclip import checkpoint
from hypclip.taxonomy.prototypes import PrototypeHead
from tests.support.models import tiny_encoder
from train.prototypes import main

KEYS = [f"L{kind}{leaf}" for kind in range(6) for leaf in range(3)]
EDGES = [[key, f"k{key[1]}"] for key in KEYS] + [[f"k{kind}", "root"] for kind in range(6)]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps({key: key for key in KEYS}))
    (tmp_path / "edges.json").write_text(json.dumps(EDGES))
    generator = np.random.default_rng(0)
    kinds, leaves = generator.normal(size=(6, 16)), generator.normal(size=(18, 16))
    for name in ("features", "more"):
        rows = np.repeat(np.arange(18), 4)
        x = kinds[rows // 3] + 0.3 * leaves[rows] + 0.1 * generator.normal(size=(72, 16))
        np.savez(tmp_path / f"{name}.npz", features=x.astype(np.float32), keys=np.array(KEYS)[rows])
    return tmp_path


def run(folder, *extra, source=("--features", "features.npz"), unseen=("--unseen-every", "3")):
    paths = [str(folder / part) if part.endswith((".npz", ".txt")) else part for part in (*source, *unseen, *extra)]
    given = ["--classes", folder / "classes.json", "--taxonomy", folder / "edges.json", "--output", folder / "out"]
    quick = ["--dim", "6", "--steps", "60", "--batch", "32", "--rate", "0.02", "--seeds", "0", "1"]
    return main([*map(str, given), *quick, *paths])


def test_with_the_tree_unseen_classes_are_found_and_without_it_they_are_not(folder, capsys):
    assert run(folder, "--test", "more.npz") == 0
    metrics = json.loads((folder / "out" / "metrics.json").read_text())
    assert metrics["unseen"] == KEYS[::3]
    for where in ("", "test_"):
        with_tree, without = metrics[f"{where}tree"], metrics[f"{where}without_tree"]
        assert len(with_tree) == len(without) == 2
        assert [row["n"] for row in with_tree] == [24, 24]
        assert min(row["top1"] for row in with_tree) > 0.8 > 0.7 > max(row["top1"] for row in without)
        assert min(row["above_1"] for row in with_tree) > 0.8
        assert metrics[f"{where}neighbour"][0]["above_1_by_class"] > 0.8
    printed = capsys.readouterr().out
    assert "12 classes seen in 48 images, 6 unseen" in printed
    assert "test_without_tree" in printed
    assert PrototypeHead.load(folder / "out" / "head-1.safetensors").net[-1].out_features == 6


def test_what_was_written_is_what_is_read(folder):
    assert run(folder) == 0
    first = json.loads((folder / "out" / "metrics.json").read_text())
    (folder / "out").rename(folder / "before.npz.d")
    source = ("--features", str(folder / "before.npz.d" / "features.npz"), "--prototypes", str(folder / "before.npz.d"))
    (folder / "unseen.txt").write_text("\n".join(KEYS[::3]) + "\n\n")
    assert run(folder, source=source, unseen=("--unseen", "unseen.txt")) == 0
    assert json.loads((folder / "out" / "metrics.json").read_text()) == first


def test_features_come_from_a_checkpoint_or_from_imagenet(folder):
    pytest.importorskip("efficientnet_lite_pytorch")
    for i, key in enumerate(KEYS):
        (folder / "images" / key).mkdir(parents=True)
        Image.new("RGB", (20, 20), (12 * i, 40, 200 - 10 * i)).save(folder / "images" / key / "1.png")
    with checkpoint.atomic_directory(folder / "checkpoint") as target:
        checkpoint.save(tiny_encoder(), target)
    images = ("--images", str(folder / "images"))
    for source in (("--checkpoint", str(folder / "checkpoint")), ("--network", "imagenet", "--pixels", "32")):
        assert run(folder, "--overwrite", "--steps", "2", source=(*images, *source)) == 0
        with np.load(folder / "out" / "features.npz") as written:
            assert written["features"].shape[0] == 18
            assert written["keys"].tolist() == KEYS
            assert np.ptp(written["features"], axis=0).max() > 0


@pytest.mark.parametrize(
    ("extra", "change", "said"),
    [
        ({"unseen": ("--unseen-every", "1")}, {}, "--unseen-every must be at least 2, got 1"),
        ({"unseen": ("--unseen", "unseen.txt")}, {"unseen.txt": "L00\nno\n"}, "names no classes: 'no'"),
        ({"unseen": ("--unseen", "unseen.txt")}, {"unseen.txt": "\n"}, "some classes must be seen and some not"),
        ({"source": ("--network", "imagenet")}, {}, "--images is needed"),
        ({"source": ("--features", "other.npz")}, {"other.npz": "no array"}, "must be an .npz of features (N, F)"),
        ({}, {"edges.json": json.dumps([*EDGES, ["l00", "k0"], ["L00", "l00"]])}, "more than case and spaces"),
        ({}, {"edges.json": json.dumps(EDGES[1:])}, "class 'L00' is not in the taxonomy"),
    ],
)
def test_mistakes_exit_1_with_one_line(folder, capsys, extra, change, said):
    for name, text in change.items():
        (folder / name).write_text(text)
    assert run(folder, **extra) == 1
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (folder / "out").exists()


def test_features_of_unknown_classes_and_of_another_shape_are_refused(folder, capsys):
    np.savez(folder / "features.npz", features=np.zeros((2, 3)), keys=np.array(["L00", "what"]))
    assert run(folder) == 1
    assert "keys that are no classes: 'what'" in capsys.readouterr().err
    np.savez(folder / "features.npz", features=np.zeros((3, 3)), keys=np.array(["L00", "L01"]))
    assert run(folder) == 1
    assert "do not fit: (3, 3) and 2" in capsys.readouterr().err
