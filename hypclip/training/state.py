"""Everything a run needs to go on as if it had never stopped, on disk without pickle.

A training checkpoint is a directory OUTPUT/checkpoints/step-NNNNNNNN with the model's files and, beside them,
state.safetensors (optimiser moments, random generators) and state.json (counters, positions in the data).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hypclip.checkpoint import CONFIG, WEIGHTS
from hypclip.errors import CheckpointError

TENSORS = "state.safetensors"
COUNTERS = "state.json"


@dataclass
class TrainState:
    """Counters and positions of a run; `streams` and `generators` have one entry a process."""

    step: int = 0
    precision: str = "fp32"
    streams: list[dict[str, Any]] = field(default_factory=list)
    generators: list[Tensor] = field(default_factory=list)


def save_state(folder: Path, state: TrainState, optimizer: torch.optim.Optimizer) -> None:
    """Write the state beside the model's files in an existing folder."""
    tensors = {f"generator.{i}": g for i, g in enumerate(state.generators)}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value.detach().cpu().contiguous() for name, value in moments.items()}
    save_file(tensors, folder / TENSORS)
    counters = {"step": state.step, "precision": state.precision, "streams": state.streams}
    (folder / COUNTERS).write_text(json.dumps(counters, indent=1), encoding="utf-8")


def load_state(folder: Path, optimizer: torch.optim.Optimizer, processes: int) -> TrainState:
    """Read what `save_state` wrote, and fill the optimiser.

    Raises:
        CheckpointError: unreadable, of another number of processes, or of another model.
    """
    try:
        tensors = load_file(folder / TENSORS)
        counters = json.loads((folder / COUNTERS).read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the training state in {folder}: {error}") from error
    if not {"step", "precision", "streams"} <= counters.keys():
        raise CheckpointError(f"{folder / COUNTERS} is not the state of a run")
    if len(counters["streams"]) != processes:
        raise CheckpointError(
            f"{folder} was written by {len(counters['streams'])} processes and this run has {processes}: "
            "resume with the same number"
        )
    content = optimizer.state_dict()
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = value
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, values in moments.items():
        if index >= len(parameters) or values["exp_avg"].shape != parameters[index].shape:
            raise CheckpointError(f"{folder} holds the optimiser state of another model")
        moments[index] = {name: _laid_out_like(parameters[index], value) for name, value in values.items()}
    content["state"] = moments
    optimizer.load_state_dict(content)
    generators = [tensors[f"generator.{i}"] for i in range(processes)]
    return TrainState(counters["step"], counters["precision"], counters["streams"], generators)


def _laid_out_like(parameter: Tensor, moment: Tensor) -> Tensor:
    """Return the moment in the parameter's memory order: the fused update pairs the two as they lie in memory."""
    if moment.shape != parameter.shape:
        return moment
    return torch.empty_strided(moment.shape, parameter.stride(), dtype=moment.dtype).copy_(moment)


def checkpoint_path(output_dir: Path, step: int) -> Path:
    """Return where the training checkpoint of a step belongs."""
    return output_dir / "checkpoints" / f"step-{step:08d}"


def latest_checkpoint(output_dir: Path) -> Path | None:
    """Return the training checkpoint of the highest step that is complete, or None.

    Directories appear under their final name only when complete, so a run killed while writing leaves none behind.
    """
    found = sorted((output_dir / "checkpoints").glob("step-*"), reverse=True)
    return next((f for f in found if all((f / n).is_file() for n in (CONFIG, WEIGHTS, TENSORS, COUNTERS))), None)


def prune_checkpoints(output_dir: Path, keep: int, step: int) -> None:
    """Delete all but the newest `keep` training checkpoints of a run that has come to `step`.

    Later ones are of an earlier run in the same folder, which this one, started afresh, replaces.
    """
    found = sorted((output_dir / "checkpoints").glob("step-*"))
    ours = [folder for folder in found if folder <= checkpoint_path(output_dir, step)]
    for old in {*found} - {*ours[-keep:]}:
        shutil.rmtree(old)
