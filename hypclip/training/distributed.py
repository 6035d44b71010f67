"""Gathering rows from every process, with and without gradient. With one process, or none started, both do nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from hypclip.errors import HypclipError, TrainingError

T = TypeVar("T")


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


def together(make: Callable[[], T], device: torch.device) -> T:
    """Return make(), or raise in every process if it fails in one.

    Raises:
        HypclipError, OSError: what make() raises in this process.
        TrainingError: it has failed in another.
    """
    made: list[T] = []
    failure: Exception | None = None
    try:
        made.append(make())
    except (HypclipError, OSError) as error:
        failure = error
    raise_together(failure, device)
    return made[0]


def raise_together(error: Exception | None, device: torch.device) -> None:
    """Raise in every process if one has an error: that process its own, the others one that names it.

    Raises:
        TrainingError: another process has an error.
    """
    if not any_process(error is not None, device):
        return
    messages = gather_plain(None if error is None else str(error))
    if error is not None:
        raise error
    told = "; ".join(f"process {i}: {message}" for i, message in enumerate(messages) if message is not None)
    raise TrainingError(f"another process of this run has failed: {told}")


@contextlib.contextmanager
def lost_processes_named() -> Iterator[None]:
    """Say in plain words when another process is gone, of which the libraries tell by a broken connection.

    Raises:
        TrainingError: another process has died.
    """
    try:
        yield
    except RuntimeError as error:
        if world_size() > 1 and any(sign in str(error) for sign in _LOST):
            raise TrainingError(
                f"process {rank()} has lost another process of this run, which died or was killed: look at its output "
                f"and go on with --resume ({str(error).partition(chr(10))[0][:200]})"
            ) from error
        raise


_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "timed out", "Timed out", "NCCL error")


def is_sharded(tensor: Tensor) -> bool:
    """Return whether each process holds a part of a tensor only."""
    return isinstance(tensor, DTensor)


def part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor, which shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with all its parts; every process has to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_like(like: Tensor, tensor: Tensor) -> Tensor:
    """Return this process's part of a whole tensor that every process has, cut as `like` is."""
    assert isinstance(like, DTensor)
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
