"""The main path, on a tiny model: what a run leaves, that it resumes bit for bit, and how it stops."""

import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

import hypclip
from hypclip.objective import Loss, Objective
from hypclip.training.monitoring.log import MetricsLog
from hypclip.training.optim import learning_rate_at
from tests.support.pretraining import CLOCK, after, assert_refused, assert_same_run, rewind, run, steps_in
from tests.support.training import ROLES, read_log, run_config, write_config, write_shards
from train import parts, pretrain

PARTS = {
    "contrast/image-text",
    "contrast/text-image",
    "contrast/box_image-text",
    "contrast/box_text-image",
    "entail/text-image",
    "entail/box_text-box_image",
    "entail/box_image-image",
    "entail/box_text-text",
}
EDGES = ("text-image", "box_text-box_image", "box_image-image", "box_text-text")
FIGURES = ("violation", "margin", "clamped", "cosine", "gap")
SEEN = {f"{figure}/{edge}" for figure in FIGURES for edge in EDGES} | {
    f"radius/{role}/q{percent}" for role in ROLES for percent in ("05", "50", "95")
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, shards) -> Path:
    """The folder of a run of six steps that nothing disturbed, that started with --resume, and with all checkpoints."""
    folder = tmp_path_factory.mktemp("whole")
    config = write_config(folder / "config.yaml", run_config(folder / "run", shards, train__keep_checkpoints=3))
    assert run(config, "--resume") == 0
    return folder / "run"


@pytest.fixture
def config(tmp_path, shards) -> Path:
    """The config of the same run into a folder of its own, tmp_path/run."""
    return write_config(tmp_path / "config.yaml", run_config(tmp_path / "run", shards))


# What a run leaves ----------------------------------------------------------------------------------------------------


def test_every_logged_step_has_every_figure(whole):
    lines = read_log(whole)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    fields = {
        "step",
        "loss",
        "lr",
        "curv",
        "logit_scale",
        "logit_scale_per_rho",
        "grad_norm",
        "skipped",
        "damaged_shards",
        "warnings",
        *CLOCK,
        *PARTS,
        *SEEN,
    }
    for line in lines:
        assert line.keys() == fields
        assert line["warnings"] == []
        assert line["samples_per_s"] > 0
        assert line["data_wait_s"] >= 0
        assert line["grad_norm"] > 0
        assert line["skipped"] == line["damaged_shards"] == {}
        weights = {name: 0.25 if name.startswith("contrast") else 0.1 for name in PARTS}
        assert line["loss"] == pytest.approx(sum(weights[name] * line[name] for name in PARTS), rel=1e-5)
        for role in ROLES:
            assert 0 < line[f"radius/{role}/q05"] <= line[f"radius/{role}/q50"] <= line[f"radius/{role}/q95"]
        for edge in EDGES:
            assert 0 <= line[f"clamped/{edge}"] <= 1
            assert 0 <= line[f"violation/{edge}"] <= 1 + 1e-6
            assert (line[f"violation/{edge}"] > 0.5) == (line[f"margin/{edge}"] < 0)
            assert -1 <= line[f"cosine/{edge}"] <= 1
            general, specific = (line[f"radius/{role}/q50"] for role in edge.split("-"))
            assert line[f"gap/{edge}"] == pytest.approx((specific - general) * line["curv"] ** 0.5, abs=0.3)
        assert line["logit_scale_per_rho"] == pytest.approx(line["logit_scale"] / line["curv"] ** 0.5)
        assert line["lr"] == learning_rate_at(line["step"] - 1, peak=1e-3, warmup_steps=2, steps=6)
    assert [line["curv"] for line in lines] != [1.0] * 6
    assert lines[-1]["logit_scale"] == pytest.approx(1 / 0.07, rel=0.01)


def test_tensorboard_has_the_same_figures(whole):
    (events,) = (whole / "tensorboard").rglob("events.out.tfevents.*")
    logged: dict[str, list[tuple[int, float]]] = {}
    for event in EventFileLoader(str(events)).Load():
        for value in event.summary.value:
            logged.setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
    for name in ("loss", "lr", "curv", "logit_scale", "grad_norm", *CLOCK, *PARTS, *SEEN):
        assert logged[name] == [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in read_log(whole)]


def test_the_model_of_the_last_step_can_be_loaded(whole):
    model = hypclip.load(whole / "checkpoint")
    assert model.model_id.startswith("tiny-")
    assert model.curv.item() == read_log(whole)[-1]["curv"]
    assert model.embed_text(["a red square"]).shape == (1, 16)
    assert model.embed_image([Image.new("RGB", (40, 40))]).isfinite().all()
    assert steps_in(whole) == [2, 4, 6]
    last = load_file(whole / "checkpoints" / "step-00000006" / "model.safetensors")
    assert all(torch.equal(last[name], tensor) for name, tensor in model.state_dict().items())
    notes = hypclip.checkpoint.read_config(whole / "checkpoint")
    assert (notes["name"], notes["step"], notes["objective"]["geometry"]) == ("tiny", 6, "lorentz")
    assert not list(whole.rglob(".*"))


