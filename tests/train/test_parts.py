"""The parts of a run, each from the settings and the parts before it, without a run."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from accelerate.state import AcceleratorState

from hypclip.config import read
from hypclip.errors import CheckpointError, ConfigError
from hypclip.model import HypCLIP
from hypclip.objective import recipe_from
from hypclip.training import precision
from hypclip.training.checkpointing.state import TrainState
from hypclip.training.ema import AveragedWeights
from hypclip.training.settings import RunConfig, RunPlan, configure
from tests.support.models import TOWERS, timm_towers
from tests.support.pretraining import config_of, step_of
from tests.support.training import write_config
from train.parts import Group, build_model, build_optimizer, build_state, build_stream, start_processes

ALONE = Group(None, torch.device("cpu"), 0, 1, "fp32", False)  # type: ignore[arg-type]


def plan_of(folder: Path, shards: Path, *overrides: str, **changes: Any) -> RunPlan:
    """Return the plan of the run that `config_of` writes."""
    return configure(read(config_of(folder, shards, **changes), overrides, RunConfig))


def model_of(plan: RunPlan, found: Path | None = None) -> HypCLIP:
    return build_model(plan, ALONE, found, lambda _: None)


def state_of(plan: RunPlan, found: Path | None, group: Group = ALONE) -> TrainState:
    """Return the state that a run begins with, or goes on from where it found a checkpoint."""
    model, decay = model_of(plan, found), plan.config.train.ema_decay
    return build_state(
        plan,
        group,
        found,
        model,
        build_optimizer(model, plan.config, sharded=False),
        AveragedWeights(model, decay) if decay else None,
        precision.loss_scaler(group.precision, group.device),
    )


# Going on -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batch_size=2", "train.batch_size was 4 and is 2"),
        ("train.accumulate=2", "train.accumulate was 1 and is 2"),
        ("data.shuffle_buffer=7", "data.shuffle_buffer was 5 and is 7"),
        ("data.workers=1", "data.workers was 0 and is 1"),
        ("data.augment.flip=0.1", "data.augment.flip was 0.5 and is 0.1"),
        ("model.curv_init=2.0", "model.curv_init was 1.0 and is 2.0"),
        ("model.towers.vision_cfg.patch_dropout=0.1", "patch_dropout was 0.5 and is 0.1"),
        ("model.towers.embed_dim=8", "holds other towers"),
        ("tune.image_layer_decay=0.5", "tune.image_layer_decay was None and is 0.5"),
        ("objective=meru", "is of a run with other settings: objective"),
        ("train.ema_decay=0.9", "no averaged weights: resume without train.ema_decay"),
        ("tune.lock_text=true", "of another model|other settings: .*tune.lock_text"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_by_name(tmp_path, shards, plain, override, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        state_of(plan_of(tmp_path, shards, override), step_of(plain, 4))
    assert str(step_of(plain, 4)) in str(caught.value)


def test_a_checkpoint_of_another_precision_or_number_of_processes_is_refused(tmp_path, shards, plain):
    plan, found = plan_of(tmp_path, shards), step_of(plain, 4)
    assert state_of(plan, found).step == 4
    with pytest.raises(ConfigError, match=r"the run began in fp32 .* go on in bf16: set train\.precision=fp32"):
        state_of(plan, found, replace(ALONE, precision="bf16"))
    with pytest.raises(CheckpointError, match="written by 1 processes and this run has 2"):
        state_of(plan, found, replace(ALONE, size=2))


# Models ---------------------------------------------------------------------------------------------------------------


def test_a_model_starts_from_the_towers_of_a_flat_model(tmp_path, shards):
    torch.manual_seed(7)
    source = open_clip.CustomTextCLIP(**TOWERS).state_dict()
    torch.save(source, tmp_path / "flat.pt")
    weights = model_of(plan_of(tmp_path, shards, warm_start={"source": f"{tmp_path}/flat.pt"})).state_dict()
    assert torch.equal(weights["image_tower.proj"], source["visual.proj"])
    name = "transformer.resblocks.1.mlp.c_fc.weight"
    assert torch.equal(weights[f"text_tower.{name}"], source[f"text.{name}"])


def test_a_box_size_leaves_the_start_as_it_was(tmp_path, shards):
    """Trying the tower draws no random numbers and changes no weights."""
    found = []
    for size in (None, 16):
        model = model_of(
            plan_of(tmp_path, shards, data__box_size=size, model={"towers": timm_towers(dynamic_img_size=True)})
        )
        found.append((model.state_dict(), torch.get_rng_state()))
    (plain, drawn), (tried, drawn_too) = found
    assert all(torch.equal(tried[name], tensor) for name, tensor in plain.items())
    assert torch.equal(drawn_too, drawn)


# Data -----------------------------------------------------------------------------------------------------------------


def test_a_box_size_that_is_the_towers_own_changes_nothing(tmp_path, shards):
    found = []
    for size in (None, 32):
        plan = plan_of(tmp_path, shards, data__box_size=size)
        model = model_of(plan)
        found.append(next(iter(build_stream(plan, ALONE, model, TrainState(precision="fp32", settings={})))).images)
    plain, sized = found
    assert plain.keys() == sized.keys()
    assert all(torch.equal(sized[role], pixels) for role, pixels in plain.items())


def test_a_recipe_may_be_a_file_or_stand_in_the_config(tmp_path, shards):
    """The same recipe, written three ways, is the same objective."""
    mine = {"base": "hycoclip", "skip_duplicates": True, "min_radius": 0.2}
    path = write_config(tmp_path / "recipes" / "mine.yaml", mine)
    whole = json.loads(json.dumps(asdict(recipe_from(mine))))
    one, two, three, other = (
        plan_of(tmp_path, shards, objective=objective).objective.recipe
        for objective in (mine, str(path), whole, "hycoclip")
    )
    assert one == two == three != other


# Processes ------------------------------------------------------------------------------------------------------------


def test_deterministic_operations_are_asked_for(tmp_path, shards, monkeypatch):
    """Of cuBLAS too, in whose other mode torch refuses matrix products."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    before = torch.are_deterministic_algorithms_enabled()
    try:
        start_processes(plan_of(tmp_path, shards, train__deterministic=True).config)
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(before)
        AcceleratorState._reset_state(reset_partial_state=True)
