"""From the state dict of a published checkpoint to a HypCLIP with the same embeddings.

Facts about the models: MERU (arXiv:2304.09172) and the three that build on it keep the logs of curvature, scales and
temperature, as we do; their image tower is a timm ViT with LayerNorm epsilon 1e-5 and fixed sin-cos positions. Nothing
is clamped, and pixel statistics and positions are the file's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from hypclip.config import build
from hypclip.errors import CheckpointError, ConfigError, InputError
from hypclip.model import HypCLIP, ModelConfig
from hypclip.pretrained.published.keys import (
    FACTOR_SERIES,
    MERU_OR_HYCOCLIP,
    SIZES,
    Architecture,
    Kind,
    Size,
    expected_tensors,
    recognise,
    require_keys,
)
from hypclip.pretrained.published.reading import kind_beside, read_weights

LAYER_NORM_EPS = 1e-5
SWAPPED_PIXEL_MEAN = (0.229, 0.224, 0.225)
"""The standard deviation in the mean's place: what training code of HyCoCLIP and UNCHA fills in by mistake."""

_SPACES: dict[str, dict[str, Any]] = {
    "clip": {"geometry": "sphere"},
    "phyclip": {"geometry": "product", "distance": "l1"},
    "uncha": {"other_scales": {"box_scale": 1 / 0.05, "box_whole_scale": 1 / 0.06}},
}


@dataclass(frozen=True)
class Published:
    """A converted checkpoint: the model in evaluation mode, and its origin.

    `kind` is clip, meru, hycoclip, phyclip or uncha, or "meru or hycoclip" where nothing tells them apart; `size` is s,
    b or l; `step` is the number of training steps where the file says.
    """

    model: HypCLIP
    kind: str
    size: str
    step: int | None = None

    @property
    def name(self) -> str:
        """A name for the model, such as hycoclip_vit_s."""
        return f"{self.kind.replace(' ', '_')}_vit_{self.size}"

    @property
    def notes(self) -> dict[str, Any]:
        """Entries of config.yaml beside the config of the model: name, and step and objective where they are known."""
        objective = {"objective": {"base": self.kind}} if self.kind in get_args(Kind) else {}
        return {"name": self.name} | ({} if self.step is None else {"step": self.step}) | objective

    @property
    def has_swapped_pixel_mean(self) -> bool:
        """True if the pixel mean is `SWAPPED_PIXEL_MEAN`."""
        mean = self.model.config.image_mean
        return all(math.isclose(m, s, abs_tol=1e-5) for m, s in zip(mean, SWAPPED_PIXEL_MEAN, strict=True))


def load_published(path: Path, kind: str | None = None) -> Published:
    """Read a published checkpoint and convert it.

    Args:
        path: the .pth file.
        kind: meru or hycoclip, whose files have the same keys; if not given, a config.yaml beside the file decides.

    Raises:
        CheckpointError: unreadable, unsafe, or not the weights of one of these models.
    """
    weights = read_weights(path)
    try:
        return convert(weights.tensors, kind, beside=kind_beside(path), step=weights.step)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def convert(
    tensors: Mapping[str, Tensor],
    kind: str | None = None,
    *,
    beside: str | None = None,
    step: int | None = None,
    sizes: Iterable[Size] = SIZES,
) -> Published:
    """Build the model that a state dict is of.

    Args:
        tensors: the state dict, every key of it.
        kind: as in `load_published`.
        beside: what the config beside it says; used where neither the keys nor `kind` tell.
        step: number of training steps, to be kept with it.
        sizes: the shapes that towers may have.

    Raises:
        CheckpointError: a key is unknown, missing or wrong, or the model is not of that kind.
        InputError: no such kind.
    """
    architecture = recognise(tensors, sizes)
    kind = _decide(architecture.kind, kind, beside)
    require_keys(tensors, architecture)
    try:
        model = HypCLIP(model_config(tensors, architecture))
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    require_structure(model, architecture.size)
    state = renamed(tensors, architecture)
    if architecture.kind == "clip":  # on the sphere they play no part
        state |= {name: model.state_dict()[name] for name in ("log_curv", "log_image_scale", "log_text_scale")}
    model.load_state_dict(state)
    return Published(model.eval(), kind, architecture.size.name, step)


def model_config(tensors: Mapping[str, Tensor], architecture: Architecture) -> ModelConfig:
    """Return the config of the model of a state dict; the pixel statistics are its own."""
    size = architecture.size
    settings = {
        "towers": {
            "embed_dim": size.dim,
            "vision_cfg": {
                "image_size": size.image_size,
                "timm_model_name": size.timm_name,
                "timm_model_kwargs": {
                    "img_size": size.image_size,
                    "patch_size": size.patch,
                    "embed_dim": size.width,
                    "depth": size.depth,
                    "num_heads": size.heads,
                },
                "timm_pool": "token",
                "timm_proj": "linear",
                "timm_proj_bias": False,
                "layer_norm_eps": LAYER_NORM_EPS,
                "fixed_position": True,
            },
            "text_cfg": {
                "context_length": size.context_length,
                "vocab_size": size.vocab_size,
                "width": size.text_width,
                "heads": size.text_heads,
                "layers": size.text_depth,
            },
        },
        "image_mean": tensors["pixel_mean"].flatten().tolist(),
        "image_std": tensors["pixel_std"].flatten().tolist(),
        **_SPACES.get(architecture.kind, {}),
    }
    if architecture.kind == "phyclip":
        settings["factor_dim"] = size.dim // architecture.factors
    return build(ModelConfig, settings, "model")


def renamed(tensors: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Return the tensors under the names of our state dict, in float32; unused ones are left out."""
    table = expected_tensors(architecture)
    state = {place.name: tensors[key].float() for key, place in table.items() if place.name}
    state["text_tower.text_projection"] = state["text_tower.text_projection"].T
    if architecture.kind == "phyclip":
        for series, name in FACTOR_SERIES.items():
            state[name] = torch.stack([tensors[f"{series}.{i}"].float() for i in range(architecture.factors)])
        # Their logits have the mean of the distances of the factors, ours have the sum.
        state["log_logit_scale"] = state["log_logit_scale"] - math.log(architecture.factors)
    return state


def require_structure(model: HypCLIP, size: Size) -> None:
    """Check what no shape of a weight shows, and what wrong embeddings would come of: heads, epsilons, activations.

    Raises:
        AssertionError: the towers were built otherwise than asked for.
    """
    image: Any = model.image_tower
    text: Any = model.text_tower
    assert len(image.trunk.blocks) == size.depth
    assert {block.attn.num_heads for block in image.trunk.blocks} == {size.heads}
    assert {block.attn.num_heads for block in text.transformer.resblocks} == {size.text_heads}
    modules = [*image.modules(), *text.modules()]
    assert {m.eps for m in modules if isinstance(m, nn.LayerNorm)} == {LAYER_NORM_EPS}
    assert {m.approximate for m in modules if isinstance(m, nn.GELU)} == {"none"}
    assert not image.trunk.pos_embed.requires_grad


def _decide(found: str, wanted: str | None, beside: str | None) -> str:
    either = ("meru", "hycoclip")
    if wanted is not None and wanted not in get_args(Kind):
        raise InputError(f"kind must be one of {', '.join(get_args(Kind))}, got {wanted!r}")
    if wanted not in (None, found, *(either if found == MERU_OR_HYCOCLIP else ())):
        raise CheckpointError(f"its keys are those of {found}, not of {wanted}")
    if wanted is None and found == MERU_OR_HYCOCLIP and beside in either:
        return str(beside)
    return wanted or found
