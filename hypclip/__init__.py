"""Hyperbolic vision-language models: train, evaluate, search, serve."""

from hypclip.checkpoint import load
from hypclip.model import HypCLIP, ModelConfig

__all__ = ["HypCLIP", "ModelConfig", "load"]
