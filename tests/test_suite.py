"""Evaluations by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_helpers import pair, tiny_model, write_tar
from PIL import Image

from hypclip.config import build
from hypclip.data.quickstart.shards import write_shards
from hypclip.data.shards import find_shards
from hypclip.errors import ConfigError, DataError
from hypclip.evaluation.retrieval import read_pairs, retrieval
from hypclip.evaluation.suite import EvaluationConfig, RetrievalTask, ZeroShotTask, prepare
from hypclip.model import HypCLIP

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
    (root / "lacking.json").write_text('[["r", "warm"], ["b", "warm"]]')
    return root


@pytest.fixture(scope="module")
def model() -> HypCLIP:
    return tiny_model()


def squares(folder: Path, **settings: object) -> ZeroShotTask:
    given = {"images": folder / "images", "classes": folder / "classes.json", **settings}
    return build(ZeroShotTask, given)


def scenes(folder: Path, samples: int = 1_000) -> RetrievalTask:
    return RetrievalTask(str(folder / "data" / "validation"), samples)


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
    others = [{name: dict(e(tiny_model(seed))) for name, e in evaluations.items()} for seed in range(1, 6)]
    assert any(other != first for other in others)


@pytest.mark.parametrize("training", [False, True])
def test_a_model_in_training_stays_so(folder, training):
    model = tiny_model().train(training)
    evaluations = prepare(EvaluationConfig({"squares": squares(folder)}, {"scenes": scenes(folder)}))
    for evaluate in evaluations.values():
        evaluate(model)
    assert {module.training for module in model.modules()} == {training}


# Mistakes -------------------------------------------------------------------------------------------------------------


def test_a_name_stands_for_one_evaluation(folder):
    with pytest.raises(ConfigError, match="evaluations need names of their own, got a, b, a"):
        prepare(EvaluationConfig({"a": squares(folder), "b": squares(folder)}, {"a": scenes(folder)}))


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
