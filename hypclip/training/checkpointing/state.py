"""Everything a run needs to go on as if it had never stopped, on disk without pickle.

A training checkpoint has the model's files and, beside them, state.safetensors (optimiser moments by the name of their
parameter, random generators, averaged weights) and state.json (counters, positions in the data, the run's settings).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hypclip import checkpoint, distributed
from hypclip.errors import CheckpointError, first_few
from hypclip.model import HypCLIP
from hypclip.training import tuning

TENSORS = "state.safetensors"
COUNTERS = "state.json"


@dataclass
class TrainState:
    """Counters and positions of a run; `streams` and `generators` have one entry per process.

    `settings` are those a run must not change when it goes on, by dotted name. `losses` are the latest that the guard
    against spikes compares with, `skipped_updates` how many updates in a row it has skipped.
    """

    step: int = 0
    precision: str = "fp32"
    streams: list[dict[str, Any]] = field(default_factory=list)
    generators: list[dict[str, Tensor]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    skipped_updates: int = 0
    scaler: dict[str, Any] = field(default_factory=dict)


_PLAIN = ("step", "precision", "streams", "settings", "losses", "skipped_updates", "scaler")


@dataclass(frozen=True)
class Snapshot:
    """A training checkpoint in memory, a copy that training does not touch."""

    step: int
    weights: dict[str, Tensor]
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    counters: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Write all files into an existing folder."""
        checkpoint.write(self.weights, folder, self.config)
        save_file(self.tensors, folder / TENSORS)
        (folder / COUNTERS).write_text(json.dumps(self.counters, indent=1), encoding="utf-8")


def snapshot(
    model: HypCLIP,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    notes: Mapping[str, Any],
    averaged: Mapping[str, Tensor] | None = None,
    *,
    keep: bool = True,
) -> Snapshot | None:
    """Copy a run to the memory of the host; all processes take part where tensors are sharded.

    Args:
        model: the model that is trained.
        optimizer: over its parameters.
        state: counters, with what every process has handed in.
        notes: plain data for config.yaml.
        averaged: the averaged weights of a run that has them.
        keep: whether this process wants the copy; else it gathers with the others, tensor by tensor, keeps nothing,
            and the result is None.
    """
    adapted = tuning.is_adapted(model)
    moments = {
        f"optimizer.{name}.{moment}": value
        for name, parameter in _trained(model, optimizer).items()
        for moment, value in optimizer.state.get(parameter, {}).items()
    }
    means = {f"averaged.{name}": tensor for name, tensor in (averaged or {}).items()}
    if not keep:
        for tensor in (*model.state_dict().values(), *moments.values(), *means.values()):
            distributed.full_tensor(tensor.detach())
        return None
    whole = {name: _copied(tensor) for name, tensor in model.state_dict().items()}
    weights = {name: _copied(tensor) for name, tensor in tuning.merged_state_dict(model).items()} if adapted else whole
    tensors = {f"weight.{name}": tensor for name, tensor in whole.items()} if adapted else {}
    tensors |= {
        f"generator.{process}.{device}": content.clone()
        for process, devices in enumerate(state.generators)
        for device, content in devices.items()
    }
    tensors |= {name: _copied(tensor) for name, tensor in (moments | means).items()}
    counters = json.loads(json.dumps({name: getattr(state, name) for name in _PLAIN}))
    return Snapshot(state.step, weights, checkpoint.make_config(model, notes), tensors, counters)


def load_weights(model: HypCLIP, folder: Path) -> None:
    """Fill a model that is to be trained further with the weights of a training checkpoint, adapters included.

    Raises:
        CheckpointError: unreadable, or of another model.
    """
    if not tuning.is_adapted(model):
        checkpoint.load_weights(model, folder)
        return
    tensors, _ = _read(folder)
    weights = {name.removeprefix("weight."): x for name, x in tensors.items() if name.startswith("weight.")}
    checkpoint.fill(model, weights, folder)


