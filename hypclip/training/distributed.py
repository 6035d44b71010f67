"""Gathering rows from every process, with and without gradient. With one process, or none started, both do nothing."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hypclip.errors import TrainingError


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all processes, in order of rank, without gradient.

    Raises:
        TrainingError: processes hold different numbers of rows.
    """
    if world_size() == 1:
        return rows
    sizes = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor([rows.shape[0]], device=rows.device))
    if len({int(s) for s in sizes}) > 1:
        raise TrainingError(f"processes hold batches of different sizes: {[int(s) for s in sizes]}")
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def gather_rows_with_gradient(rows: Tensor) -> Tensor:
    """Return the rows of all processes; the gradient of each row flows back to the process that owns it.

    The gradients that all processes hold for a row are summed, so that the mean of per-process losses, as DDP takes it,
    has the gradient of one process with the whole batch.
    """
    return rows if world_size() == 1 else _GatherRows.apply(rows)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.rows = rows.shape[0]
        return gather_rows(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def gather_plain(value: Any) -> list[Any]:
    """Return the plain data of every process, in order of rank, on every process."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def any_process(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set on at least one process."""
    if world_size() == 1:
        return flag
    value = torch.tensor([float(flag)], device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())
