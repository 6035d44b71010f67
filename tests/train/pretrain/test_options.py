"""Whole runs with each option of train and tune: they do what they say, and resume bit for bit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import hypclip
from hypclip.config import build
from hypclip.data.batch import Batch
from hypclip.evaluation.suite import RetrievalTask, prepare
from hypclip.objective import Loss, Objective
from hypclip.training.settings import EvaluateConfig
from tests.support.models import TOWERS, timm_towers
from tests.support.pretraining import (
    after,
    assert_refused,
    assert_resumes,
    config_of,
    losses,
    rewind,
    run,
    step_of,
)
from tests.support.training import read_log, started
from train import pretrain

# Averaged weights -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_finished_model_has_the_averages_and_resumes(tmp_path, shards):
    output_dir = assert_resumes(config_of(tmp_path, shards, train__ema_decay=0.15, train__checkpoint_every=1), tmp_path)
    weights = [load_file(step_of(output_dir, step) / "model.safetensors") for step in range(1, 5)]
    means = [averages(output_dir, step) for step in range(1, 5)]
    for done in (1, 2, 3):
        kept = min(0.15, (1 + done) / (10 + done))
        for name, tensor in weights[done].items():
            expected = kept * means[done - 1][name] + (1 - kept) * tensor
            torch.testing.assert_close(means[done][name], expected, rtol=1e-5, atol=1e-7)
    finished = load_file(output_dir / "checkpoint" / "model.safetensors")
    assert all(torch.equal(finished[name], tensor) for name, tensor in means[-1].items())
    assert not torch.equal(finished["log_curv"], weights[-1]["log_curv"])
    assert hypclip.checkpoint.read_config(output_dir / "checkpoint")["ema_decay"] == 0.15


def averages(output_dir: Path, step: int) -> dict[str, torch.Tensor]:
    tensors = load_file(step_of(output_dir, step) / "state.safetensors")
    return {name.removeprefix("averaged."): x for name, x in tensors.items() if name.startswith("averaged.")}


def test_averaging_does_not_change_the_training_and_is_what_is_evaluated(tmp_path, shards, plain):
    task = {"shards": f"{shards}/001.tar", "samples": 8}
    evaluate = {"retrieval": {"scenes": task}, "every": 2}
    assert run(config_of(tmp_path, shards, train__ema_decay=0.9, evaluate=evaluate)) == 0
    assert losses(tmp_path / "run") == losses(plain)
    trained, averaged = (
        load_file(folder / "model.safetensors") for folder in (step_of(plain, 4), tmp_path / "run" / "checkpoint")
    )
    assert not torch.equal(trained["image_tower.proj"], averaged["image_tower.proj"])
    found = prepare(build(EvaluateConfig, {"retrieval": {"scenes": RetrievalTask(**task)}}))["scenes"]
    scores = found(hypclip.load(tmp_path / "run" / "checkpoint"))
    last = read_log(tmp_path / "run")[-1]
    assert {name: last[f"scenes/{name}"] for name in scores} == {name: float(x) for name, x in scores.items()}


# Spikes ---------------------------------------------------------------------------------------------------------------

SPIKE = {"deviations": 6.0, "window": 10, "stop_after": 2}


def make_huge(monkeypatch: pytest.MonkeyPatch, output_dir: Path, *steps: int) -> None:
    """Multiply the losses of some steps, of which a run has logged those before."""
    evaluate = Objective.__call__

    def with_spike(self: Objective, *args: Any, **kwargs: Any) -> Loss:
        loss = evaluate(self, *args, **kwargs)
        return Loss(loss.loss * 1e6, loss.parts) if len(read_log(output_dir)) + 1 in steps else loss

    monkeypatch.setattr(Objective, "__call__", with_spike)


def test_a_spike_is_passed_over_logged_and_resumed_from(tmp_path, shards, monkeypatch, capfd):
    config = config_of(tmp_path, shards, train__steps=14, train__spike=SPIKE, train__checkpoint_every=1)
    make_huge(monkeypatch, tmp_path / "run", 12)
    output_dir = assert_resumes(config, tmp_path, step=12)
    captured = capfd.readouterr()
    assert "warning: step 12: a spike of the loss, " in captured.err
    lines = read_log(output_dir)
    assert [line["step"] for line in lines if line["loss"] > 1e5] == [12]
    assert [line["step"] for line in lines if line["grad_norm"] is None] == [12]
    before, spike, later = (step_of(output_dir, step) for step in (11, 12, 13))
    assert (before / "model.safetensors").read_bytes() == (spike / "model.safetensors").read_bytes()
    assert (spike / "model.safetensors").read_bytes() != (later / "model.safetensors").read_bytes()
    ours, theirs = load_file(before / "state.safetensors"), load_file(spike / "state.safetensors")
    assert all(torch.equal(ours[name], x) for name, x in theirs.items() if name.startswith("optimizer."))
    counted = [json.loads((folder / "state.json").read_text()) for folder in (before, spike, later)]
    assert [state["skipped_updates"] for state in counted] == [0, 1, 0]
    assert counted[0]["losses"] == counted[1]["losses"]
    assert counted[1]["streams"][0]["seen"]["read"] == counted[0]["streams"][0]["seen"]["read"] + 4


# How it is computed ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_gradient_checkpointing_computes_the_same(tmp_path, shards, plain):
    output_dir = assert_resumes(config_of(tmp_path, shards, train__gradient_checkpointing=True), tmp_path)
    assert losses(output_dir) == pytest.approx(losses(plain), abs=1e-5)


@pytest.mark.slow
def test_compiled_towers_compute_the_same(tmp_path, shards):
    """Without dropped patches, which a compiled tower draws otherwise."""
    found = []
    for name, compiled in (("plain", False), ("compiled", True)):
        config = config_of(tmp_path / name, shards, train__compile=compiled, model={"towers": TOWERS})
        with started([sys.executable, "train/pretrain.py", "--config", str(config)]) as process:
            _, errors = process.communicate(timeout=800)
        assert process.returncode == 0, errors
        found.append(losses(tmp_path / name / "run"))
    assert found[1] == pytest.approx(found[0], abs=1e-5)


@pytest.mark.slow
def test_fp16_scales_gradients_and_keeps_weights_of_full_precision(tmp_path, shards, plain):
    output_dir = assert_resumes(config_of(tmp_path, shards, train__precision="fp16"), tmp_path)
    assert losses(output_dir)[0] == pytest.approx(losses(plain)[0], rel=0.01)
    assert losses(output_dir)[0] != losses(plain)[0]
    assert losses(output_dir)[-1] < losses(output_dir)[0]
    weights = load_file(output_dir / "checkpoint" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert json.loads((step_of(output_dir, 4) / "state.json").read_text())["scaler"]["scale"] >= 1.0


def test_gradients_that_overflow_in_fp16_are_passed_over(tmp_path, shards, monkeypatch):
    """The scale begins so high that the first do, and falls until they do not."""
    scaler = pretrain.precision.loss_scaler

    def high(*args: Any) -> torch.amp.GradScaler:
        made = scaler(*args)
        made.load_state_dict({**made.state_dict(), "scale": 1e38})
        return made

    monkeypatch.setattr(pretrain.precision, "loss_scaler", high)
    assert run(config_of(tmp_path, shards, train__precision="fp16", train__checkpoint_every=1)) == 0
    first, second = (step_of(tmp_path / "run", step) for step in (1, 2))
    assert read_log(tmp_path / "run")[0]["grad_norm"] is None
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert json.loads((second / "state.json").read_text())["scaler"]["scale"] == pytest.approx(1e38 / 4)


# Pictures of boxes ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pictures_of_boxes_can_be_smaller(tmp_path, shards, monkeypatch):
    seen: list[dict[str, int]] = []

    def note(wrapped: object, model: object, objective: object, batch: Batch, *_: object, **__: object) -> None:
        seen.append({role: pixels.shape[-1] for role, pixels in batch.images.items()})

    monkeypatch.setattr(pretrain, "forward_backward", after(pretrain.forward_backward, note))
    towers = timm_towers(dynamic_img_size=True)
    output_dir = assert_resumes(config_of(tmp_path, shards, data__box_size=16, model={"towers": towers}), tmp_path)
    assert seen == [{"image": 32, "box_image": 16}] * 6
    assert all(line["model_flop_per_s"] > 0 for line in read_log(output_dir))


@pytest.mark.parametrize("towers", [TOWERS, timm_towers()], ids=["open_clip", "timm"])
def test_a_tower_of_one_size_refuses_others_by_name(tmp_path, shards, capsys, towers):
    config = config_of(tmp_path, shards, data__box_size=48, model={"towers": towers})
    assert_refused(config, capsys, r"data\.box_size is 48 and the image tower takes images of 32 pixels only .*leave")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_tower_that_does_not_take_its_own_size_is_refused_by_name(tmp_path, shards, capsys):
    config = config_of(tmp_path, shards, model={"towers": timm_towers(img_size=48)})
    assert_refused(config, capsys, r"tower does not take images of 32 pixels, its vision_cfg\.image_size .*img_size")


@pytest.mark.slow
def test_a_run_may_save_memory_from_some_step_on(tmp_path, shards, plain):
    config = config_of(tmp_path, shards)
    assert run(config) == 0
    rewind(tmp_path / "run", 2)
    assert run(config, "--resume", "train.gradient_checkpointing=true", "train.deterministic=true") == 0
    assert losses(tmp_path / "run") == pytest.approx(losses(plain), abs=1e-5)
