"""train/embed_taxonomy.py: files of an embedded tree and the scores that are printed."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from hypclip.taxonomy import load
from train.embed_taxonomy import main


@pytest.fixture
def tree(tmp_path):
    file = tmp_path / "tree.csv"
    file.write_text("".join(f"p{child},p{(child - 1) // 2}\n" for child in range(1, 31)))
    return file


def run(tree, *extra):
    return main(["--taxonomy", str(tree), "--output", str(tree.parent / "out"), "--threads", "1", *extra])


def read(tree, name="metrics.json"):
    return json.loads((tree.parent / "out" / name).read_text())


@pytest.mark.parametrize("method", ["lorentz", "poincare"])
def test_a_trained_tree_is_written_with_its_scores_and_flat_ones_beside(tree, method, capsys):
    settings = ["--epochs", "100", "--rate", "0.05", "--batch", "8"]
    assert run(tree, "--method", method, "--dim", "5", *settings) == 0
    metrics = read(tree)
    assert metrics["map"] > 0.9
    assert metrics["mean_rank"] < 1.5
    assert list(metrics["euclid"]) == ["5", "10", "20", "50"]
    assert load_file(tree.parent / "out" / "points.safetensors")["points"].shape == (31, 5)
    assert read(tree, "phrases.json") == list(load(tree).phrases)
    printed = capsys.readouterr().out
    assert "31 phrases, 98 pairs" in printed
    assert f"{method}, D = 5: " in printed
    assert printed.count("euclid, D = ") == 4


def test_held_out_pairs_are_predicted(tree):
    assert run(tree, "--held-out", "0.3", "--epochs", "60", "--batch", "8", "--rate", "0.05", "--no-flat") == 0
    metrics = read(tree)
    assert 0 < metrics["held_out_map"] < 1
    assert metrics["held_out_mean_rank"] > metrics["mean_rank"]
    assert "euclid" not in metrics


def test_a_placed_tree_has_its_distortion(tree):
    assert run(tree, "--method", "sarkar", "--dim", "4", "--tau", "2", "--float64") == 0
    metrics = read(tree)
    assert metrics["map"] == 1
    assert 0 < metrics["distortion"] < 0.3
    assert 1 < metrics["worst_distortion"] < 2


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--taxonomy", "nowhere"], "no taxonomy 'nowhere'"),
        (["--held-out", "1"], "--held-out must be at least 0 and below 1, got 1.0"),
        (["--epochs", "0"], "epochs must be at least 1"),
        (["--method", "sarkar", "--tau", "9"], "float32 tells points 9 apart up to radius 16"),
    ],
)
def test_mistakes_exit_1_with_one_line(tree, capsys, extra, said):
    assert run(tree, *extra) == 1
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (tree.parent / "out").exists()


def test_a_folder_with_something_in_it_is_kept(tree, capsys):
    (tree.parent / "out").mkdir()
    (tree.parent / "out" / "mine").touch()
    assert run(tree, "--method", "sarkar") == 1
    assert "exists and is not an empty folder" in capsys.readouterr().err
    assert run(tree, "--method", "sarkar", "--overwrite") == 0
    assert len(list(tree.parent.glob("out.*"))) == 1
