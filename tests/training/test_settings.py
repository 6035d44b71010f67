import tomllib
from pathlib import Path

import pytest

from hypclip.config import build, read
from hypclip.data.augment import AugmentConfig
from hypclip.errors import ConfigError
from hypclip.geometry.metric import Metric
from hypclip.objective import recipe_from
from hypclip.objective.recipe import RECIPES
from hypclip.training.settings import EvaluateConfig, RunConfig, TrainConfig, configure
from tests.support.models import TOWERS
from tests.support.training import ROOT, run_config

LEAST = {
    "output_dir": "runs/x",
    "model": {"towers": "ViT-B-32"},
    "data": {"shards": "data"},
    "train": {"steps": 10, "batch_size": 4},
}


def test_defaults_are_those_of_the_papers():
    config = build(RunConfig, LEAST)
    assert config.train == TrainConfig(
        steps=10,
        batch_size=4,
        learning_rate=5e-4,
        betas=(0.9, 0.98),
        weight_decay=0.2,
        warmup_steps=0,
        clip_norm=1.0,
        accumulate=1,
        precision="auto",
        seed=0,
        threads=0,
        log_every=10,
        checkpoint_every=1_000,
        keep_checkpoints=2,
    )
    assert config.output_dir == Path("runs/x")
    assert config.objective == "hycoclip"
    assert config.model.metric == Metric("lorentz", "geodesic", None)
    assert config.model.other_scales == {}
    assert (config.model.curv_init, config.model.logit_scale_init) == (1.0, 1 / 0.07)
    assert config.data.augment == AugmentConfig(crop_scale=(0.5, 1.0))
    assert config.data.box_margin == 0.0
    assert config.evaluate == EvaluateConfig(zero_shot={}, retrieval={}, every=1_000)


def test_every_setting_can_be_set(tmp_path):
    data = run_config(tmp_path / "run", tmp_path / "data", objective="meru", evaluate__every=7)
    config = build(RunConfig, data)
    assert config.model.towers["embed_dim"] == TOWERS["embed_dim"]
    assert config.train.checkpoint_every == 2
    assert config.data.augment.crop_scale == (0.5, 1.0)
    assert config.evaluate.every == 7


@pytest.mark.parametrize(
    "path", [*sorted(ROOT.glob("configs/pretrain/*.yaml")), ROOT / "configs/quickstart.yaml"], ids=str
)
def test_the_configs_in_the_repository_are_right(path):
    plan = configure(read(path))
    config, objective = plan.config, plan.objective
    assert objective.recipe == recipe_from(config.objective)
    assert config.model.metric == objective.recipe.metric


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("train", {"step": 3}, "unknown key 'train.step', did you mean 'steps'"),
        ("train", {"steps": 0}, "train.steps: .*greater than 0, got 0"),
        ("train", {"steps": 1.5}, "train.steps: .*got"),
        ("train", {"batch_size": -4}, "train.batch_size: .*greater than 0"),
        ("train", {"precision": "fp8"}, "train.precision: .*'auto', 'fp32', 'bf16' or 'fp16', got 'fp8'"),
        ("train", {"betas": [0.9]}, "train.betas"),
        ("train", {"accumulate": 0}, "train.accumulate: .*greater than 0, got 0"),
        ("train", {"warmup_steps": -1}, "train.warmup_steps"),
        ("data", {"workers": -1}, "data.workers: .*got -1"),
        ("data", {"shards": 3}, "data.shards"),
        ("data", {"max_bad_fraction": 1.5}, "data.max_bad_fraction: .*less than or equal to 1, got 1.5"),
        ("data", {"augment": {"crop": 1}}, "unknown key 'data.augment.crop'"),
        ("model", {"geometry": "ball"}, "model.geometry: .*'lorentz', 'sphere', .*, got 'ball'"),
        ("model", {"distance": "l3"}, "model.distance: .*'geodesic', .*got 'l3'"),
        ("model", {"other_scales": {"box_scale": 0}}, "model.other_scales.box_scale: .*greater than 0, got 0"),
        ("model", {"curv_init": 0}, "model.curv_init: .*greater than 0, got 0"),
        ("model", {"logit_scale_init": -1}, "model.logit_scale_init: .*greater than 0, got -1"),
        ("model", {"image_mean": [0.5, 0.5]}, "model.image_mean: .*3 items"),
        ("model", {"image_std": [0.5, 0.0, 0.5]}, "model.image_std.1: .*greater than 0"),
        ("train", {"ema_decay": 1.0}, "train.ema_decay: .*less than 1, got 1.0"),
        ("train", {"spike": {"window": 3}}, "train.spike.window: .*greater than or equal to 10, got 3"),
        ("train", {"trackers": ["mlflow"]}, "train.trackers.0: .*'tensorboard' or 'wandb', got 'mlflow'"),
        ("train", {"parallel": "zero"}, "train.parallel: .*'ddp' or 'fsdp', got 'zero'"),
        ("tune", {"lora": {"rank": 0}}, "tune.lora.rank: .*greater than 0, got 0"),
        (
            "evaluate",
            {"retrieval": {"x": {"shards": "x", "samples": 1}}},
            r"evaluate\.retrieval\.x\.samples: .*greater than or equal to 2, got 1",
        ),
    ],
)
def test_mistakes_are_named(part, change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build(RunConfig, {**LEAST, part: {**LEAST.get(part, {}), **change}})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["output_dir", "model", "data", "train"])
def test_what_has_no_default_is_asked_for(key):
    with pytest.raises(ConfigError, match=f"the config lacks '{key}'"):
        build(RunConfig, {k: v for k, v in LEAST.items() if k != key})


