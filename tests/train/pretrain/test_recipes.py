"""Whole runs of every recipe, by name, from a file or in the config, with several boxes a sample or none."""

import math
import shutil
from pathlib import Path

import pytest

import hypclip
from hypclip.objective import recipe_from
from hypclip.objective.recipe import RECIPES, Recipe
from tests.support.data import write_pairs
from tests.support.pretraining import CLOCK, assert_refused, assert_same_run, rewind, run
from tests.support.training import SCALES, read_log, run_config, without, write_config


@pytest.fixture
def config(tmp_path, shards) -> Path:
    """The config of the same run into a folder of its own, tmp_path/run."""
    return write_config(tmp_path / "config.yaml", run_config(tmp_path / "run", shards))


# Recipes --------------------------------------------------------------------------------------------------------------


def parts_of(recipe: Recipe) -> set[str]:
    """The names of the terms of a loss, as the log has them."""
    return (
        {f"contrast/{term.query}-{term.key}" for term in recipe.contrast}
        | {f"entail/{edge.general}-{edge.specific}" for edge in (*recipe.edges, *recipe.entail)}
        | {f"order/{order.general}-{order.specific}" for order in recipe.order}
        | {f"anchor/{anchor.role}" for anchor in recipe.anchors}
        | {f"calibrate/{edge.general}-{edge.specific}" for edge in recipe.edges if edge.calibration}
        | {f"{term.kind}/{term.role}" for term in recipe.regularisers}
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_by_its_name_alone(name, config, tmp_path):
    """What the model needs to know of it, it is told; what is left can be loaded without the config."""
    assert run(config, f"objective={name}", "train.steps=3", "data.workers=0") == 0
    recipe = recipe_from(name)
    lines = read_log(tmp_path / "run")
    always = {"step", "loss", "lr", "curv", "logit_scale", "logit_scale_per_rho", "grad_norm", *CLOCK}
    figures = ("violation", "margin", "cosine", "gap")
    related = (*recipe.edges, *recipe.entail)
    seen = {f"{figure}/{e.general}-{e.specific}" for figure in figures for e in related}
    seen |= {f"clamped/{e.general}-{e.specific}" for e in recipe.edges}
    if recipe.metric.has_cones:
        seen |= {f"radius/{role}/q{percent}" for role in recipe.roles for percent in ("05", "50", "95")}
    numbers = always | parts_of(recipe) | recipe.scales.keys() | seen
    assert len(lines) == 3
    for line in lines:
        assert line.keys() == numbers | {"skipped", "damaged_shards", "warnings"}
        assert {field for field in numbers if type(line[field]) not in (int, float)} == set()
        assert line["warnings"] == []
    assert (lines[-1]["curv"] != 1.0) == (recipe.metric.is_hyperbolic and recipe.learn_curv)

    model = hypclip.load(tmp_path / "run" / "checkpoint")
    assert model.metric == recipe.metric
    assert {"logit_scale": model.config.logit_scale_init, **model.config.other_scales} == recipe.scales
    assert {scale: value.item() for scale, value in model.scales.items()} == {s: lines[-1][s] for s in recipe.scales}
    assert model.curv.mean().item() == lines[-1]["curv"]
    assert model.curv.shape == ((2,) if name == "phyclip" else ())
    notes = hypclip.checkpoint.read_config(tmp_path / "run" / "checkpoint")
    assert recipe_from(notes["objective"]) == recipe
    texts = model.embed_text(["a red square", "a blue square"])
    assert model.similarity(texts, texts).isfinite().all()


SEVERAL = {"base": "uncha", "max_boxes": 3}


@pytest.fixture
def several(tmp_path, shards) -> Path:
    """The config of a run with up to three boxes a sample, in two parts a batch."""
    settings = run_config(tmp_path / "run", shards, objective=SEVERAL, train__accumulate=2)
    return write_config(tmp_path / "several.yaml", settings)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [2, 3])
def test_parts_of_a_batch_train_as_the_whole_does(accumulate, several, tmp_path):
    """Four samples in parts of two, and of one and two; without the dropped patches, which are drawn in other order."""
    quiet = ["model.towers.vision_cfg.patch_dropout=0", "train.steps=4", "data.workers=0"]
    assert run(several, *quiet, f"train.accumulate={accumulate}") == 0
    assert run(several, *quiet, "train.accumulate=1", f"output_dir={tmp_path}/whole") == 0
    for ours, theirs in zip(read_log(tmp_path / "run"), read_log(tmp_path / "whole"), strict=True):
        assert without(ours, *CLOCK, "warnings", "skipped", "damaged_shards") == pytest.approx(
            without(theirs, *CLOCK, "warnings", "skipped", "damaged_shards"), rel=2e-3, abs=1e-4
        )


@pytest.mark.slow
def test_a_run_of_several_boxes_in_parts_goes_on_bit_for_bit(several, tmp_path):
    """With patches dropped at random in each part."""
    assert run(several, "train.keep_checkpoints=3") == 0
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    rewind(tmp_path / "again", 2)
    assert run(several, "train.keep_checkpoints=3", f"output_dir={tmp_path}/again", "--resume") == 0
    assert_same_run(tmp_path / "again", tmp_path / "run")
    assert SCALES.keys() <= read_log(tmp_path / "run")[-1].keys()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_pairs_without_boxes_train_too(accumulate, several, tmp_path):
    """In the terms of whole pictures; of boxes there is nothing to say."""
    write_pairs(tmp_path / "pairs", [8, 8])
    arguments = [f"data.shards={tmp_path}/pairs", "train.steps=2", "data.workers=0", f"train.accumulate={accumulate}"]
    assert run(several, *arguments) == 0
    for line in read_log(tmp_path / "run"):
        assert 0 < line["loss"] < 10
        assert line["contrast/image-text"] > 0
        assert {line[name] for name in parts_of(recipe_from(SEVERAL)) if "box" in name} == {0.0}
        assert line["radius/box_image/q50"] is None
        assert line["radius/image/q50"] > 0


def test_a_factor_that_does_not_divide_is_refused_before_training(config, capsys):
    towers = "model.towers.embed_dim=20"
    assert_refused(config, capsys, "factor_dim 8 does not divide the embedding's 20", "objective=phyclip", towers)


def test_boxes_alone_train(tmp_path, shards):
    """A recipe of no role but boxes, several a sample; the shards have samples without any."""
    pair = {"query": "box_image", "key": "box_text"}
    boxes = {"geometry": "lorentz", "max_boxes": 3, "contrast": [pair]}
    settings = run_config(tmp_path / "run", shards, objective=boxes, train__steps=4, data__workers=0)
    assert run(write_config(tmp_path / "config.yaml", settings)) == 0
    log = read_log(tmp_path / "run")
    assert [line["loss"] for line in log] == [line["contrast/box_image-box_text"] for line in log]
    assert all(math.isfinite(line["grad_norm"]) and line["grad_norm"] > 0 for line in log)
