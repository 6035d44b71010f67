"""train/evaluate.py: a list of evaluations by name, printed and written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from hypclip import checkpoint
from hypclip.config import build, read
from hypclip.data.quickstart.shards import write_shards
from hypclip.evaluation.suite import EvaluationConfig
from tests.support.models import tiny_encoder
from train import zero_shot
from train.evaluate import main, table

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
        checkpoint.save(tiny_encoder(), target)
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


def test_a_product_of_spaces_has_a_curvature_for_each(folder: Path) -> None:
    with checkpoint.atomic_directory(folder / "product") as target:
        checkpoint.save(tiny_encoder(geometry="product", distance="l1", factor_dim=4), target)
    assert run(folder, "--checkpoint", str(folder / "product")) == 0
    curv = json.loads((folder / "metrics.json").read_text())["curv"]
    assert curv == pytest.approx([1.0] * len(curv))
    assert len(curv) > 1


def test_a_hierarchy_is_printed_as_grids(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "is_a.json").write_text('[["red", "a colour"], ["blue", "a colour"], ["a cat", "an animal"]]')
    images = f"images: {folder}/images, classes: {folder}/classes.json"
    assert run(folder, f"hierarchy.phrases={{taxonomy: {folder}/is_a.json, {images}}}") == 0
    written = json.loads((folder / "metrics.json").read_text())["phrases"]
    assert written["phrases"] == 5
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["phrases", "phrases", "5"] in lines
    radii = lines.index(["phrases", "0", "1", "picture"])
    assert lines[radii + 1] == ["radius", *(f"{written[f'radius/{row}']:.4f}" for row in ("0", "1", "picture"))]
    assert lines[radii + 2] == ["order", f"{written['order/0']:.4f}"]
    sets = next(line for line in lines if "base_rate" in line)
    (found,) = (line for line in lines if line[:2] == ["0-1", "6"])
    assert sets[:4] == ["phrases", "pairs", "base_rate", "ap"]
    assert found[:4] == ["0-1", "6", f"{written['0-1/base_rate']:.4f}", f"{written['0-1/ap']:.4f}"]


def test_a_grid_leaves_room_for_what_has_no_value() -> None:
    scores = {"x": {"n": 3, "a/one": 0.5, "a/two": 12345, "b/two": 0.25, "c/three": 1}, "longer": {"top1": 0.125}}
    assert table(scores).splitlines() == [
        "x       n     3",
        "",
        "x       one     two",
        "  a  0.5000   12345",
        "  b          0.2500",
        "",
        "x    three",
        "  c      1",
        "longer  top1  0.1250",
    ]


def test_the_quickstarts_evaluations_can_be_read() -> None:
    path = Path(__file__).parents[2] / "configs" / "evaluate" / "quickstart.yaml"
    config = build(EvaluationConfig, read(path, (), EvaluationConfig))
    assert config.names == ["fluent", "scenes", "emoji"]
    assert (config.hierarchy["emoji"].taxonomy, config.hierarchy["emoji"].held_out) == ("emoji", "emoji-held-out")


def test_other_scores_are_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert run(folder) == 0
    assert list(folder.glob("metrics.json.*")) == []
    first = (folder / "metrics.json").read_text()
    capsys.readouterr()
    assert run(folder, "retrieval.scenes.samples=3") == 0
    (aside,) = folder.glob("metrics.json.*")
    assert aside.read_text() == first
    assert capsys.readouterr().err == f"the scores that were in {folder}/metrics.json are now in {aside}\n"
    assert json.loads((folder / "metrics.json").read_text())["scenes"]["n"] == 3


def test_other_scores_of_one_classification_are_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--checkpoint", folder / "checkpoint", "--images", folder / "images", "--classes", folder / "classes.json"]
    words += ["--output", folder / "one" / "scores.json"]
    for _ in range(2):
        assert zero_shot.main([*map(str, words)]) == 0
    first = (folder / "one" / "scores.json").read_text()
    assert zero_shot.main([*map(str, [*words, "--taxonomy", folder / "edges.json"])]) == 0
    (aside,) = (folder / "one").glob("scores.json.*")
    assert aside.read_text() == first
    assert "tie" in json.loads((folder / "one" / "scores.json").read_text())


def test_a_tilde_that_no_shell_expands_is_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert (
        run(folder, "--output=~/new/s.json", "--checkpoint=~/checkpoint", "retrieval.scenes.shards=~/data/validation")
        == 0
    )
    assert json.loads((folder / "new" / "s.json").read_text())["scenes"]["n"] == 5


def test_a_folder_for_the_scores_is_refused_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--output", str(folder), "--checkpoint", "nowhere") == 1
    assert f"error: {folder} is a folder: give the name of a file" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "the config names no evaluation"),
        ("retrieval: {model: {shards: x}}", "need names of their own"),
        ("retrieval: {a: {shards: x}}\nzero_shot: {a: {images: x, classes: y}}", "need names of their own"),
        (
            "zero_shot: {a: {images: x, classes: y, ancestors: {kind: 2}}}",
            "zero_shot.a.ancestors needs zero_shot.a.taxonomy",
        ),
        ("zero_shot: {a: {images: nowhere, classes: nothing.json}}", "cannot read classes from nothing.json"),
        ("zero_shot: {a: {classes: y}}", "zero_shot.a.images"),
        ("zero_shot: [", "cannot read"),
    ],
)
def test_a_config_that_cannot_be_evaluated_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    (folder / "config.yaml").write_text(content)
    assert run(folder) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error


def test_a_class_that_the_taxonomy_lacks_is_named_whatever_is_predicted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "classes.json").write_text('{"r": "red", "b": "blue", "never": "a far away word"}')
    assert run(folder) == 1
    assert capsys.readouterr().err == "error: class 'never' is not in the taxonomy (1 such classes)\n"


def test_an_override_replaces_a_setting(folder: Path) -> None:
    assert run(folder, "retrieval.scenes.samples=3", "zero_shot.squares.ancestors.all=0") == 0
    written = json.loads((folder / "metrics.json").read_text())
    assert written["scenes"]["n"] == 3
    assert written["squares"]["all_right"] == 1.0


def test_shared_names_are_warned_of_and_counted_as_a_whole_number(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "classes.json").write_text('{"r": "crane", "b": "crane"}')
    assert run(folder) == 0
    printed = capsys.readouterr()
    assert "warning: zero_shot.squares: 2 classes share the name 'crane'" in printed.err
    assert json.loads((folder / "metrics.json").read_text())["squares"]["shared_names"] == 2
    (line,) = [line for line in printed.out.splitlines() if "shared_names" in line]
    assert line.split() == ["squares", "shared_names", "2"]
