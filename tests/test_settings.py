from pathlib import Path

import pytest
from training_helpers import ROOT, TOWERS, run_config

from hypclip.config import build, read
from hypclip.data.augment import AugmentConfig
from hypclip.errors import ConfigError
from hypclip.objective import recipe_from
from hypclip.training.settings import EvaluateConfig, RunConfig, TrainConfig

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
        precision="auto",
        seed=0,
        threads=0,
        log_every=10,
        checkpoint_every=1_000,
        keep_checkpoints=2,
    )
    assert config.output_dir == Path("runs/x")
    assert config.objective == "hycoclip"
    assert config.model.geometry == "lorentz"
    assert (config.model.curv_init, config.model.logit_scale_init) == (1.0, 1 / 0.07)
    assert config.data.augment == AugmentConfig(crop_scale=(0.5, 1.0))
    assert config.data.box_margin == 0.0
    assert config.evaluate == EvaluateConfig(shards=None)


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
    config = build(RunConfig, read(path))
    assert recipe_from(config.objective).geometry == config.model.geometry


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("train", {"step": 3}, "unknown key 'train.step', did you mean 'steps'"),
        ("train", {"steps": 0}, "train.steps: .*greater than 0, got 0"),
        ("train", {"steps": 1.5}, "train.steps: .*got"),
        ("train", {"batch_size": -4}, "train.batch_size: .*greater than 0"),
        ("train", {"precision": "fp16"}, "train.precision: .*'auto', 'fp32' or 'bf16', got 'fp16'"),
        ("train", {"betas": [0.9]}, "train.betas"),
        ("train", {"warmup_steps": -1}, "train.warmup_steps"),
        ("data", {"workers": -1}, "data.workers: .*got -1"),
        ("data", {"shards": 3}, "data.shards"),
        ("data", {"max_bad_fraction": 1.5}, "data.max_bad_fraction: .*less than or equal to 1, got 1.5"),
        ("data", {"augment": {"crop": 1}}, "unknown key 'data.augment.crop'"),
        ("model", {"geometry": "ball"}, "model.geometry: .*'lorentz' or 'sphere', got 'ball'"),
        ("model", {"curv_init": 0}, "model.curv_init: .*greater than 0, got 0"),
        ("model", {"logit_scale_init": -1}, "model.logit_scale_init: .*greater than 0, got -1"),
        ("model", {"image_mean": [0.5, 0.5]}, "model.image_mean: .*3 items"),
        ("model", {"image_std": [0.5, 0.0, 0.5]}, "model.image_std.1: .*greater than 0"),
        ("evaluate", {"samples": 1}, "evaluate.samples: .*greater than or equal to 2, got 1"),
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