def test_training_changes_every_parameter(whole):
    torch.manual_seed(0)
    config = hypclip.load(whole / "checkpoint").config
    torch.manual_seed(0)
    fresh = hypclip.HypCLIP(config).state_dict()
    trained = load_file(whole / "checkpoint" / "model.safetensors")
    assert [name for name in fresh if torch.equal(fresh[name], trained[name])] == []


def test_the_data_and_the_seed_decide_the_run(whole, config, tmp_path):
    assert run(config) == 0
    assert_same_run(tmp_path / "run", whole)
    assert run(config, "train.seed=1", "train.steps=1", f"output_dir={tmp_path}/other") == 0
    first, other = read_log(whole)[0], read_log(tmp_path / "other")[0]
    assert first["loss"] != other["loss"]


# Warnings -------------------------------------------------------------------------------------------------------------


def warnings_in(captured: str) -> list[str]:
    return re.findall("warning: [^\r\n]*", captured)


def test_a_curvature_at_its_bound_is_warned_of_once(config, tmp_path, capfd):
    """So slow a run does not leave it."""
    slow = ["model.curv_init=0.1", "train.learning_rate=1e-6", "train.steps=2", "data.workers=0"]
    assert run(config, *slow) == 0
    (warning,) = warnings_in(capfd.readouterr().err)
    assert warning.startswith("warning: step 1: the curvature is at its lowest value 0.1 ")
    assert [line["warnings"] for line in read_log(tmp_path / "run")] == [["curv lowest"]] * 2


# Held-out data --------------------------------------------------------------------------------------------------------


def test_retrieval_and_hierarchy_on_held_out_data_are_logged(config, tmp_path, shards):
    (tmp_path / "is_a.json").write_text('[["a red square", "a shape"], ["a blue square", "a shape"]]')
    scenes = "evaluate.retrieval.scenes"
    evaluate = [f"{scenes}.shards={shards}/001.tar", f"{scenes}.samples=8", "evaluate.every=2"]
    evaluate += [f"evaluate.hierarchy.shapes.taxonomy={tmp_path}/is_a.json"]
    assert run(config, *evaluate, "train.steps=3", "train.log_every=100") == 0
    lines = read_log(tmp_path / "run")
    assert [line["step"] for line in lines] == [2, 3]
    names = {f"scenes/{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}
    for line in lines:
        assert names < line.keys()
        assert (
            line["scenes/image_to_text_r1"]
            <= line["scenes/image_to_text_r5"]
            <= line["scenes/image_to_text_r10"]
            == 1.0
        )
        assert line["shapes/phrases"] == 3
        assert line["shapes/all/pairs"] == 2
        assert line["shapes/radius/0"] > 0
        assert 0 <= line["shapes/0-1/recall"] <= 1


# Resuming -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [2, 4])
def test_a_run_killed_after_a_checkpoint_goes_on_bit_for_bit(step, config, tmp_path, whole, capfd):
    shutil.copytree(whole, tmp_path / "run")
    rewind(tmp_path / "run", step)
    assert [line["step"] for line in read_log(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]
    assert run(config, "--resume") == 0
    assert_same_run(tmp_path / "run", whole)
    assert f"resuming from {tmp_path}/run/checkpoints/step-{step:08d}" in capfd.readouterr().out


@pytest.mark.parametrize(("step", "number"), [(0, signal.SIGTERM), (3, signal.SIGUSR1)])
def test_a_run_stopped_by_a_signal_goes_on_bit_for_bit(step, number, config, tmp_path, whole, monkeypatch, capfd):
    """Before the first step, and between two checkpoints; Slurm sends SIGUSR1 ahead of a time limit."""

    def at_step(_: MetricsLog, values: dict[str, Any]) -> None:
        if values["step"] == step:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        if step == 0:
            patch.setattr(parts, "MetricsLog", after(MetricsLog, lambda *_: os.kill(os.getpid(), number)))
        else:
            patch.setattr(MetricsLog, "write", after(MetricsLog.write, at_step))
        assert run(config) == 0
    assert f"stopped by {number.name} at step {step}: saved, go on with --resume" in capfd.readouterr().out
    assert steps_in(tmp_path / "run")[-1] == step
    assert not (tmp_path / "run" / "checkpoint").exists()
    assert run(config, "--resume") == 0
    assert_same_run(tmp_path / "run", whole)


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.step=3", "unknown key 'train.step', did you mean 'steps'"),
        ("train.steps=many", "train.steps: .*got 'many'"),
        ("train.steps", "cannot read 'train.steps': overrides are written key=value"),
        ("data.shards={dir}/007.tar", "data.shards: there is no shard .*/007.tar"),
        ("data.shards={dir}/nowhere", "data.shards: there is no shard .*/nowhere"),
        ("evaluate.retrieval.scenes.shards={dir}/nowhere", "there is no shard .*/nowhere"),
        ("data.workers=3", "2 shards, but 1 processes .* 3 workers need at least 3"),
        (
            "model.geometry=sphere",
            "model.geometry is 'sphere' and the objective's geometry is 'lorentz': leave model.geometry out",
        ),
        ("objective=hyclip", "no recipe named 'hyclip'; known: clip, euclip, meru, hycoclip"),
        ("objective={dir}/mine.yaml", "there is no config file .*/mine.yaml"),
        ("objective.base=hyclip", "no recipe named 'hyclip'"),
        ("train.accumulate=0", "train.accumulate: .*greater than 0, got 0"),
        ("model.towers=ViT-Z", "open_clip has no model config named 'ViT-Z'"),
    ],
)
def test_mistakes_end_in_one_line(config, capsys, shards, tmp_path, override, message):
    assert_refused(config, capsys, message, override.replace("{dir}", str(shards)))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_config_file_that_is_not_there_ends_in_one_line(tmp_path, capsys):
    assert_refused(tmp_path / "none.yaml", capsys, "there is no config file .*/none.yaml")


