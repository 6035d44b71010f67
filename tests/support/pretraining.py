"""Runs of train/pretrain.py in this process, and what they leave."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

import hypclip
from tests.support.training import read_log, run_config, state_bits, without, write_config
from train import pretrain

CLOCK = {"samples_per_s", "data_wait_s", "model_flop_per_s", "memory_bytes"}
"""The fields of a log line that no two runs share."""


def run(config: Path, *arguments: object) -> int:
    """Run, and leave nothing of it behind."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        return pretrain.main(["--config", str(config), *map(str, arguments)])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        torch.use_deterministic_algorithms(deterministic)
        AcceleratorState._reset_state(reset_partial_state=True)


def config_of(folder: Path, shards: Path, **changes: Any) -> Path:
    """Write the config of a run of four steps into folder/run that keeps every checkpoint."""
    usual = {"data__workers": 0, "train__steps": 4, "train__keep_checkpoints": 100}
    return write_config(folder / "config.yaml", run_config(folder / "run", shards, **{**usual, **changes}))


def steps_in(output_dir: Path) -> list[int]:
    """The steps of the training checkpoints."""
    return sorted(int(folder.name.removeprefix("step-")) for folder in (output_dir / "checkpoints").iterdir())


def step_of(output_dir: Path, step: int) -> Path:
    return output_dir / "checkpoints" / f"step-{step:08d}"


def rewind(output_dir: Path, step: int) -> None:
    """Make it look as if the run had been killed after the checkpoint of that step."""
    shutil.rmtree(output_dir / "checkpoint", ignore_errors=True)
    for later in (s for s in steps_in(output_dir) if s > step):
        shutil.rmtree(step_of(output_dir, later))


def assert_same_run(got: Path, want: Path) -> None:
    """Weights, optimiser, generators, positions and log are those of the other run to the last bit."""
    assert steps_in(got)[-1] == steps_in(want)[-1]
    last = f"checkpoints/step-{steps_in(want)[-1]:08d}"
    for folder in ("checkpoint", last):
        ours, theirs = state_bits(got / folder), state_bits(want / folder)
        assert ours.keys() == theirs.keys()
        assert [name for name in theirs if ours[name] != theirs[name]] == [], folder
    assert [without(line, *CLOCK) for line in read_log(got)] == [without(line, *CLOCK) for line in read_log(want)]


def assert_resumes(config: Path, folder: Path, step: int = 2) -> Path:
    """Run to the end, then again from the checkpoint of a step, bit for bit; return the folder of the first run."""
    assert run(config) == 0
    shutil.copytree(folder / "run", folder / "again")
    rewind(folder / "again", step)
    assert run(config, f"output_dir={folder}/again", "--resume") == 0
    assert_same_run(folder / "again", folder / "run")
    return folder / "run"


def assert_refused(config: Path, capsys: pytest.CaptureFixture[str], message: str, *arguments: str) -> None:
    """Exit code 1, and one line on stderr that says this."""
    assert run(config, *arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line), line


def after(function: Callable[..., Any], then: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that does something more once it is done."""

    def both(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        then(*args, **kwargs)
        return result

    return both


def losses(output_dir: Path) -> list[float]:
    """The loss of every line of the log."""
    return [line["loss"] for line in read_log(output_dir)]


def fresh(output_dir: Path) -> dict[str, torch.Tensor]:
    """Return the weights that a run without a warm start began with."""
    config = hypclip.load(output_dir / "checkpoint").config
    torch.manual_seed(0)
    return hypclip.HypCLIP(config).state_dict()
