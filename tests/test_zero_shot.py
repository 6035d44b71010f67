"""Zero-shot classification: scores by hand, prompt ensembles, the command line and every way to use it wrongly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from hypclip import checkpoint
from hypclip.errors import DataError
from hypclip.evaluation.zero_shot import accuracy, check_templates, embed_classes, read_labelled_images, read_templates
from hypclip.model import HypCLIP, ModelConfig
from train.zero_shot import main

TOWERS = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
    "text_cfg": {"context_length": 32, "width": 32, "heads": 2, "layers": 1},
}
CLASSES = {"r": "red square", "g": ["green square", "lime square"], "b": "blue square", "x": "never drawn"}
EDGES = [["r", "warm"], ["g", "cold"], ["b", "cold"], ["x", "cold"], ["warm", "root"], ["cold", "root"]]


@pytest.fixture(scope="module")
def model() -> HypCLIP:
    torch.manual_seed(0)
    return HypCLIP(ModelConfig(towers=TOWERS))


@pytest.fixture
def folder(tmp_path: Path, model: HypCLIP) -> Path:
    with checkpoint.atomic_directory(tmp_path / "checkpoint") as target:
        checkpoint.save(model, target)
    for key, colour in (("r", "red"), ("g", "green"), ("b", "blue")):
        (tmp_path / "images" / key).mkdir(parents=True)
        Image.new("RGB", (24, 20), colour).save(tmp_path / "images" / key / "1.png")
        Image.new("RGB", (20, 30), colour).save(tmp_path / "images" / key / "2.jpg")
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    (tmp_path / "edges.json").write_text(json.dumps(EDGES))
    return tmp_path


def run(folder: Path, *extra: str) -> int:
    arguments = ["--checkpoint", str(folder / "checkpoint"), "--images", str(folder / "images")]
    return main([*arguments, "--classes", str(folder / "classes.json"), *extra])


def test_accuracy_by_hand() -> None:
    ranked = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 0, 2, 3, 4, 5], [1, 0, 2, 3, 4, 5], [9, 8, 7, 6, 5, 2]])
    # labels 0 (right), 0 (second), 1 (right), 2 (sixth): class 0 is half right, class 1 right, class 2 wrong
    scores = dict(accuracy(ranked, [0, 0, 1, 2]))
    assert scores == {"n": 4, "top1": 0.5, "top5": 0.75, "mean_per_class": 0.5}


def test_a_class_is_the_tangent_mean_of_its_names_in_all_templates(model: HypCLIP) -> None:
    names, templates = ["green square", "lime square"], ["{}", "a photo of a {}"]
    prompts = ["green square", "a photo of a green square", "lime square", "a photo of a lime square"]
    points = model.embed_text(prompts).double()
    root = model.curv.detach().double().sqrt()
    norms = points.norm(dim=1, keepdim=True)
    tangent = (torch.asinh(root * norms) / (root * norms) * points).mean(0)
    expected = torch.sinh(root * tangent.norm()) / (root * tangent.norm()) * tangent
    torch.testing.assert_close(embed_classes(model, [names], templates)[0].double(), expected, rtol=1e-5, atol=1e-6)


def test_the_command_writes_and_prints_every_score(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = folder / "out" / "scores.json"
    assert run(folder, "--taxonomy", str(folder / "edges.json"), "--output", str(output)) == 0
    scores = json.loads(output.read_text())
    assert set(scores) == {"n", "top1", "top5", "mean_per_class", "tie", "lca", "jaccard"} | {
        "hierarchical_precision",
        "hierarchical_recall",
    }
    assert scores["n"] == 6
    assert scores["top5"] == 1.0  # only four classes
    printed = capsys.readouterr()
    assert json.loads(printed.out) == scores
    assert "1 classes have no folder, 'x' first" in printed.err


def test_without_a_taxonomy_there_are_no_hierarchy_scores(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "templates.txt").write_text("a drawing of a {}\n\n{}\n")
    assert run(folder, "--templates", str(tmp_path / "templates.txt")) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"n", "top1", "top5", "mean_per_class"}


def test_synonyms_labels_and_order_of_files(folder: Path) -> None:
    data = read_labelled_images(folder / "images", folder / "classes.json")
    assert data.keys == ["r", "g", "b", "x"]
    assert data.names[1] == ["green square", "lime square"]
    assert [(f.parent.name, data.keys[i]) for f, i in zip(data.files, data.labels, strict=True)] == [
        (key, key) for key in ("b", "b", "g", "g", "r", "r")
    ]
    assert data.without_pictures == ["x"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: [p.unlink() for p in (f / "images" / "g").iterdir()], "class 'g' has no picture"),
        (lambda f: (f / "images" / "unknown").mkdir(), "names no class"),
        (lambda f: (f / "images" / "b" / "1.png").write_bytes(b"nonsense"), "1.png"),
        (lambda f: (f / "classes.json").write_text("{"), "cannot read classes"),
        (lambda f: (f / "classes.json").write_text("[]"), "at least one class"),
        (lambda f: (f / "classes.json").write_text('{"r": 3}'), "class 'r' must have a name"),
        (lambda f: (f / "edges.json").write_text('[["r", "g"], ["g", "r"]]'), "cycle"),
        (lambda f: (f / "edges.json").write_text('[["r", "root"]]'), "not in the taxonomy"),
        (lambda f: (f / "checkpoint" / "model.safetensors").write_bytes(b"short"), "cannot read"),
        (lambda f: (f / "checkpoint" / "config.yaml").unlink(), "cannot read"),
    ],
)
def test_mistakes_exit_1_with_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], spoil: object, message: str
) -> None:
    spoil(folder)  # type: ignore[operator]
    assert run(folder, "--taxonomy", str(folder / "edges.json"), "--output", str(folder / "scores.json")) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note:")]
    assert len(error) == 1
    assert error[0].startswith("error: ")
    assert message in error[0]
    assert not (folder / "scores.json").exists()


def test_an_empty_folder_of_classes_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no class folders"):
        read_labelled_images(tmp_path / "empty", folder / "classes.json")
    with pytest.raises(DataError, match="there is no folder"):
        read_labelled_images(tmp_path / "nowhere", folder / "classes.json")


@pytest.mark.parametrize("template", ["no name", "{} and {}", "{} {x}"])
def test_a_template_needs_exactly_one_place_for_the_name(template: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="exactly one"):
        check_templates([template])
    (tmp_path / "templates.txt").write_text(f"a {{}}\n{template}\n")
    with pytest.raises(DataError, match="exactly one"):
        read_templates(tmp_path / "templates.txt")
