"""Runs of train/pretrain.py in processes of their own, one and two: how they stop, and that two train as one does."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.support.pretraining import CLOCK, assert_same_run, rewind, steps_in
from tests.support.training import (
    command,
    logged_steps,
    read_log,
    run_config,
    started,
    state_bits,
    wait_for,
    without,
    write_config,
)

pytestmark = pytest.mark.slow

ENDLESS = ("train.steps=100000", "train.checkpoint_every=100000")


@pytest.fixture
def config(tmp_path, shards) -> Path:
    """The config of a run into tmp_path/run."""
    return write_config(tmp_path / "config.yaml", run_config(tmp_path / "run", shards))


# Stopping -------------------------------------------------------------------------------------------------------------


def logged(output_dir: Path) -> bool:
    """Whether a run has made its first steps."""
    return logged_steps(output_dir) >= 2


def assert_stopped_in_order(output_dir: Path, said: str) -> None:
    assert "stopped by SIGTERM at step" in said
    (step,) = steps_in(output_dir)
    assert 2 <= step < 100_000
    assert read_log(output_dir)[-1]["step"] == step
    files = {"config.yaml", "manifest.json", "model.safetensors", "state.json", "state.safetensors"}
    assert state_bits(output_dir / "checkpoints" / f"step-{step:08d}").keys() == files
    assert not list((output_dir / "checkpoints").glob(".*"))


@pytest.mark.timeout(600)
def test_sigterm_to_the_whole_process_group_saves_and_exits_with_0(config, tmp_path):
    """As `timeout`, `kill %1` and Slurm send it: the data workers get it too, and must not take the run with them."""
    with started([sys.executable, "train/pretrain.py", "--config", str(config), *ENDLESS]) as process:
        wait_for(lambda: logged(tmp_path / "run") or process.poll() is not None, "the first steps")
        os.killpg(process.pid, signal.SIGTERM)
        said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert_stopped_in_order(tmp_path / "run", said)


LAUNCHERS = {"accelerate": ("accelerate", "launch", "--cpu"), "torchrun": ("torchrun", "--standalone")}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "end"), [("accelerate", signal.SIGTERM), ("torchrun", signal.SIGKILL)])
def test_the_death_of_the_launcher_stops_the_run_in_order(config, tmp_path, name, end):
    with started(command(*LAUNCHERS[name], "train/pretrain.py", "--config", config, *ENDLESS)) as launcher:
        wait_for(lambda: logged(tmp_path / "run") or launcher.poll() is not None, "the first steps")
        family = psutil.Process(launcher.pid).children(recursive=True)
        launcher.send_signal(end)
        said, _ = launcher.communicate(timeout=120)
        _, alive = psutil.wait_procs(family, timeout=120)
    assert len(family) >= 3  # the run and its two data workers
    assert alive == []
    assert_stopped_in_order(tmp_path / "run", said)


def test_a_mistake_is_exit_code_1(config):
    with started([sys.executable, "train/pretrain.py", "--config", str(config), "train.step=3"]) as process:
        said, errors = process.communicate(timeout=240)
    assert process.returncode == 1
    assert said == ""
    assert errors == "error: unknown key 'train.step', did you mean 'steps'?\n"


# Two processes --------------------------------------------------------------------------------------------------------


def launch_two(config: Path, *arguments: object) -> str:
    """Run four steps in two processes; return what they said."""
    flags = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"]
    quiet = ["--mixed_precision", "no", "--dynamo_backend", "no"]
    script = ["train/pretrain.py", "--config", config, "data.workers=1", "train.steps=4", *arguments]
    with started(command("accelerate", "launch", *flags, *quiet, *script)) as launcher:
        said, errors = launcher.communicate(timeout=420)
    assert launcher.returncode == 0, errors
    return said


@pytest.mark.timeout(900)
def test_two_processes_train_one_model_and_resume_bit_for_bit(config, tmp_path):
    assert launch_two(config).count("; the model is in") == 1
    assert [line["step"] for line in read_log(tmp_path / "run")] == [1, 2, 3, 4]
    state = json.loads((tmp_path / "run" / "checkpoints" / "step-00000004" / "state.json").read_text())
    assert [stream["seen"]["read"] for stream in state["streams"]] == [8, 8]  # four batches of two each
    assert len(list((tmp_path / "run" / "tensorboard").rglob("events.*"))) == 1

    shutil.copytree(tmp_path / "run", tmp_path / "again")
    rewind(tmp_path / "again", 2)
    assert launch_two(config, f"output_dir={tmp_path}/again", "--resume").count("resuming from") == 1
    assert_same_run(tmp_path / "again", tmp_path / "run")

    torchrun = command("torchrun", "--standalone", "--nproc_per_node", "2", "train/pretrain.py", "--config", config)
    with started([*torchrun, "data.workers=1", f"output_dir={tmp_path}/again"]) as launcher:
        _, errors = launcher.communicate(timeout=420)
    assert launcher.returncode == 1
    assert f"error: {tmp_path}/again holds a run already" in errors
    assert f"error: another process of this run has failed: process 0: {tmp_path}/again holds a run already" in errors
    assert_same_run(tmp_path / "again", tmp_path / "run")


@pytest.mark.timeout(600)
def test_two_processes_train_pictures_alone(config, tmp_path):
    """The text tower has no part in it, of which its token table must not keep the others waiting."""
    launch_two(config, "objective={geometry: lorentz, contrast: [{query: image, key: box_image}]}")
    log = read_log(tmp_path / "run")
    assert [line["step"] for line in log] == [1, 2, 3, 4]
    assert all(line["grad_norm"] > 0 for line in log)


@pytest.mark.timeout(900)
def test_weights_in_parts_train_as_whole_ones_do_and_resume_bit_for_bit(config, tmp_path, shards):
    """FSDP with averaged weights, a batch in two parts, and scores on held-out data."""
    held_out = f"evaluate.retrieval.scenes={{shards: {shards}, samples: 8}}"
    changes = ("train.accumulate=2", "train.ema_decay=0.9", "evaluate.every=2", held_out)
    launch_two(config, f"output_dir={tmp_path}/whole", *changes)
    launch_two(config, *changes, "train.parallel=fsdp")
    for ours, theirs in zip(read_log(tmp_path / "run"), read_log(tmp_path / "whole"), strict=True):
        figures, expected = (without(line, *CLOCK, "skipped", "damaged_shards", "warnings") for line in (ours, theirs))
        assert figures == pytest.approx(expected, rel=1e-4, abs=1e-4)
        assert ours["model_flop_per_s"] > 0
    assert "scenes/image_to_text_r1" in read_log(tmp_path / "run")[1]
    ours, theirs = (load_file(tmp_path / name / "checkpoint" / "model.safetensors") for name in ("run", "whole"))
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-3, atol=1e-4, msg=name)

    shutil.copytree(tmp_path / "run", tmp_path / "again")
    rewind(tmp_path / "again", 2)
    again = (f"output_dir={tmp_path}/again", *changes, "train.parallel=fsdp", "--resume")
    assert launch_two(config, *again).count("resuming from") == 1
    assert_same_run(tmp_path / "again", tmp_path / "run")