def test_a_batch_that_does_not_divide_among_processes_is_refused(config, capsys, monkeypatch):
    monkeypatch.setattr(Accelerator, "num_processes", 3)
    assert_refused(config, capsys, "train.batch_size 4 does not divide among 3 processes")


def test_a_config_must_be_named(capsys):
    with pytest.raises(SystemExit) as caught:
        pretrain.main([])
    assert caught.value.code == 2
    assert "--config" in capsys.readouterr().err


def error_lines(captured: str) -> list[str]:
    return [line for line in captured.replace("\r", "\n").split("\n") if line.startswith("error: ")]


def test_what_the_data_workers_find_ends_in_one_line_too(config, capfd, tmp_path):
    """Not behind the progress bar, and without the workers' traceback."""
    cut_off = write_shards(tmp_path / "cut_off", picture_bytes=60)
    assert run(config, f"data.shards={cut_off}") == 1
    captured = capfd.readouterr()
    (line,) = error_lines(captured.err)
    assert "10 of 10 samples are bad (unreadable image 10), more than data.max_bad_fraction = 0.01" in line
    assert "Traceback" not in captured.err


# Numbers that are none ------------------------------------------------------------------------------------------------


def test_a_non_finite_loss_stops_before_the_update(config, tmp_path, monkeypatch, capfd):
    """The first update, of an absurd size, ruins the model; the second must not be made."""
    models: list[hypclip.HypCLIP] = []
    monkeypatch.setattr(parts, "adamw", after(parts.adamw, lambda model, **_: models.append(model)))
    assert run(config, "train.learning_rate=1e30", "train.checkpoint_every=1") == 1
    captured = capfd.readouterr()
    (line,) = error_lines(captured.err)
    assert "non-finite loss at step 2, before the update: loss nan" in line
    for name in (*PARTS, "curv ", "logit_scale ", "largest norms: ", "image ", "box_text ", "train.learning_rate"):
        assert name in line
    assert "Traceback" not in captured.err
    assert steps_in(tmp_path / "run") == [1]
    assert [entry["step"] for entry in read_log(tmp_path / "run")] == [1]
    saved = load_file(tmp_path / "run" / "checkpoints" / "step-00000001" / "model.safetensors")
    assert all(torch.equal(tensor, saved[name]) for name, tensor in models[0].state_dict().items())


def test_a_non_finite_gradient_stops_before_the_update(config, tmp_path, monkeypatch, capfd):
    """The loss is finite, its gradient is not: as of a root at 0."""
    models: list[hypclip.HypCLIP] = []
    evaluate = Objective.__call__

    def with_root(self: Objective, features: dict[str, torch.Tensor], **others: Any) -> Loss:
        loss = evaluate(self, features, **others)
        root = (0 * features["image"].sum()).sqrt() if len(read_log(tmp_path / "run")) == 2 else 0
        return Loss(loss.loss + root, loss.parts)

    monkeypatch.setattr(parts, "adamw", after(parts.adamw, lambda model, **_: models.append(model)))
    monkeypatch.setattr(Objective, "__call__", with_root)
    assert run(config) == 1
    captured = capfd.readouterr()
    (line,) = error_lines(captured.err)
    assert "non-finite gradient norm (nan) at step 3, before the update: loss " in line
    assert "loss nan" not in line
    assert "Traceback" not in captured.err
    assert steps_in(tmp_path / "run") == [2]
    saved = load_file(tmp_path / "run" / "checkpoints" / "step-00000002" / "model.safetensors")
    assert all(torch.equal(tensor, saved[name]) for name, tensor in models[0].state_dict().items())
