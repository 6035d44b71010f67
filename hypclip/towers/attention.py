"""Explicit (unfused) attention for training on a CPU, where the backward pass of the fused operator is slow.

train/cpu.py asks for it. On 2 cores forward and backward in bfloat16 take two thirds to a fifth of the fused operator's
time (tests/benchmarks/bench_attention.py); bench_cpu.py measures whole steps.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_SHORT = 64
"""Tokens up to which explicit attention is faster in float32; in half precision it is up to _LONGEST."""
_LONGEST = 512
"""Tokens beyond which the matrix of all pairs would take too much memory."""


def explicit_attention() -> contextlib.AbstractContextManager[object]:
    """Return a context for a tower's pass, in which attention is explicit where that trains faster.

    Without gradients, and in compiled towers, nothing changes.
    """
    return _ExplicitAttention() if _trains() else contextlib.nullcontext()


def use_explicit_attention(tower: nn.Module) -> None:
    """Make a tower's torch.nn.MultiheadAttention layers explicit too, which no context reaches."""
    for module in tower.modules():
        if isinstance(module, nn.MultiheadAttention):
            module.register_forward_pre_hook(_ask_for_weights, with_kwargs=True)


def _trains() -> bool:
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _ask_for_weights(
    module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Have a layer return its weights too, for which torch computes them instead of calling the fused operator."""
    query: Tensor = args[0]
    length = query.shape[1 if module.batch_first else 0]
    if _trains() and kwargs.get("need_weights") is False and length <= _longest(query):
        kwargs = {**kwargs, "need_weights": True, "average_attn_weights": False}
    return args, kwargs


class _ExplicitAttention(TorchFunctionMode):
    """Replace scaled_dot_product_attention by its formula, where that is faster."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention and _is_faster(*args[:2]):
            return _attend(*args, **kwargs)
        return func(*args, **kwargs)


def _is_faster(query: Tensor, key: Tensor) -> bool:
    return max(query.shape[-2], key.shape[-2]) <= _longest(query)


def _longest(rows: Tensor) -> int:
    half = rows.dtype != torch.float32 or torch.is_autocast_enabled(rows.device.type)
    return _LONGEST if half else _SHORT


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return softmax(query keyᵀ · scale + mask) value, in the precision of the query."""
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    with torch.autocast(query.device.type, enabled=False):
        scores = (query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)) @ key.transpose(-2, -1)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None:
            scores = (
                scores.masked_fill(~attn_mask, -math.inf)
                if attn_mask.dtype == torch.bool
                else scores + attn_mask.to(scores.dtype)
            )
        weights = scores.softmax(-1)
        return torch.dropout(weights, dropout_p, dropout_p > 0) @ value
