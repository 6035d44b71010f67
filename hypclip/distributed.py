"""Gathering rows from every process, with and without gradient. With one process, or none started, both do nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
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
    with torch.no_grad():
        return gather_rows_with_gradient([rows])[0]


def gather_rows_with_gradient(parts: Sequence[Tensor]) -> list[Tensor]:
    """Return the rows of all processes of several tensors, in one message; gradients flow back to the rows' owners.

    The gradients that all processes hold for a row are summed, so that the mean of per-process losses, as DDP takes it,
    has the gradient of one process with the whole batch.

    Args:
        parts: tensors of any types and as many rows each.

    Raises:
        TrainingError: processes hold different numbers of rows.
    """
    return list(parts) if world_size() == 1 else list(_GatherRows.apply(*parts))


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> tuple[Tensor, ...]:
        rows = parts[0].shape[0]
        sizes = _all_gather(torch.tensor([rows], device=parts[0].device)).tolist()
        if len(set(sizes)) > 1:
            raise TrainingError(f"processes hold batches of different sizes: {sizes}")
        ctx.rows, ctx.learned = rows, ctx.needs_input_grad
        message = [part.contiguous().view(rows, -1).view(torch.uint8) for part in parts]
        gathered = torch.split(_all_gather(torch.cat(message, 1)), [part.shape[1] for part in message], 1)
        found = [
            got.contiguous().view(part.dtype).view(-1, *part.shape[1:])
            for got, part in zip(gathered, parts, strict=True)
        ]
        ctx.mark_non_differentiable(*(x for x, learned in zip(found, ctx.learned, strict=True) if not learned))
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        learned = [x for x, is_learned in zip(gradients, ctx.learned, strict=True) if is_learned]  # at least one
        summed = torch.cat([gradient.flatten(1) for gradient in learned], 1)
        dist.all_reduce(summed)
        mine = summed[rank() * ctx.rows : (rank() + 1) * ctx.rows]
        own = iter(torch.split(mine, [gradient[0].numel() for gradient in learned], 1))
        return tuple(
            next(own).view(-1, *gradient.shape[1:]) if is_learned else None
            for gradient, is_learned in zip(gradients, ctx.learned, strict=True)
        )


def _all_gather(rows: Tensor) -> Tensor:
    """Return as many rows of every process, in order of rank."""
    found = rows.new_empty(world_size() * rows.shape[0], *rows.shape[1:])
    dist.all_gather(list(found.chunk(world_size())), rows)
    return found


def gather_plain(value: Any) -> list[Any]:
    """Return the plain data of every process, in order of rank, on every process."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def any_process(flag: bool, device: torch.device) -> bool:
    """Return whether a flag is set on at least one process."""
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
    """Turn the broken connections by which libraries report a lost process into an error that says so.

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
    """Return whether a tensor is sharded over the processes."""
    return isinstance(tensor, DTensor)


def local_shard(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor, which shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the full tensor of a sharded one; every process has to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_like(like: Tensor, tensor: Tensor) -> Tensor:
    """Return this process's shard of a full tensor that every process has, sharded as `like` is."""
    assert isinstance(like, DTensor)
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