# What the recipe says of the model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_a_model_follows_its_objective(name):
    plan = configure({**LEAST, "objective": name})
    config, recipe = plan.config, plan.objective.recipe
    assert recipe == recipe_from(name)
    assert config.model.metric == recipe.metric
    assert {"logit_scale": config.model.logit_scale_init, **config.model.other_scales} == recipe.scales
    assert (config.model.curv_init, config.model.learn_curv) == (1.0, name != "hypclip")
    assert config.model.entailment == recipe.rule
    assert config.train == build(RunConfig, LEAST).train


def test_a_model_may_start_its_scales_elsewhere():
    scales = {"box_scale": 2.0, "box_whole_scale": 3.0}
    model = {"towers": "ViT-B-32", "logit_scale_init": 5.0, "other_scales": scales, "curv_init": 0.5}
    config = configure({**LEAST, "model": model, "objective": "uncha"}).config
    assert (config.model.logit_scale_init, config.model.other_scales, config.model.curv_init) == (5.0, scales, 0.5)


@pytest.mark.parametrize(
    ("objective", "model"),
    [
        ("hycoclip", {"geometry": "lorentz"}),
        ("hycoclip", {"geometry": "lorentz", "distance": "geodesic", "factor_dim": None}),
        ("clip", {"geometry": "sphere"}),
        ("euclip", {"geometry": "euclidean"}),
        ("euclip", {"geometry": "euclidean", "distance": "squared"}),
        ("euclip", {"distance": "squared"}),
        ("phyclip", {"geometry": "product", "distance": "l1", "factor_dim": 8}),
        ("phyclip", {"geometry": "product"}),
        ("phyclip", {"factor_dim": 8}),
    ],
)
def test_a_model_may_say_again_what_its_objective_says(objective, model):
    """All of it or some: the rest follows."""
    plan = configure({**LEAST, "model": {**LEAST["model"], **model}, "objective": objective})
    assert plan.config.model.metric == plan.objective.recipe.metric


@pytest.mark.parametrize(
    ("objective", "model", "message"),
    [
        ("hycoclip", {"geometry": "sphere"}, "model.geometry is 'sphere' and the objective's geometry is 'lorentz'"),
        ("clip", {"geometry": "lorentz"}, "model.geometry is 'lorentz' and the objective's geometry is 'sphere'"),
        ("hycoclip", {"geometry": "product"}, "model.geometry is 'product' and the objective's geometry is 'lorentz'"),
        (
            "euclip",
            {"geometry": "euclidean", "distance": "geodesic"},
            "model.distance is 'geodesic' and the objective's distance is 'squared'",
        ),
        (
            "phyclip",
            {"geometry": "product", "distance": "l1", "factor_dim": 16},
            "model.factor_dim is 16 and the objective's factor_dim is 8",
        ),
        ("uncha", {"other_scales": {"box_scale": 2.0}}, "model.other_scales lacks .'box_whole_scale'."),
        ("hyclip", {}, "no recipe named 'hyclip'; known: clip, euclip, meru, hycoclip, hce, phyclip, uncha, argent"),
        ({"base": "meru", "edge": []}, {}, "unknown key 'objective.edge', did you mean 'edges'"),
    ],
)
def test_a_model_that_contradicts_its_objective_is_refused(objective, model, message):
    with pytest.raises(ConfigError, match=message) as caught:
        configure({**LEAST, "model": {**LEAST["model"], **model}, "objective": objective})
    assert "\n" not in str(caught.value)


def test_the_recipes_are_in_the_wheel():
    """Files that are not Python are, where pyproject.toml says so."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packaged = {
        file
        for package, patterns in project["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for file in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    recipes = {ROOT / "hypclip" / "objective" / "recipes" / f"{name}.yaml" for name in RECIPES}
    assert all(file.is_file() for file in recipes)
    assert recipes <= packaged


def test_names_and_places_are_spelled_as_people_spell_them(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    overrides = ["name=20240101", "output_dir=007", "data.shards={a,~/b}/0.tar", "train.upload_to=2024-01-01"]
    overrides += ["evaluate.retrieval.scenes.shards=~/x", "warm_start.source=~/clip.pt", "warm_start.text_model=~/bert"]
    config = build(RunConfig, read(ROOT / "configs" / "quickstart.yaml", overrides, RunConfig))
    assert (config.name, config.output_dir, config.train.upload_to) == ("20240101", Path("007"), "2024-01-01")
    assert config.data.shards == "{a,~/b}/0.tar"
    assert config.evaluate.retrieval["scenes"].shards == "/home/me/x"
    assert (config.warm_start.source, config.warm_start.text_model) == ("/home/me/clip.pt", Path("/home/me/bert"))


def test_a_recipe_of_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_bytes(b"\xef\xbb\xbfbase: meru\nmin_radius: 0.2\n")
    assert configure({**LEAST, "objective": "~/mine.yaml"}).objective.recipe.min_radius == 0.2