def restore(
    folder: Path,
    model: HypCLIP,
    optimizer: torch.optim.Optimizer,
    processes: int,
    averaged: Mapping[str, Tensor] | None = None,
) -> TrainState:
    """Restore counters, optimiser and averaged weights from the files that a snapshot wrote beside the weights.

    Raises:
        CheckpointError: unreadable, of another number of processes, or of another model.
    """
    tensors, counters = _read(folder)
    if len(counters["streams"]) != processes:
        raise CheckpointError(
            f"{folder} was written by {len(counters['streams'])} processes and this run has {processes}: "
            "resume with the same number"
        )
    generators: list[dict[str, Tensor]] = [{} for _ in range(processes)]
    moments: dict[str, dict[str, Tensor]] = {}
    kept: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "generator":
            process, _, device = rest.partition(".")
            generators[int(process)][device] = tensor
        elif kind == "weight":
            continue
        elif kind == "optimizer":
            parameter, _, moment = rest.rpartition(".")
            moments.setdefault(parameter, {})[moment] = tensor
        else:
            kept[rest] = tensor
    _fill(folder, model, optimizer, moments)
    if averaged is not None:
        if kept.keys() != averaged.keys():
            raise CheckpointError(f"{folder} has no averaged weights: resume without train.ema_decay")
        for name, tensor in averaged.items():
            own = distributed.sharded_like(tensor, kept[name]) if distributed.is_sharded(tensor) else kept[name]
            tensor.copy_(own)
    return TrainState(generators=generators, **{name: counters[name] for name in _PLAIN})


def same_settings(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with a run of other settings.

    Raises:
        CheckpointError: the first that differ, by name.
    """
    now = json.loads(json.dumps(now))
    changed = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    if changed:
        told = first_few([f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in changed])
        raise CheckpointError(
            f"{folder} is of a run with other settings: {told}: go on with those, or begin anew, with "
            "--overwrite in place of --resume or in another output_dir"
        )


def generators(device: torch.device) -> dict[str, Tensor]:
    """Return the state of the random generators that training draws from in this process."""
    found = {"cpu": torch.get_rng_state()}
    return {**found, "cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else found


def set_generators(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Set what `generators` returned; one of a kind of device that this run has not is passed over."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def _read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        tensors = load_file(folder / TENSORS)
        counters = json.loads((folder / COUNTERS).read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the training state in {folder}: {error}") from error
    if not isinstance(counters, dict) or not set(_PLAIN) <= counters.keys():
        raise CheckpointError(f"{folder / COUNTERS} is not the state of a run")
    return tensors, counters


def _trained(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    """Return the parameters of the optimiser by name."""
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {name: p for name, p in model.named_parameters() if id(p) in known}


def _fill(
    folder: Path, model: HypCLIP, optimizer: torch.optim.Optimizer, moments: Mapping[str, dict[str, Tensor]]
) -> None:
    parameters = _trained(model, optimizer)
    if moments and (
        moments.keys() != parameters.keys()
        or any(moments[name]["exp_avg"].shape != parameter.shape for name, parameter in parameters.items())
    ):
        raise CheckpointError(f"{folder} holds the optimiser state of another model")
    for name, values in moments.items():
        parameter = parameters[name]
        optimizer.state[parameter] = {moment: _laid_out_like(parameter, value) for moment, value in values.items()}


def _laid_out_like(parameter: Tensor, moment: Tensor) -> Tensor:
    """Return the moment where and how the parameter lies in memory: the fused update pairs the two."""
    if moment.shape != parameter.shape:
        return moment.to(parameter.device)
    if distributed.is_sharded(parameter):
        return distributed.sharded_like(parameter, moment)
    return torch.empty_strided(moment.shape, parameter.stride(), dtype=moment.dtype, device=parameter.device).copy_(
        moment
    )


def _copied(tensor: Tensor) -> Tensor:
    """Return a whole copy of a tensor in the memory of the host, rows one after the other."""
    whole = distributed.full_tensor(tensor.detach())
    return torch.empty(whole.shape, dtype=whole.dtype).copy_(whole)
