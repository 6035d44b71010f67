"""Tiny models, and the spaces that a model can embed in."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hypclip.model import HypCLIP, ModelConfig

TOWERS: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "width": 32, "heads": 2, "layers": 2},
}
SPACES: dict[str, dict[str, Any]] = {
    "lorentz": {},
    "sphere": {"geometry": "sphere"},
    "euclidean": {"geometry": "euclidean", "distance": "squared"},
    "product": {"geometry": "product", "distance": "l1", "factor_dim": 4},
}
each_geometry = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def timm_towers(**kwargs: Any) -> dict[str, Any]:
    """Return towers of which the image tower is of timm, made with these arguments."""
    small = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2, **kwargs}
    vision = {"image_size": 32, "timm_model_name": "vit_tiny_patch16_224", "timm_model_kwargs": small}
    return {**TOWERS, "vision_cfg": vision}


def tiny_model(seed: int = 0, **changes: Any) -> HypCLIP:
    """Return a model to train."""
    torch.manual_seed(seed)
    return HypCLIP(ModelConfig(**{"towers": TOWERS, **changes}))


def tiny_encoder(seed: int = 0, **changes: Any) -> HypCLIP:
    """Return a model to embed with."""
    return tiny_model(seed, **changes).eval()
