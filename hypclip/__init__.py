"""Hyperbolic vision-language models: train, evaluate, search, serve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypclip.checkpoint import load
    from hypclip.model import HypCLIP, ModelConfig

__all__ = ["HypCLIP", "ModelConfig", "load"]


def __getattr__(name: str) -> Any:
    # On demand, for `hypclip.client` is for programs without torch.
    match name:
        case "load":
            from hypclip.checkpoint import load

            return load
        case "HypCLIP" | "ModelConfig":
            from hypclip import model

            return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
