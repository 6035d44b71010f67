"""A model in several processes: replicated (DistributedDataParallel), or each weight sharded (FSDP2)."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from hypclip import distributed
from hypclip.errors import ConfigError
from hypclip.geometry.precision import is_readable
from hypclip.model import HypCLIP, ModelConfig
from hypclip.towers.layout import blocks, layout
from hypclip.training import tuning
from hypclip.training.ema import AveragedWeights


def wrap(model: HypCLIP, device: torch.device, parts: int = 1) -> nn.Module:
    """Return the model as it is called: with several processes, one that averages gradients over them.

    Args:
        model: on its device, with what is not trained frozen.
        device: its device.
        parts: into how many each batch is cut; a graph is static in one only, since others exchange nothing.
    """
    if distributed.world_size() == 1:
        return model
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(
        model, device_ids=ids, forward_sync_buffers=False, static_graph=parts == 1, gradient_as_bucket_view=True
    )


def shard(model: HypCLIP) -> None:
    """Shard every weight of the towers over the processes; it is gathered block by block as it is needed.

    The model's own scalars cannot be sharded. Their gradients are for `average_unsharded_gradients`.

    Raises:
        ConfigError: adapters in the towers, whose weights are computed from others.
    """
    if any("parametrizations" in name for name, _ in model.named_parameters()):
        raise ConfigError("FSDP cannot shard weights with adapters: leave out tune.lora or train.parallel=fsdp")
    model.passes_are_fixed = True
    for tower in (model.image_tower, model.text_tower):
        if layout(tower) is not None:
            for block in blocks(tower):
                fully_shard(block)
        fully_shard(tower)


def average_unsharded_gradients(model: nn.Module) -> None:
    """Average the gradients of parameters that FSDP has not sharded over all processes."""
    whole = [p.grad for p in model.parameters() if p.grad is not None and not distributed.is_sharded(p)]
    if whole and distributed.world_size() > 1:
        flat = torch.cat([gradient.flatten() for gradient in whole])
        dist.all_reduce(flat)
        flat /= distributed.world_size()
        for gradient, mean in zip(whole, torch.split(flat, [gradient.numel() for gradient in whole]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def is_sharded(model: HypCLIP) -> bool:
    """Return whether `shard` has been called on a model."""
    return isinstance(model.image_tower, FSDPModule)


def end_process(code: int) -> NoReturn:
    """End this process, which has left its group, with an exit code.

    After FSDP torch's caches hold on to a mesh, and a mesh on a CPU to gloo's threads. One that lets go of a tensor
    while the interpreter is torn down aborts the process (pytorch/pytorch#179291), so that a finished run counts as
    failed: where there is such a mesh, nothing is torn down.
    """
    if any(type(kept) is DeviceMesh and kept.device_type == "cpu" for kept in gc.get_objects()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def untrained(config: ModelConfig) -> HypCLIP:
    """Return a new model; the random numbers that the run draws next stay what they were."""
    with torch.random.fork_rng(devices=[]):
        return HypCLIP(config)


@contextlib.contextmanager
def whole_model(model: HypCLIP, averaged: AveragedWeights | None) -> Iterator[HypCLIP]:
    """Yield a model with unsharded weights, the averages if there are any; all processes take part.

    It is `model` itself where that is unsharded already; of a sharded model it is a copy.
    """
    if is_sharded(model):
        state = model.state_dict() if averaged is None else averaged.tensors
        copy = untrained(model.config)
        copy.load_state_dict({name: distributed.full_tensor(tensor).cpu() for name, tensor in state.items()})
        yield copy
    elif averaged is not None:
        with averaged.swapped_into(model):
            yield tuning.plain(model)
    else:
        yield tuning.plain(model)


@contextlib.contextmanager
def unsynchronised(wrapped: nn.Module, model: HypCLIP) -> Iterator[None]:
    """Leave the exchange of gradients between processes to a later backward pass."""
    if isinstance(wrapped, DistributedDataParallel):
        with wrapped.no_sync():
            yield
    elif is_sharded(model):
        towers: list[Any] = [model.image_tower, model.text_tower]
        for tower in towers:
            tower.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            for tower in towers:
                tower.set_requires_gradient_sync(True)
    else:
        yield


def clip_gradients(model: nn.Module, max_norm: float) -> Tensor:
    """Scale gradients down to a norm of `max_norm`; return the norm that they had."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    cut = [distributed.local_shard(gradient) for gradient in gradients if distributed.is_sharded(gradient)]
    entire = [gradient for gradient in gradients if not distributed.is_sharded(gradient)]
    norm = nn.utils.get_total_norm(entire)
    if cut:
        squares = nn.utils.get_total_norm(cut).square()
        dist.all_reduce(squares)
        norm = (squares + norm.square()).sqrt()
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    if not is_readable(factor) or factor < 1:
        torch._foreach_mul_([*cut, *entire], factor)
    return norm


def separate_groups(optimizer: torch.optim.Optimizer) -> None:
    """Give sharded weights and others parameter groups of their own, since an update takes one kind at a time."""
    groups = []
    for group in optimizer.param_groups:
        for wanted in (True, False):
            members = [p for p in group["params"] if distributed.is_sharded(p) is wanted]
            if members:
                groups.append({**group, "params": members})
    optimizer.param_groups[:] = groups
