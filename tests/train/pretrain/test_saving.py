"""Whole runs and their checkpoints: which stay, where they are copied, damaged ones, other settings, failing disks."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from hypclip.training.checkpointing.manifest import verify
from hypclip.training.checkpointing.state import Snapshot
from hypclip.training.checkpointing.writer import Saver
from tests.support.pretraining import (
    after,
    assert_refused,
    assert_same_run,
    config_of,
    rewind,
    run,
    step_of,
    steps_in,
)
from tests.support.training import read_log, state_bits
from train import parts, pretrain


@pytest.fixture
def config(tmp_path, shards) -> Path:
    """The config of the same run into tmp_path/run."""
    return config_of(tmp_path, shards)


@pytest.fixture
def killed(tmp_path, plain) -> Path:
    """The folder tmp_path/run of the same run, killed after its last step and before its end."""
    shutil.copytree(plain, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    return tmp_path / "run"


# Which stay -----------------------------------------------------------------------------------------------------------


def test_some_checkpoints_stay_for_good(tmp_path, shards):
    kept = {"train__steps": 7, "train__checkpoint_every": 1, "train__keep_checkpoints": 1, "train__keep_every": 3}
    assert run(config_of(tmp_path, shards, **kept)) == 0
    assert steps_in(tmp_path / "run") == [3, 6, 7]


def test_the_last_step_is_saved_once(config, tmp_path, monkeypatch):
    saved: list[int] = []
    monkeypatch.setattr(Saver, "save", after(Saver.save, lambda _, snapshot: saved.append(snapshot.step)))
    assert run(config) == 0
    assert saved == [2, 4]
    assert run(config, "train.steps=3", "train.log_every=2", f"output_dir={tmp_path}/odd") == 0
    assert saved == [2, 4, 2, 3]
    assert [line["step"] for line in read_log(tmp_path / "odd")] == [2, 3]  # and logged


def test_checkpoints_are_copied_and_a_run_goes_on_from_the_copy(config, tmp_path, plain):
    assert run(config, f"train.upload_to=file://{tmp_path}/copies/x", "train.keep_checkpoints=1") == 0
    assert steps_in(tmp_path / "run") == [4]
    assert set(steps_in(tmp_path / "copies" / "x")) <= {2, 4}  # the first may be deleted before it is copied
    copy = step_of(tmp_path / "copies" / "x", 4)
    verify(copy)
    assert state_bits(copy) == state_bits(step_of(plain, 4))
    shutil.copytree(plain, tmp_path / "elsewhere")
    rewind(tmp_path / "elsewhere", 0)
    shutil.copytree(copy, step_of(tmp_path / "elsewhere", 4))
    assert run(config, f"output_dir={tmp_path}/elsewhere", "--resume") == 0
    assert_same_run(tmp_path / "elsewhere", plain)


def test_copies_that_fail_are_warnings(config, tmp_path, plain, capfd):
    (tmp_path / "copies").write_text("a file where a folder should be")
    assert run(config, f"train.upload_to=file://{tmp_path}/copies") == 0
    errors = capfd.readouterr().err
    assert "warning: the checkpoint step-00000004 could not be copied to " in errors
    assert_same_run(tmp_path / "run", plain)


@pytest.mark.parametrize("resume", [["--overwrite"], ["--resume"]])
def test_a_place_that_cannot_be_used_is_refused_before_the_log_is_touched(config, capsys, killed, resume):
    before = (killed / "metrics.jsonl").read_bytes()
    rewind(killed, 2)
    assert_refused(
        config, capsys, "train.upload_to 'nope://x' cannot be used: .*nope", "train.upload_to=nope://x", *resume
    )
    assert (killed / "metrics.jsonl").read_bytes() == before


# Damage ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
def test_a_damaged_newest_checkpoint_is_passed_over(config, killed, plain, name, capfd):
    file = step_of(killed, 4) / name
    file.write_bytes(file.read_bytes()[:-10])
    assert run(config, "--resume") == 0
    captured = capfd.readouterr()
    assert f"warning: passed over a damaged checkpoint: {file} " in captured.err
    assert f"resuming from {step_of(killed, 2)}\n" in captured.out
    assert_same_run(killed, plain)


class FullDisk(Snapshot):
    """A checkpoint for which the disk has half the room."""

    def write(self, folder: Path) -> None:
        super().write(folder)
        file = folder / "state.safetensors"
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))


@pytest.mark.parametrize("step", [2, 4])
def test_a_full_disk_ends_the_run_in_one_line_and_it_goes_on(config, tmp_path, plain, step, monkeypatch, capfd):
    snapshot = pretrain.snapshot

    def too_big(*args: Any, **kwargs: Any) -> Snapshot:
        taken: Snapshot = snapshot(*args, **kwargs)
        return FullDisk(**vars(taken)) if taken.step == step else taken

    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "snapshot", too_big)
        assert run(config) == 1
    captured = capfd.readouterr()
    (line,) = [x for x in captured.err.replace("\r", "\n").splitlines() if x.startswith("error: ")]
    assert f"the checkpoint of step {step} could not be written to {step_of(tmp_path / 'run', step)}: " in line
    assert "No space left on device" in line
    assert "Traceback" not in captured.err
    assert not list((tmp_path / "run").rglob(".*"))
    assert steps_in(tmp_path / "run") == ([2] if step == 4 else [])
    assert run(config, "--resume") == 0
    assert_same_run(tmp_path / "run", plain)


# Other settings -------------------------------------------------------------------------------------------------------


def test_other_settings_are_refused_by_name(config, killed, plain, capsys):
    """See tests/train/test_parts.py for the others."""
    assert_refused(config, capsys, f"{step_of(killed, 4)} .*train.seed was 0 and is 1", "--resume", "train.seed=1")
    assert state_bits(step_of(killed, 4)) == state_bits(step_of(plain, 4))
    assert read_log(killed) == read_log(plain)


def test_other_shards_are_refused_and_the_same_in_another_place_are_not(config, killed, shards, tmp_path, capsys):
    assert_refused(config, capsys, "data.shards was .* and is ", "--resume", f"data.shards={shards}/001.tar")
    shutil.copytree(shards, tmp_path / "moved")
    assert run(config, "--resume", f"data.shards={tmp_path}/moved") == 0


def test_averages_cannot_be_left_out_or_changed(tmp_path, shards, capsys):
    config = config_of(tmp_path, shards, train__ema_decay=0.9)
    assert run(config) == 0
    capsys.readouterr()
    assert_refused(config, capsys, "train.ema_decay was 0.9 and is None", "--resume", "train.ema_decay=null")
    assert_refused(config, capsys, "train.ema_decay was 0.9 and is 0.5", "--resume", "train.ema_decay=0.5")


def test_what_is_not_the_nature_of_a_run_may_change(config, killed):
    rewind(killed, 2)
    others = ["train.steps=5", "train.learning_rate=1e-4", "train.log_every=2", "train.keep_checkpoints=1"]
    assert run(config, "--resume", *others) == 0
    assert [line["step"] for line in read_log(killed)] == [1, 2, 4, 5]
    assert steps_in(killed) == [5]


# Trackers -------------------------------------------------------------------------------------------------------------


def test_a_tracker_that_is_not_installed_is_refused_by_name(config, tmp_path, capsys, monkeypatch):
    available = [tracker for tracker in parts.get_available_trackers() if str(tracker) != "wandb"]
    monkeypatch.setattr(parts, "get_available_trackers", lambda: available)
    wanted = "train.trackers=[tensorboard,wandb]"
    assert_refused(config, capsys, "train.trackers: wandb is not installed: pip install wandb, or leave it out", wanted)
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused_by_name(config, capsys):
    assert_refused(config, capsys, r"train\.trackers\.0: .*'tensorboard' or 'wandb'.*mlflow", "train.trackers=[mlflow]")


def test_no_tracker_is_needed(config, tmp_path):
    assert run(config, "train.trackers=[]") == 0
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert len(read_log(tmp_path / "run")) == 4


def test_a_finished_run_without_its_log_is_finished(config, killed, capfd):
    (killed / "metrics.jsonl").unlink()
    assert run(config, "--resume") == 0
    assert f"finished: 4 steps; the model is in {killed}/checkpoint" in capfd.readouterr().out
