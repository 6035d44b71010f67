"""Build the two towers with open_clip, from the name of one of its model configs or from a config written out."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import open_clip
import timm
import torch
from timm.layers import build_sincos2d_pos_embed
from torch import nn

from hypclip.errors import ConfigError
from hypclip.towers.text import accept_short_rows

_KEYS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}


def tower_config(towers: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return the open_clip config of the towers, by name or as written out.

    Raises:
        ConfigError: unknown name, or a missing or unknown key.
    """
    if isinstance(towers, str):
        config: dict[str, Any] | None = open_clip.get_model_config(towers)
        if config is None:
            raise ConfigError(
                f"model.towers: open_clip has no model config named {towers!r}; see open_clip.list_models()"
            )
    else:
        config = {k: dict(v) if isinstance(v, Mapping) else v for k, v in towers.items()}
    config.pop("custom_text", None)
    if config.keys() - _KEYS or _KEYS - {"quick_gelu"} - config.keys():
        raise ConfigError(
            f"model.towers needs embed_dim, vision_cfg and text_cfg (and may have quick_gelu), got {sorted(config)}"
        )
    for part in ("vision_cfg", "text_cfg"):
        if not isinstance(config[part], dict):
            raise ConfigError(f"model.towers.{part} must be a mapping of settings, got {config[part]!r}")
    if not isinstance(config["embed_dim"], int) or config["embed_dim"] < 1:
        raise ConfigError(f"model.towers.embed_dim must be a positive whole number, got {config['embed_dim']!r}")
    return config


def build_towers(config: Mapping[str, Any]) -> tuple[nn.Module, nn.Module]:
    """Return the image and the text tower of a `tower_config`; both project to `embed_dim`.

    Three keys of `vision_cfg` are for towers of timm, and not open_clip's own:
    `timm_model_kwargs` reaches timm.create_model, so that a tower can have other widths, depths or heads than its name
    says; `layer_norm_eps` is the epsilon of its LayerNorms; `fixed_position: true` makes its position embedding a
    2-D sin-cos table that is not trained (see `fix_position`).

    Raises:
        ConfigError: open_clip or timm cannot build them.
    """
    vision = dict(config["vision_cfg"])
    kwargs = dict(vision.pop("timm_model_kwargs", None) or {})
    eps, fixed = vision.pop("layer_norm_eps", None), vision.pop("fixed_position", False)
    if not isinstance(fixed, bool):
        raise ConfigError(f"model.towers: vision_cfg.fixed_position must be true or false, got {fixed!r}")
    if eps is not None and (isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 < eps < 1):
        raise ConfigError(f"model.towers: vision_cfg.layer_norm_eps must be a number between 0 and 1, got {eps!r}")
    changed = "timm_model_kwargs" if kwargs else "layer_norm_eps"
    if eps is not None:
        kwargs["norm_layer"] = functools.partial(nn.LayerNorm, eps=eps)
    with _as_config_error():
        clip = open_clip.CustomTextCLIP(**{**config, "vision_cfg": vision})
        if kwargs:
            _replace_trunk(clip.visual, vision, config["embed_dim"], kwargs, changed)
        if fixed:
            fix_position(clip.visual)
    return clip.visual, accept_short_rows(clip.text)


@torch.no_grad()
def fix_position(visual: nn.Module) -> None:
    """Fill the position embedding of a timm tower with the 2-D sin-cos table of MoCo v3 and take it out of training.

    Half of the width stands for a patch's row and half for its column, each a half of sines and a half of cosines with
    frequencies 10000^(−4i/width). The slots before those of the patches, such as the class token's, are zero.
    Source: Chen et al. 2021, arXiv:2104.02057.

    Raises:
        ConfigError: the tower is not of timm or has no such embedding, or its width is not a multiple of 4.
    """
    trunk: Any = getattr(visual, "trunk", None)
    grid = getattr(getattr(trunk, "patch_embed", None), "grid_size", None)
    table = getattr(trunk, "pos_embed", None)
    if grid is None or not isinstance(table, nn.Parameter) or table.ndim != 3 or table.shape[-1] % 4:
        raise ConfigError(
            "model.towers: vision_cfg.fixed_position needs a timm_model_name of a tower with one embedding a position, "
            "its width a multiple of 4"
        )
    patches = build_sincos2d_pos_embed(list(grid), table.shape[-1], interleave_sin_cos=True)
    table.zero_()
    table[0, -len(patches) :] = patches
    table.requires_grad_(False)


def _replace_trunk(visual: Any, vision: Mapping[str, Any], dim: int, kwargs: Mapping[str, Any], key: str) -> None:
    pool, projection = vision.get("timm_pool", "avg"), vision.get("timm_proj", "linear")
    if "timm_model_name" not in vision or projection not in ("linear", "none") or pool in ("abs_attn", "rot_attn"):
        raise ConfigError(
            f"model.towers: vision_cfg.{key} needs timm_model_name, timm_proj linear or none and one of timm's pools"
        )
    trunk = timm.create_model(vision["timm_model_name"], num_classes=0, global_pool=pool, **kwargs)
    visual.trunk = trunk
    if projection == "linear":
        visual.head.proj = nn.Linear(trunk.num_features, dim, bias=vision.get("timm_proj_bias", False))
    elif trunk.num_features != dim:
        raise ConfigError(
            f"model.towers.embed_dim must be {trunk.num_features}, the width, without timm_proj; got {dim}"
        )


@contextlib.contextmanager
def _as_config_error() -> Iterator[None]:
    try:
        yield
    except ConfigError:
        raise
    except (TypeError, KeyError, ValueError, AssertionError, OSError, RuntimeError) as error:
        raise ConfigError(f"model.towers cannot be built by open_clip: {error}") from error
