"""train/embed_taxonomy.py: files of an embedded tree and the scores that are printed."""

from __future__ import annotations

import contextlib
import json

import pytest
from safetensors.torch import load_file

from hypclip.geometry.entailment import Cone
from hypclip.search import LocalStore
from hypclip.search.rules import as_entry, of_entry
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


def test_cones_are_tested_and_say_their_rule(tree, capsys):
    settings = ["--epochs", "30", "--rate", "0.05", "--batch", "8", "--steps", "40", "--cone-rate", "0.02"]
    assert run(tree, "--method", "cones", "--dim", "3", "--closure-share", "0.25", *settings) == 0
    metrics = read(tree)
    assert metrics["pairs"] == {"learned": 28 + 10, "valid": 2, "test": 2, "test_wrong": 20}
    assert metrics["f1"] == pytest.approx(
        2 * metrics["precision"] * metrics["recall"] / max(metrics["precision"] + metrics["recall"], 1e-9)
    )
    assert metrics["threshold"] >= 0
    assert of_entry(metrics["entailment"]) == Cone(eta=metrics["entailment"]["eta"], min_radius=0.1)
    x = load_file(tree.parent / "out" / "points.safetensors")["points"]
    assert x.shape == (31, 3)
    assert x[read(tree, "phrases.json").index("p0")].abs().max() == 0
    assert f"cones, D = 3: F1 {metrics['f1']:.3f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--taxonomy", "nowhere"], "no taxonomy 'nowhere'"),
        (["--held-out", "1"], "--held-out must be at least 0 and below 1, got 1.0"),
        (["--epochs", "0"], "epochs must be at least 1"),
        (
            ["--method", "cones", "--closure-share", "0.95"],
            "--closure-share must be 0 to 0.9, as 0.1 is held out, got 0.95",
        ),
        (
            ["--method", "cones", "--closure-share", "-1"],
            "--closure-share must be 0 to 0.9, as 0.1 is held out, got -1.0",
        ),
        (["--method", "cones", "--margin", "0"], "margin must be positive and at most 3.142, got 0.0"),
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


def test_a_tree_is_drawn_and_indexed_and_again_from_its_output(tree, capsys):
    folder, index = tree.parent, tree.parent / "index"
    more = ["--plot", str(folder / "disk.svg"), "--index", str(index), "--collection", "tree"]
    assert run(tree, "--method", "sarkar", "--dim", "8", "--tau", "1", *more) == 0
    metrics = read(tree)
    assert metrics["taxonomy"] == str(tree)
    assert metrics["entailment"]["form"] in ("cone", "plane")
    assert metrics["ancestors"]["f1"] > 0.95
    printed = capsys.readouterr().out
    assert "ancestors by " in printed
    assert "31 points in collection 'tree'" in printed
    assert (folder / "disk.svg").read_text().count("<circle") > 31
    again = ["--embedded", str(folder / "out"), "--plot", str(folder / "near.png"), "--centre", "p3", "--depth", "1"]
    assert main([*again, "--index", str(index), "--collection", "tree"]) == 0
    assert (folder / "near.png").read_bytes().startswith(b"\x89PNG")
    with contextlib.closing(LocalStore(index)) as store:
        space = store.space("tree")
        assert (space.model_id, space.dim) == ("tree-sarkar-8", 8)
        assert as_entry(space.entailment) == metrics["entailment"]
        (point,) = store.get("tree", ["p3"]).metadata
        above = {hit.id for hit in store.cone("tree", store.get("tree", ["p7"]).vectors[0], "ancestors").hits}
    assert (point["caption"], point["parents"], point["level"], point["kind"]) == ("p3", ["p1"], 2, "inner")
    assert {"p3", "p1", "p0"} <= above
    (folder / "out" / "metrics.json").write_text("{}")
    assert main(["--embedded", str(folder / "out"), "--plot", str(folder / "x.svg")]) == 1
    assert "does not say of which taxonomy it is: give --taxonomy" in capsys.readouterr().err


def test_another_embedding_does_not_go_into_the_collection_of_one(tree, capsys):
    index = ["--index", str(tree.parent / "index")]
    assert run(tree, "--method", "sarkar", "--dim", "8", *index) == 0
    assert run(tree, "--method", "sarkar", "--dim", "8", "--tau", "1", "--overwrite", *index) == 1
    assert "collection 'default' holds points of model 'tree-sarkar-8'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--taxonomy", "emoji"], "give --taxonomy and --output, or the output of an earlier call with --embedded"),
        (["--embedded", "."], "--embedded draws or indexes what is there: give --plot or --index"),
        (["--embedded", ".", "--plot", "x.svg"], "is no output of this command: "),
        (["--embedded", ".", "--plot", "x.jpg"], "a picture is written to a file .svg or .png, got x.jpg"),
        (["--taxonomy", "emoji", "--output", "out", "--centre", "x"], "--centre and --depth are of a drawing"),
    ],
)
def test_options_that_do_not_go_together_are_named(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    assert said in capsys.readouterr().err
