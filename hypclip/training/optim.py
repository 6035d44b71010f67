"""The optimiser of the published recipes and its learning-rate schedule.

Tensors of rank 2 and more decay, everything else does not. A group of parameters carries `lr_scale`, what its learning
rate is multiplied by: with layer decay d, block i of n has d to the power n − i, the stem below them (patches, tokens,
positions) d to the power n + 1, and what is above them, the model's scalars included, 1.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from hypclip.errors import ConfigError
from hypclip.towers.layout import blocks, layout

TOWERS = ("image_tower", "text_tower")


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    *,
    decay_norms: bool = False,
    image_layer_decay: float | None = None,
    text_layer_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Split trainable parameters by rank, matrices and kernels decay and the rest does not, and by `lr_scale`.

    Args:
        model: a HypCLIP; other modules can be split by rank only.
        weight_decay: of what decays.
        decay_norms: let norms and biases of the towers decay too, as the published checkpoints were trained; the
            model's own scalars never do.
        image_layer_decay: by how much the learning rate falls from each layer of the image tower to the one below.
        text_layer_decay: the same for the text tower.

    Returns:
        Groups in an order that depends on the model and these settings only; without the optional ones, two.

    Raises:
        ConfigError: layer decay for a tower whose blocks are unknown.
    """
    scales = {
        **_layer_scales(model, "image_tower", image_layer_decay),
        **_layer_scales(model, "text_tower", text_layer_decay),
    }
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = []
    for decays in (True, False):
        chosen = [
            (scales.get(name, 1.0), p)
            for name, p in trainable
            if decays == (p.ndim >= 2 or (decay_norms and name.startswith(TOWERS)))
        ]
        for scale in sorted({scale for scale, _ in chosen} or {1.0}):
            members = [p for its, p in chosen if its == scale]
            groups.append(
                {"params": members, "weight_decay": weight_decay if decays else 0.0, "lr_scale": scale},
            )
    return groups


def adamw(
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    decay_norms: bool = False,
    image_layer_decay: float | None = None,
    text_layer_decay: float | None = None,
) -> torch.optim.AdamW:
    """Return AdamW over `parameter_groups`."""
    groups = parameter_groups(
        model,
        weight_decay,
        decay_norms=decay_norms,
        image_layer_decay=image_layer_decay,
        text_layer_decay=text_layer_decay,
    )
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)
    set_learning_rate(optimizer, learning_rate)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every group the learning rate times its `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_scale", 1.0)


def learning_rate_at(step: int, *, peak: float, warmup_steps: int, steps: int) -> float:
    """Return the learning rate of step `step` (from 0): linear warm-up to `peak`, then a cosine to 0 at `steps`."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _layer_scales(model: nn.Module, tower_name: str, decay: float | None) -> dict[str, float]:
    """Return the factor of the learning rate of every parameter of a tower, by its name in the model."""
    if decay is None:
        return {}
    tower = model.get_submodule(tower_name)
    where = layout(tower)
    if where is None:
        raise ConfigError(
            f"tune.{tower_name.removesuffix('_tower')}_layer_decay needs a transformer from open_clip, timm or "
            f"transformers, got a {type(tower).__name__} whose blocks are unknown: leave it out"
        )
    count = len(blocks(tower))

    def depth(name: str) -> int:
        block = where.block_of(name)
        if block is not None:
            return block + 1
        return count + 1 if where.is_above(name) else 0

    return {f"{tower_name}.{name}": decay ** (count + 1 - depth(name)) for name, _ in tower.named_parameters()}
