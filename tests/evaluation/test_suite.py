"""Evaluations by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from hypclip.config import build
from hypclip.data.quickstart.shards import write_shards
from hypclip.data.shards import find_shards
from hypclip.errors import ConfigError, DataError
from hypclip.evaluation.retrieval import read_pairs, retrieval
from hypclip.evaluation.suite import (
    EvaluationConfig,
    FewShotTask,
    HierarchyTask,
    RetrievalTask,
    ZeroShotTask,
    prepare,
)
from hypclip.geometry.entailment import Cone, Plane
from hypclip.model import HypCLIP
from tests.support.data import pair, write_tar
from tests.support.models import tiny_encoder

ACCURACY = {"n", "top1", "top5", "mean_per_class"}
HIERARCHY = {"tie", "lca", "jaccard", "hierarchical_precision", "hierarchical_recall"}
COUNTS = {"n", "captions", "skipped"}
RECALL = {f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root: Path = tmp_path_factory.mktemp("suite")
    write_shards(root / "data", "validation", 8)
    for key, colour in (("r", "red"), ("b", "blue")):
        (root / "images" / key).mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (20, 20 + index), colour).save(root / "images" / key / f"{index}.png")
    (root / "classes.json").write_text('{"r": "red", "b": "blue", "g": ["green", "leaf"]}')
    (root / "edges.json").write_text('[["r", "warm"], ["b", "cold"], ["g", "cold"], ["warm", "all"], ["cold", "all"]]')
    (root / "is_a.json").write_text('[["red", "a colour"], ["a blue", "a colour"], ["a colour", "a look"]]')
    (root / "held_out.json").write_text('[["green", "a colour"]]')
    (root / "lacking.json").write_text('[["r", "warm"], ["b", "warm"]]')
    return root


@pytest.fixture(scope="module")
def model() -> HypCLIP:
    return tiny_encoder()


def squares(folder: Path, **settings: object) -> ZeroShotTask:
    given = {"images": folder / "images", "classes": folder / "classes.json", **settings}
    return build(ZeroShotTask, given)


def scenes(folder: Path, samples: int = 1_000) -> RetrievalTask:
    return RetrievalTask(str(folder / "data" / "validation"), samples)


def is_a(folder: Path, **settings: object) -> HierarchyTask:
    return build(HierarchyTask, {"taxonomy": str(folder / "is_a.json"), **settings})


def test_nothing_is_evaluated_unless_asked():
    assert prepare(EvaluationConfig()) == {}


def test_each_task_gives_its_figures_by_its_name(folder, model):
    config = EvaluationConfig({"squares": squares(folder)}, {"all": scenes(folder), "few": scenes(folder, 3)})
    found = {name: evaluate(model) for name, evaluate in prepare(config).items()}
    assert list(found) == ["squares", "all", "few"]
    assert found["squares"].keys() == ACCURACY
    assert found["all"].keys() == found["few"].keys() == RECALL | COUNTS
    assert [found[name]["n"] for name in found] == [4, 8, 3]
    assert all(0 <= value <= 1 for scores in found.values() for name, value in scores.items() if name not in COUNTS)
    assert found["squares"]["top5"] == 1.0


def test_a_taxonomy_scores_answers_by_what_they_share(folder, model):
    task = squares(folder, taxonomy=folder / "edges.json", ancestors={"kind": 1, "any": 0})
    scores = prepare(EvaluationConfig({"squares": task}))["squares"](model)
    assert scores.keys() == ACCURACY | HIERARCHY | {"kind_right", "any_right"}
    assert scores["any_right"] == 1.0
    assert scores["top1"] <= scores["kind_right"] <= 1.0
    assert (scores["tie"] == 0) == (scores["top1"] == 1.0)


def test_retrieval_is_of_the_pairs_of_the_shards(folder, model):
    records = read_pairs(find_shards(str(folder / "data" / "validation")), 8).records
    expected = dict(
        retrieval(model, model.embed_image([r.image for r in records]), model.embed_text([r.caption for r in records]))
    )
    scores = prepare(EvaluationConfig(retrieval={"scenes": scenes(folder)}))["scenes"](model)
    assert dict(scores) == {"n": 8, "captions": 8, "skipped": 0, **expected}


def test_five_lines_of_a_text_are_five_captions(tmp_path, model):
    """As CLIP_benchmark's shards of COCO and Flickr30k have them."""
    files = [f for i in range(4) for f in pair(f"{i}", "\n".join(f"caption {i} {n}" for n in range(5)))]
    task = RetrievalTask(str(write_tar(tmp_path / "0.tar", [*files, *pair("bad", "")])))
    scores = prepare(EvaluationConfig(retrieval={"five": task}))["five"](model)
    assert (scores["n"], scores["captions"], scores["skipped"]) == (4, 20, 1)
    assert scores["text_to_image_r1"] * 20 == pytest.approx(round(scores["text_to_image_r1"] * 20))


