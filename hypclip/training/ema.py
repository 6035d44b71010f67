"""Weights averaged over time (Polyak and Juditsky 1992), which often score better than those of the last step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


class AveragedWeights:
    """An exponential mean of the floating-point state of a model; integers follow the model.

    Args:
        model: as it is at step 0.
        decay: the share of the mean that stays at each step; early on less, so that the first weights are forgotten:
            (1 + step) / (10 + step) where that is lower.
    """

    def __init__(self, model: nn.Module, decay: float):
        self._decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after a step."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            mean = self.tensors[name]
            mean.lerp_(tensor, share) if mean.is_floating_point() else mean.copy_(tensor)

    @contextlib.contextmanager
    def swapped_into(self, model: nn.Module) -> Iterator[None]:
        """Let a model have the averages for a block."""
        own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(self.tensors)
        try:
            yield
        finally:
            model.load_state_dict(own)
