"""The number format that towers compute in; weights, geometry and losses are float32 always."""

from __future__ import annotations

import contextlib
from typing import Literal

import torch

from hypclip.errors import ConfigError

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose(wanted: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device) -> Precision:
    """Return the precision of a run: auto is bf16 where the hardware computes in it, else fp32.

    Raises:
        ConfigError: fp16 on a device that does not train in it.
    """
    if wanted == "fp16" and device.type not in ("cuda", "cpu"):
        raise ConfigError(f"train.precision fp16 needs CUDA, this run is on {device.type}: use bf16 or fp32")
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def towers_in(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return a context in which towers compute in a precision."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, _DTYPES[precision])


def loss_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Return the scaler that keeps small gradients of fp16 from becoming 0; it does nothing in other precisions."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