def test_an_evaluation_can_be_run_again_and_on_another_model(folder, model):
    evaluations = prepare(EvaluationConfig({"squares": squares(folder)}, {"scenes": scenes(folder)}))
    first, again = ({name: dict(e(model)) for name, e in evaluations.items()} for _ in range(2))
    assert first == again
    others = [{name: dict(e(tiny_encoder(seed))) for name, e in evaluations.items()} for seed in range(1, 6)]
    assert any(other != first for other in others)


@pytest.mark.parametrize("training", [False, True])
def test_a_model_in_training_stays_so(folder, training):
    model = tiny_encoder().train(training)
    evaluations = prepare(
        EvaluationConfig({"squares": squares(folder)}, {"scenes": scenes(folder)}, {"is_a": whole(folder)})
    )
    for evaluate in evaluations.values():
        evaluate(model)
    assert {module.training for module in model.modules()} == {training}


# Hierarchy ------------------------------------------------------------------------------------------------------------


def whole(folder: Path) -> HierarchyTask:
    """Return a task with all that a hierarchy can be measured with."""
    pictures = {"images": folder / "images", "classes": folder / "classes.json"}
    return is_a(
        folder,
        held_out=str(folder / "held_out.json"),
        **pictures,
        shards=str(folder / "data" / "validation"),
        samples=4,
    )


def test_a_hierarchy_is_measured_with_what_is_given(folder, model):
    config = EvaluationConfig(hierarchy={"alone": is_a(folder), "whole": whole(folder)})
    found = {name: evaluate(model) for name, evaluate in prepare(config).items()}
    assert list(found) == ["alone", "whole"]
    assert found["alone"]["phrases"] == 4
    assert not {"held_out", "pictures", "images", "radius/image"} & found["alone"].keys()
    counts = ("phrases", "held_out", "pictures", "images", "captions", "skipped")
    assert [found["whole"][name] for name in counts] == [5, 1, 4, 4, 4, 0]
    # "red" is a phrase as it stands and "a blue" with an article; "leaf" is another name of green.
    assert found["whole"]["2-picture/pairs"] == 3 * 4
    assert found["whole"]["2-picture/base_rate"] == 1 / 3
    assert found["whole"]["1-2_held_out/pairs"] == 1
    assert {"radius/0", "order/1", "order/held_out", "order/caption", "inside/own_image"} < found["whole"].keys()
    assert found["alone"]["radius/0"] == found["whole"]["radius/0"] > 0


def test_a_hierarchy_can_be_measured_again(folder, model):
    evaluate = prepare(EvaluationConfig(hierarchy={"whole": whole(folder)}))["whole"]
    assert evaluate(model) == evaluate(model)
    assert evaluate(tiny_encoder(1)) != evaluate(model)


def test_it_is_the_models_own_rule_that_is_asked(folder):
    evaluate = prepare(EvaluationConfig(hierarchy={"is_a": is_a(folder)}))["is_a"]
    rules = (Cone(), Cone(eta=1e-6), Plane(-100.0))
    none, less, everything = (evaluate(tiny_encoder(entailment=rule)) for rule in rules)
    assert everything["0-1/recall"] == everything["1-2/recall"] == 1
    assert less["0-1/recall"] == less["violated/all"] - 1 == 0
    assert none["radius/0"] == less["radius/0"] == everything["radius/0"]


