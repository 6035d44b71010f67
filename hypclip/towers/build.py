"""Build the two towers with open_clip, from the name of one of its model configs or from a config written out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import open_clip
import timm
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

    `vision_cfg.timm_model_kwargs` reaches timm.create_model, so that a timm tower can have other widths, depths or
    heads than its name says; open_clip 3.3.0 has no such field.

    Raises:
        ConfigError: open_clip or timm cannot build them.
    """
    vision = dict(config["vision_cfg"])
    kwargs = vision.pop("timm_model_kwargs", None)
    with _as_config_error():
        clip = open_clip.CustomTextCLIP(**{**config, "vision_cfg": vision})
        if kwargs:
            _replace_trunk(clip.visual, vision, config["embed_dim"], kwargs)
    return clip.visual, accept_short_rows(clip.text)


def _replace_trunk(visual: Any, vision: Mapping[str, Any], dim: int, kwargs: Mapping[str, Any]) -> None:
    pool, projection = vision.get("timm_pool", "avg"), vision.get("timm_proj", "linear")
    if "timm_model_name" not in vision or projection != "linear" or pool in ("abs_attn", "rot_attn"):
        raise ConfigError(
            "model.towers: vision_cfg.timm_model_kwargs needs timm_model_name, timm_proj linear and one of timm's pools"
        )
    trunk = timm.create_model(vision["timm_model_name"], num_classes=0, global_pool=pool, **kwargs)
    visual.trunk = trunk
    visual.head.proj = nn.Linear(trunk.num_features, dim, bias=vision.get("timm_proj_bias", False))


@contextlib.contextmanager
def _as_config_error() -> Iterator[None]:
    try:
        yield
    except ConfigError:
        raise
    except (TypeError, KeyError, ValueError, AssertionError, OSError, RuntimeError) as error:
        raise ConfigError(f"model.towers cannot be built by open_clip: {error}") from error
