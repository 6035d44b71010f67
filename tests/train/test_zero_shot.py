"""Zero-shot classification: scores by hand, prompt ensembles, the command line and every way to use it wrongly."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from hypclip import checkpoint
from hypclip.errors import DataError
from hypclip.evaluation.zero_shot import (
    accuracy,
    check_templates,
    embed_classes,
    embed_files,
    rank_classes,
    read_labelled_images,
    read_templates,
    zero_shot,
)
from hypclip.model import HypCLIP, ModelConfig
from tests.support.data import KnownModel
from tests.support.environment import environment
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
    assert data.without_images == ["x"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: [p.unlink() for p in (f / "images" / "g").iterdir()], "class 'g' has no image"),
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


# Against a model whose answers are known ----------------------------------------------------------------------------

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "grey": (9, 9, 9)}
AXES = {"red": (2.0, 0.0, 0.0), "green": (0.0, 2.0, 0.0), "blue": (0.0, 0.0, 2.0), "grey": (0.1, 0.1, 0.1)}


def known(geometry: str = "lorentz", curv: float = 1.0, **texts: tuple[float, ...]) -> KnownModel:
    """Pictures lie on the axis of their colour; so do the texts that are names of colours."""
    return KnownModel({**AXES, **texts}, {COLOURS[name]: AXES[name] for name in COLOURS}, curv, geometry)


def pictures(root: Path, **counts: dict[str, int]) -> None:
    """Write pictures: class → colour → how many."""
    for key, colours in counts.items():
        (root / key).mkdir(parents=True)
        for colour, count in colours.items():
            for number in range(count):
                Image.new("RGB", (4, 4), COLOURS[colour]).save(root / key / f"{colour}{number}.png")


@pytest.mark.parametrize("geometry", ["lorentz", "sphere"])
def test_scores_of_known_answers(tmp_path: Path, geometry: str) -> None:
    """Of ten pictures, the three of class g that are red or blue and the two of b that are red are wrong."""
    pictures(tmp_path / "images", r={"red": 2}, g={"green": 1, "red": 2, "blue": 1}, b={"blue": 2, "red": 2})
    (tmp_path / "classes.json").write_text('{"g": "green", "r": "red", "b": "blue", "none": "grey"}')
    data = read_labelled_images(tmp_path / "images", tmp_path / "classes.json")
    scores, predicted = zero_shot(known(geometry), data, ["{}"])
    assert scores == {"n": 10, "top1": 0.5, "top5": 1.0, "mean_per_class": pytest.approx((2 / 2 + 1 / 4 + 2 / 4) / 3)}
    assert [f"{file.stem[:-1]} is {key}" for file, key in zip(data.files, predicted, strict=True)] == [
        *["blue is b"] * 2, *["red is r"] * 2, "blue is b", "green is g", *["red is r"] * 4
    ]  # fmt: skip


@pytest.mark.parametrize("curv", [0.1, 1.0, 7.0])
def test_an_ensemble_is_averaged_in_the_tangent_space_of_any_curvature(curv: float) -> None:
    """Two prompts of very different length: the mean of the points themselves, or of the unit vectors, is elsewhere."""
    near, far = torch.tensor([0.3, 0.1, 0.0]).double(), torch.tensor([-1.0, 4.0, 9.0]).double()
    model = known(curv=curv, **{"a near": tuple(near.tolist()), "near": tuple(far.tolist())})
    root = curv**0.5

    def tangent(x: torch.Tensor) -> torch.Tensor:
        return torch.asinh(root * x.norm()) / (root * x.norm()) * x

    mean = (tangent(near) + tangent(far)) / 2
    expected = torch.sinh(root * mean.norm()) / (root * mean.norm()) * mean
    found = embed_classes(model, [["near"]], ["{}", "a {}"])
    assert model.asked == ["near", "a near"]
    torch.testing.assert_close(found[0].double(), expected, rtol=2e-5, atol=1e-5)
    assert (found[0] - (near + far) / 2).norm() > 0.3


def test_on_the_sphere_directions_are_averaged() -> None:
    model = known("sphere", **{"x": (3.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0)})
    torch.testing.assert_close(
        embed_classes(model, [["x", "y"]], ["{}"])[0], torch.tensor([0.5, 0.5, 0.0]).sqrt(), rtol=1e-6, atol=1e-6
    )


def test_every_synonym_is_put_into_every_template_as_it_is() -> None:
    names = [["red", "{weird} %s"], ["blue"]]
    model = known(**dict.fromkeys(("a red.", "{weird} %s", "a {weird} %s.", "a blue."), (1.0, 0.0, 0.0)))
    assert embed_classes(model, names, ["{}", "a {}."]).shape == (2, 3)
    assert model.asked == ["red", "a red.", "{weird} %s", "a {weird} %s.", "blue", "a blue."]


def test_the_best_classes_come_first_and_no_more_than_there_are() -> None:
    model = known()
    classes = torch.tensor([AXES["blue"], AXES["grey"], AXES["red"]])
    ranked = rank_classes(model, torch.tensor([[2.0, 0.0, 0.5]] * 1500), classes)
    assert ranked.shape == (1500, 3)
    assert ranked.unique(dim=0).tolist() == [[2, 1, 0]]


@pytest.mark.parametrize("templates", [["{} }"], ["} {}"], []])
def test_stray_braces_and_no_template_at_all_are_refused(templates: list[str]) -> None:
    with pytest.raises(DataError, match="template"):
        check_templates(templates)


def test_pictures_with_odd_tags_or_of_any_mode_are_embedded(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 4), COLOURS["red"]).save(tmp_path / "0.png", exif=exif)
    Image.new("RGBA", (4, 4), (*COLOURS["green"], 255)).save(tmp_path / "1.png")
    Image.new("P", (4, 4), 0).save(tmp_path / "2.png")
    Image.new("L", (4, 4), 9).save(tmp_path / "3.png")
    model = KnownModel({}, {**{COLOURS[n]: AXES[n] for n in COLOURS}, (0, 0, 0): (1.0, 1.0, 1.0)})
    found = embed_files(model, sorted(tmp_path.iterdir()), batch_size=3)
    assert found.tolist() == [
        list(AXES["red"]),
        list(AXES["green"]),
        [1.0, 1.0, 1.0],
        pytest.approx(list(AXES["grey"])),
    ]


# Names that are shared ------------------------------------------------------------------------------------------------


def test_one_of_two_classes_of_one_name_is_never_predicted_and_the_scores_say_so(
    tmp_path: Path,
) -> None:
    pictures(tmp_path / "images", bird={"red": 2}, machine={"red": 2}, sea={"blue": 1})
    (tmp_path / "classes.json").write_text('{"bird": "red", "machine": "red", "sea": "blue"}')
    data = read_labelled_images(tmp_path / "images", tmp_path / "classes.json")
    scores, predicted = zero_shot(known(), data, ["{}"])
    assert scores == {"n": 5, "top1": 0.6, "top5": 1.0, "mean_per_class": pytest.approx(2 / 3), "shared_names": 2}
    assert len({"bird", "machine"} & set(predicted)) == 1
    assert data.shared_names == {"red": ["bird", "machine"]}
    (warning,) = data.warnings()
    assert warning.startswith("2 classes share the name 'red' ('bird', 'machine'): ")
    assert "can never be predicted" in warning


@pytest.mark.parametrize(
    ("classes", "shared", "count"),
    [
        ({"a": "Crane", "b": " crane "}, {"crane": ["a", "b"]}, 2),
        ({"a": "construction  crane", "b": "construction\tCRANE"}, {"construction crane": ["a", "b"]}, 2),
        ({"a": "cats &amp; dogs", "b": "cats & dogs"}, {"cats & dogs": ["a", "b"]}, 2),
        ({"a": "caf\u00e9", "b": "cafe\u0301"}, {"caf\u00e9": ["a", "b"]}, 2),
        ({"a": ["crane", "bird"], "b": ["machine", "crane"], "c": "sea"}, {"crane": ["a", "b"]}, 2),
        ({"a": "x", "b": "x", "c": "y", "d": ["y", "x"]}, {"x": ["a", "b", "d"], "y": ["c", "d"]}, 4),
        ({"a": ["crane", "crane"], "b": "cranes", "c": "a crane"}, {}, 0),
    ],
)
def test_names_are_shared_as_the_model_reads_them(
    tmp_path: Path, classes: dict, shared: dict[str, list[str]], count: int
) -> None:
    pictures(tmp_path / "images", a={"red": 1})
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    data = read_labelled_images(tmp_path / "images", tmp_path / "classes.json")
    assert data.shared_names == shared
    assert data.classes_of_shared_names == count
    assert len(data.warnings()) == len(shared)
    if "c" in classes and shared:
        assert ("tell them apart" in data.warnings()[0]) == (count == 2)


def test_many_shared_names_are_counted(tmp_path: Path) -> None:
    pictures(tmp_path / "images", a0={"red": 1})
    (tmp_path / "classes.json").write_text(json.dumps({f"{way}{i}": f"name {i}" for way in "ab" for i in range(9)}))
    warnings = read_labelled_images(tmp_path / "images", tmp_path / "classes.json").warnings()
    assert len(warnings) == 4
    assert warnings[-1] == "6 more names are shared; 18 classes in all"


def test_a_key_that_comes_twice_is_refused(tmp_path: Path) -> None:
    """Python would keep the last."""
    pictures(tmp_path / "images", crane={"red": 1})
    for text, message in (
        ('{"crane": "bird", "crane": "machine"}', "the key 'crane' comes 2 times"),
        ('{"\u00e9": "a", "e\u0301": "b", "crane": "c"}', "comes twice, in two spellings"),
    ):
        (tmp_path / "classes.json").write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read_labelled_images(tmp_path / "images", tmp_path / "classes.json")


def test_the_command_warns_of_shared_names_at_the_start(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "classes.json").write_text(json.dumps({**CLASSES, "x": "Red Square"}))
    (folder / "images" / "r" / "notes.txt").write_text("")
    assert run(folder) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["shared_names"] == 2
    assert "warning: 2 classes share the name 'red square' ('r', 'x'): " in printed.err
    assert (
        f"warning: passed over 1 file of {folder}/images that Pillow does not read: .txt 1 (r/notes.txt)" in printed.err
    )


# The command once more ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shutil.rmtree(f / "images"), "there is no folder"),
        (lambda f: (f / "classes.json").write_text("{}"), "at least one class"),
        (lambda f: (f / "classes.json").write_text('{"r": [], "g": "g", "b": "b"}'), "class 'r' must have a name"),
        (lambda f: (f / "classes.json").write_bytes(b"\xff"), "cannot read classes"),
        (lambda f: (f / "edges.json").write_text("[]"), "the taxonomy has no edges"),
        (lambda f: (f / "edges.json").write_text('{"r": "root"}'), 'must hold [["child", "parent"], ...]'),
        (lambda f: (f / "edges.json").unlink(), "cannot read a taxonomy"),
        (
            lambda f: (f / "edges.json").write_text(json.dumps(EDGES[:3] + EDGES[4:])),
            "class 'x' is not in the taxonomy",
        ),
        (lambda f: (f / "edges.json").write_text(json.dumps([*EDGES[:5], ["cold", "elsewhere"]])), "does not connect"),
        (lambda f: shutil.rmtree(f / "checkpoint"), "is not a checkpoint directory"),
        (lambda f: (f / "checkpoint" / "config.yaml").write_text("a: [1,\nb: }"), "cannot read"),
        (lambda f: (f / "checkpoint" / "config.yaml").write_text("a: 1"), "not a hypclip checkpoint"),
        (lambda f: (f / "images" / "r" / "1.png").write_bytes(b""), "r/1.png"),
    ],
)
def test_more_mistakes_exit_1_with_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], object], message: str
) -> None:
    spoil(folder)
    assert run(folder, "--taxonomy", str(folder / "edges.json")) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note:")]
    assert len(error) == 1
    assert error[0].startswith("error: ")
    assert message in error[0]


@pytest.mark.slow
def test_the_documented_command_line_runs_as_a_program(folder: Path) -> None:
    """Also that a missing argument is exit code 2, as argparse has it."""
    program = [sys.executable, str(Path(__file__).parents[2] / "train" / "zero_shot.py")]
    arguments = ["--checkpoint", "checkpoint", "--images", "images", "--classes", "classes.json"]
    (folder / "prompts.txt").write_text("a {}\n")
    more = ["--taxonomy", "edges.json", "--templates", "prompts.txt", "--output", "scores.json"]
    done = subprocess.run(
        [*program, *arguments, *more], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((folder / "scores.json").read_text())
    assert list(json.loads(done.stdout)) == [
        "n", "top1", "top5", "mean_per_class", "tie", "lca", "jaccard", "hierarchical_precision", "hierarchical_recall"
    ]  # fmt: skip
    with pytest.raises(SystemExit) as stop:
        main(arguments[:4])
    assert stop.value.code == 2


def test_the_command_scores_what_the_model_says(
    folder: Path, model: HypCLIP, capsys: pytest.CaptureFixture[str]
) -> None:
    """Worked out apart: nearest class of each picture by distance on the hyperboloid, in float64."""
    assert run(folder, "--taxonomy", str(folder / "edges.json")) == 0
    scores = json.loads(capsys.readouterr().out)
    data = read_labelled_images(folder / "images", folder / "classes.json")
    images = model.embed_image([Image.open(file).convert("RGB") for file in data.files]).double()
    classes = embed_classes(model, data.names).double()
    curv = model.curv.item()
    times = [(1 / curv + (points**2).sum(1)).sqrt() for points in (images, classes)]
    inner = images @ classes.T - times[0][:, None] * times[1][None]
    guesses = inner.argmax(1).tolist()
    assert scores["top1"] == sum(g == t for g, t in zip(guesses, data.labels, strict=True)) / 6
    parents = dict(EDGES)
    steps = [0 if g == t else 2 if parents[data.keys[g]] == parents[data.keys[t]] else 4
             for g, t in zip(guesses, data.labels, strict=True)]  # fmt: skip
    assert scores["tie"] == pytest.approx(sum(steps) / 6)


def test_answers_by_the_taxonomy_are_grouped_by_kind(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = folder / "texts.json"
    texts.write_text('{"warm": "a warm colour", "cold": "a cold colour"}')
    by = ["--hierarchical", "--calibration", str(folder / "images"), "--node-texts", str(texts), "--accuracies", "0.75"]
    assert run(folder, "--taxonomy", str(folder / "edges.json"), *by, "--weights", "5", "2", "0") == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["flat"] == {name: scores[name] for name in ("top1", "tie", "lca", "jaccard")}
    assert scores["least_wrong"].keys() == scores["joint"].keys() == scores["flat"].keys()
    assert scores["stop_75"]["accuracy"] >= 0.75
    assert scores["weight"] == {"similarity": 5, "level_1": 2, "level_2": 0}
    assert 0 <= scores["calibration_error"]["level_1"] <= 1


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--hierarchical"], "--hierarchical needs --taxonomy"),
        (["--calibration", "DIR"], "--calibration needs --hierarchical"),
        (["--node-texts", "x.json"], "--node-texts needs --hierarchical"),
        (["--taxonomy", "edges.json", "--hierarchical", "--weights", "1"], "expected 3 weights"),
        (["--taxonomy", "edges.json", "--hierarchical", "--accuracies", "1.5"], "accuracies must be above 0"),
        (["--taxonomy", "edges.json", "--hierarchical", "--node-texts", "t.json"], "no class: 'grey'"),
    ],
)
def test_answers_that_cannot_be_made_exit_1(folder, capsys, monkeypatch, extra, said) -> None:
    monkeypatch.chdir(folder)
    (folder / "t.json").write_text('{"grey": "grey"}')
    assert run(folder, *extra) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