def test_classes_that_are_in_no_taxonomy_are_named_once(folder, model, tmp_path):
    (tmp_path / "classes.json").write_text('{"r": "red", "b": "navy", "g": "sofa"}')
    told = []
    task = is_a(folder, images=folder / "images", classes=tmp_path / "classes.json")
    evaluate = prepare(EvaluationConfig(hierarchy={"x": task}), told.append)["x"]
    assert told == [
        "hierarchy.x: 2 of 3 classes are no phrases of the taxonomy, and their images take no part: navy; sofa"
    ]
    assert evaluate(model)["pictures"] == 2
    assert len(told) == 1


def test_of_the_sphere_it_is_told_once_what_is_left_out(folder):
    told = []
    evaluate = prepare(EvaluationConfig(hierarchy={"x": whole(folder)}), told.append)["x"]
    sphere = tiny_encoder(geometry="sphere")
    assert evaluate(sphere) == evaluate(sphere)
    assert told == [
        "hierarchy.x: on the sphere no point is more general than another: ap and auc are those of the cosine, and "
        "what needs radii or regions is left out"
    ]


@pytest.mark.parametrize(
    "space", [{"geometry": "euclidean"}, {"geometry": "product", "distance": "l1", "factor_dim": 4}]
)
def test_a_hierarchy_in_other_spaces(folder, model, space):
    evaluate = prepare(EvaluationConfig(hierarchy={"x": whole(folder)}))["x"]
    found = evaluate(tiny_encoder(**space))
    assert {"0-1/recall", "radius/2", "inside/other_image"} < found.keys()


# Few shots ------------------------------------------------------------------------------------------------------------


def drawn(folder: Path, **settings: object) -> FewShotTask:
    """Return a task of three classes of four images each, in folder/drawn; blue and green are cold."""
    for key, colour in (("r", (250, 0, 0)), ("b", (0, 0, 250)), ("g", (0, 250, 0))):
        (folder / "drawn" / key).mkdir(parents=True, exist_ok=True)
        for index in range(4):
            Image.new("RGB", (20, 20), tuple(max(0, c - index) for c in colour)).save(
                folder / "drawn" / key / f"{index}.png"
            )
    usual = {"images": folder / "drawn", "classes": folder / "classes.json", "ways": 3, "queries": 2, "episodes": 5}
    return build(FewShotTask, {**usual, "shots": [1, 2], **settings})


def test_few_shots_are_reported_by_method_and_number(folder, model):
    found = prepare(EvaluationConfig(few_shot={"x": drawn(folder)}))["x"](model)
    assert (found["n"], found["classes"], found["episodes"]) == (12, 3, 5)
    scores = {name for name in found if "/" in name}
    columns = ("1-shot", "1-shot ±", "2-shot", "2-shot ±")
    assert scores == {f"{row}/{column}" for row in ("lorentz", "euclid", "cosine", "probe") for column in columns}
    assert all(0 <= found[name] <= 1 for name in scores)
    assert found["euclid/1-shot"] > 0.5  # one colour a class


def test_classes_are_joined_by_what_is_above_them(folder, model):
    task = drawn(folder, taxonomy=folder / "edges.json", depth=1, ways=2, probe=False)
    found = prepare(EvaluationConfig(few_shot={"x": task}))["x"](model)
    assert found["classes"] == 2
    assert not any("probe" in name for name in found)
    sphere = prepare(EvaluationConfig(few_shot={"x": task}))["x"](tiny_encoder(geometry="sphere"))
    assert {name.partition("/")[0] for name in sphere if "/" in name} == {"euclid", "cosine"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 1}, r"few_shot\.x\.taxonomy and few_shot\.x\.depth belong together"),
        ({"taxonomy": "edges.json"}, r"few_shot\.x\.taxonomy and few_shot\.x\.depth belong together"),
        ({"taxonomy": "edges.json", "depth": 3}, r"few_shot\.x\.depth 3: .* 3 of 3 classes have none or several: r; "),
        ({"taxonomy": "lacking.json", "depth": 1}, "class 'g' is not in the taxonomy"),
    ],
)
def test_classes_that_cannot_be_joined_are_named(folder, change, message):
    change = {name: folder / value if name == "taxonomy" else value for name, value in change.items()}
    with pytest.raises((ConfigError, DataError), match=message):
        prepare(EvaluationConfig(few_shot={"x": drawn(folder, **change)}))


# Mistakes -------------------------------------------------------------------------------------------------------------


def test_a_name_stands_for_one_evaluation(folder):
    with pytest.raises(ConfigError, match="evaluations need names of their own, got a, b, a"):
        prepare(EvaluationConfig({"a": squares(folder), "b": squares(folder)}, {"a": scenes(folder)}))
    with pytest.raises(ConfigError, match="evaluations need names of their own, got a, a"):
        prepare(EvaluationConfig(retrieval={"a": scenes(folder)}, hierarchy={"a": is_a(folder)}))


def test_ancestors_need_a_taxonomy(folder):
    task = squares(folder, ancestors={"kind": 1})
    with pytest.raises(ConfigError, match=r"zero_shot\.squares\.ancestors needs zero_shot\.squares\.taxonomy"):
        prepare(EvaluationConfig({"squares": task}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"taxonomy": "lacking.json"}, "class 'g' is not in the taxonomy"),
        ({"taxonomy": "nowhere.json"}, "cannot read a taxonomy from .*nowhere.json"),
        ({"images": "nowhere"}, "there is no folder .*nowhere"),
        ({"classes": "images"}, "cannot read classes from .*images"),
    ],
)
def test_data_that_cannot_be_used_is_named_before_any_model_is_evaluated(folder, change, message):
    task = squares(folder, **{name: folder / path for name, path in change.items()})
    with pytest.raises(DataError, match=message):
        prepare(EvaluationConfig({"squares": task}))


@pytest.mark.parametrize(
    ("content", "change", "message"),
    [
        (None, {"taxonomy": "emojis"}, r"hierarchy\.x\.taxonomy: there is no taxonomy 'emojis'.*emoji, emoji-held-out"),
        ("[]", {}, r"hierarchy\.x\.held_out: .*at least one is-a edge"),
        ('[["a", "b"], ["b", "a"]]', {}, r"hierarchy\.x\.held_out: .*has a cycle: a → b → a"),
        (
            '[["green", "a hue"]]',
            {},
            r"hierarchy\.x\.held_out: the parent .* must be in the taxonomy.*'a hue' of 'green'",
        ),
        ('[["red", "a look"]]', {}, r"hierarchy\.x\.held_out: .* must not be in the taxonomy.*'red'"),
        (None, {"shards": "x.tar"}, r"hierarchy\.x\.shards: there is no shard x.tar"),
        (None, {"images": "i"}, r"hierarchy\.x\.images and hierarchy\.x\.classes belong together"),
        (None, {"classes": "c"}, r"hierarchy\.x\.images and hierarchy\.x\.classes belong together"),
        (None, {"images": "i", "classes": "c"}, "cannot read classes from c"),
    ],
)
def test_a_hierarchy_that_cannot_be_measured_is_named_with_its_setting(folder, tmp_path, content, change, message):
    if content is not None:
        (tmp_path / "held_out.json").write_text(content)
        change = {"held_out": str(tmp_path / "held_out.json")}
    with pytest.raises((ConfigError, DataError), match=message):
        prepare(EvaluationConfig(hierarchy={"x": is_a(folder, **change)}))


def test_templates_of_a_hierarchy_need_one_place_for_the_name(folder):
    task = is_a(folder, images=folder / "images", classes=folder / "classes.json", templates=["a photo"])
    with pytest.raises(DataError, match="exactly one"):
        prepare(EvaluationConfig(hierarchy={"x": task}))


def test_shards_that_are_missing_are_named_with_their_setting(tmp_path):
    with pytest.raises(DataError, match=r"^retrieval\.five\.shards: there is no shard .*x\.tar$"):
        prepare(EvaluationConfig(retrieval={"five": RetrievalTask(str(tmp_path / "x.tar"))}))


def test_templates_need_one_place_for_the_name(folder):
    with pytest.raises(DataError, match="exactly one"):
        prepare(EvaluationConfig({"squares": squares(folder, templates=["a photo"])}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"retrieval": {"x": {"shards": "x", "samples": 1}}}, r"retrieval\.x\.samples: .*greater than or equal to 2"),
        (
            {"zero_shot": {"x": {"images": "i", "classes": "c", "ancestors": {"k": -1}}}},
            r"ancestors\.k: .*or equal to 0",
        ),
        ({"zero_shot": {"x": {"classes": "c"}}}, r"lacks 'zero_shot\.x\.images'"),
        ({"hierarchy": {"x": {"shards": "s"}}}, r"lacks 'hierarchy\.x\.taxonomy'"),
        ({"hierarchy": {"x": {"taxonomy": "emoji", "template": "a"}}}, r"did you mean 'templates'"),
        ({"zero_shots": {}}, "unknown key .*'zero_shots', did you mean 'zero_shot'"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        build(EvaluationConfig, settings)


def test_what_a_person_should_know_is_told_at_the_start_and_not_at_every_evaluation(folder, model, tmp_path, caplog):
    (tmp_path / "classes.json").write_text('{"r": "crane", "b": "crane", "g": "leaf"}')
    task = squares(folder, classes=tmp_path / "classes.json")
    told = []
    evaluate = prepare(EvaluationConfig({"squares": task}), told.append)["squares"]
    assert len(told) == 1
    assert told[0].startswith("zero_shot.squares: 2 classes share the name 'crane' ('r', 'b')")
    assert evaluate(model)["shared_names"] == 2
    assert len(told) == 1
    assert caplog.text == ""
    prepare(EvaluationConfig({"squares": task}))
    assert "2 classes share the name 'crane'" in caplog.text


STOPPED = {"accuracy", "coverage", "specific", "specificity", "information", "tie"}


def test_answers_by_the_taxonomy_stand_beside_the_flat_ones(folder, model):
    by = {"weights": [9.0, 0.0, 0.0], "accuracies": [0.5]}
    task = squares(folder, taxonomy=folder / "edges.json", hierarchical=by)
    scores = prepare(EvaluationConfig({"squares": task}))["squares"](model)
    grid = {
        f"{kind}/{score}" for kind in ("flat", "joint", "least_wrong") for score in ("top1", "tie", "lca", "jaccard")
    }
    weights = {"weight/similarity": 9.0, "weight/level_1": 0.0, "weight/level_2": 0.0}
    assert scores.keys() == ACCURACY | HIERARCHY | grid | {f"stop_50/{score}" for score in STOPPED} | weights.keys() | {
        "calibration_error/level_1",
        "calibration_error/level_2",
    }
    assert {name: scores[name] for name in weights} == weights
    assert scores["flat/top1"] == scores["joint/top1"] == scores["top1"]
    assert (scores["flat/tie"], scores["flat/lca"]) == (scores["tie"], scores["lca"])


def test_answers_are_fitted_to_images(folder, model):
    """To the images that they are then asked of, so that as many are right as wished."""
    by = {"calibration": folder / "images", "accuracies": [0.75, 1.0], "weights": [9.0, 0.0, 0.0]}
    task = squares(folder, taxonomy=folder / "edges.json", hierarchical=by)
    scores = prepare(EvaluationConfig({"squares": task}))["squares"](model)
    assert scores["stop_75/accuracy"] >= 0.75
    assert scores["stop_100/accuracy"] == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hierarchical": {}}, "zero_shot.squares.hierarchical needs zero_shot.squares.taxonomy"),
        ({"taxonomy": "edges.json", "hierarchical": {"node_texts": "classes.json"}}, "must hold"),
        ({"taxonomy": "edges.json", "hierarchical": {"calibration": "nowhere"}}, "there is no folder"),
    ],
)
def test_answers_by_the_taxonomy_are_refused_before_a_model_is_asked(folder, settings, said):
    task = squares(folder, **_in(folder, settings))
    with pytest.raises((ConfigError, DataError), match=said):
        prepare(EvaluationConfig({"squares": task}))


def _in(folder, settings):
    """Return settings whose names of files are those of a folder."""
    return {key: _in(folder, value) if isinstance(value, dict) else folder / value for key, value in settings.items()}
