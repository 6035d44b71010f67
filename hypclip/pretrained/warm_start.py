"""Start from a trained CLIP: its towers are kept, the curvature and the scales of the lift are new.

A source is one of
- an open_clip model and tag, "ViT-B-32/laion2b_s34b_b79k", downloaded and cached as open_clip does;
- a checkpoint file of open_clip, with the name or the written-out config of its towers;
- a directory in which transformers saved a CLIPModel or a SiglipModel.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hypclip.checkpoint import misfits
from hypclip.errors import CheckpointError, ConfigError, first_few
from hypclip.geometry import product
from hypclip.model import LOG_SCALE_RANGE, HypCLIP, ModelConfig
from hypclip.pretrained.clip_sources import PretrainedClip, read_directory
from hypclip.towers.build import tower_config
from hypclip.towers.layout import layout

_TEXT_AT_THE_ROOT = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection")
_NOT_WEIGHTS = {"logit_bias", "attn_mask", "text.attn_mask", "text.transformer.embeddings.position_ids"}
_FREE_SETTINGS = {
    "patch_dropout",
    "timm_drop",
    "timm_drop_path",
    "timm_model_pretrained",
    "hf_model_pretrained",
    "hf_model_name",
    "hf_tokenizer_name",
    "tokenizer_kwargs",
    "output_tokens",
}
"""Settings of a tower that may differ from the source's: they change training or where files are, not features."""
_CAPTIONS = (
    "a photo of a dog",
    "two people ride bicycles along the river",
    "a red car parked in front of an old house",
    "food",
    "a painting of mountains under a cloudy sky",
    "a close-up of yellow flowers in a garden",
    "children playing football on the beach at sunset",
    "a cup of coffee on a wooden table",
)


def read_clip(source: str | Path, towers: str | Mapping[str, Any] | None = None) -> PretrainedClip:
    """Read a trained CLIP.

    Args:
        source: see the top of this file.
        towers: for a checkpoint file only, the name of an open_clip model config or such a config written out.

    Raises:
        ConfigError: no such source, or one that lacks or does not take `towers`.
        CheckpointError: damaged, or not of the towers it should be of.
    """
    path = Path(source)
    if path.is_dir():
        _refuse_towers(source, towers)
        return read_directory(path)
    if path.is_file():
        if towers is None:
            raise ConfigError(
                f"{path} does not say what its towers are: give towers, the name of an open_clip model config "
                "or one written out"
            )
        return _from_state(str(path), _plain_config(towers), _read_state(path))
    name, slash, tag = str(source).rpartition("/")
    if not slash or open_clip.get_model_config(name) is None:
        raise ConfigError(
            f"cannot start from {str(source)!r}: expected an open_clip model and tag such as "
            "ViT-B-32/laion2b_s34b_b79k, a checkpoint file of open_clip, or a directory of transformers; there is no "
            "such file, directory or model"
        )
    _refuse_towers(source, towers)
    return _read_tag(name, tag)


def load_towers(
    model: HypCLIP, clip: PretrainedClip, *, keep_logit_scale: bool = False, calibrate: bool = True
) -> list[str]:
    """Fill the towers of a model with the weights of a trained CLIP.

    The projection is kept where both have the same embed_dim and stays as it is, new, where they have not. With
    `calibrate` the scales of the lift are set so that the tangent vectors have a mean length of 1, as those of a fresh
    model have (see `calibrate_scales`). The curvature stays the config's.

    Args:
        model: a model of the same towers, but for embed_dim.
        clip: what `read_clip` returned.
        keep_logit_scale: take over the source's inverse temperature, within the range that training keeps it in.
        calibrate: set the scales of the lift.

    Returns:
        The names of the towers' tensors that are new.

    Raises:
        ConfigError: the model's config asks other towers or pixel statistics than the source's.
        CheckpointError: the source's weights are not of its towers. The message names the first that do not fit.
    """
    _compare(model.config, clip)
    if keep_logit_scale and clip.log_logit_scale is None:
        raise ConfigError(f"{clip.source} has no logit_scale to keep: set keep_logit_scale to false")
    same_dim = model.dim == clip.towers["embed_dim"]
    image = _fit(model.image_tower, "image_tower", clip.image, same_dim, clip.source)
    text = _fit(model.text_tower, "text_tower", clip.text, same_dim and clip.has_text_head, clip.source)
    new: list[str] = []
    for name, tower, state in (("image_tower", model.image_tower, image), ("text_tower", model.text_tower, text)):
        new += [f"{name}.{key}" for key in tower.load_state_dict(state, strict=False).missing_keys]
    if keep_logit_scale and clip.log_logit_scale is not None:
        low, high = LOG_SCALE_RANGE
        with torch.no_grad():
            model.log_logit_scale.fill_(min(max(clip.log_logit_scale, low), high))
    if calibrate and model.metric.has_cones:
        calibrate_scales(model)
    return new


@torch.no_grad()
def calibrate_scales(model: HypCLIP, pixels: Tensor | None = None, tokens: Tensor | None = None) -> None:
    """Set log_image_scale and log_text_scale so that the tangent vectors of a batch have a mean length of 1.

    A fresh model has that length by design (see Metric.initial_log_scale), each factor of a product; the features of
    a trained CLIP have any length, about 10 for CLIP. Scales do not exceed 1, the end of their range.

    Args:
        model: its towers are measured in evaluation mode.
        pixels: normalised, (B, 3, H, W); 8 images of normal noise where not given.
        tokens: of texts; 8 captions where not given.

    Raises:
        CheckpointError: features that are zero or not finite.
    """
    if pixels is None:
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(8, 3, model.image_size, model.image_size, generator=generator)
    if tokens is None:
        tokens = model.tokenizer(_CAPTIONS)
    for tower, inputs, scale in (
        (model.image_tower, pixels, model.log_image_scale),
        (model.text_tower, tokens, model.log_text_scale),
    ):
        training = [(module, module.training) for module in tower.modules()]
        features = tower.eval()(inputs.to(model.device)).float()
        for module, was in training:
            module.training = was
        if model.config.factor_dim is not None:
            features = product.split(features, model.config.factor_dim)
        length = features.norm(dim=-1).mean(0)
        if not bool((length.isfinite() & (length > 0)).all()):
            raise CheckpointError(f"the tower {type(tower).__name__} gives features of length {length.tolist()}")
        scale.copy_((-length.log()).clamp(max=0.0))


# Reading --------------------------------------------------------------------------------------------------------------


def _refuse_towers(source: str | Path, towers: object) -> None:
    if towers is not None:
        raise ConfigError(f"{source} says what its towers are: give towers for a checkpoint file only")


def _read_tag(name: str, tag: str) -> PretrainedClip:
    settings = get_pretrained_cfg(name, tag)
    if not settings:
        known = ", ".join(list_pretrained_tags_by_model(name)) or "none"
        raise ConfigError(f"open_clip has no weights {tag!r} of {name}; it has {known}")
    try:
        file = Path(download_pretrained(settings))
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"open_clip cannot download {name}/{tag}: {error}") from error
    towers = _plain_config(name)
    if settings.get("quick_gelu"):
        towers["quick_gelu"] = True
    clip = _from_state(f"{name}/{tag}", towers, _read_state(file))
    return replace(clip, image_mean=tuple(settings["mean"]), image_std=tuple(settings["std"]))


def _plain_config(towers: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return a config that hypclip can hold and that downloads no weights by itself."""
    config: Any = open_clip.get_model_config(towers) if isinstance(towers, str) else copy.deepcopy(dict(towers))
    if config is None:
        tower_config(str(towers))  # says what is wrong
    if "multimodal_cfg" in config:
        raise ConfigError(f"{towers} is a CoCa model: its caption decoder has no place in a HypCLIP")
    for name in ("init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"):
        config.pop(name, None)
    plain = tower_config(config)
    if plain["vision_cfg"].get("timm_model_name"):
        plain["vision_cfg"]["timm_model_pretrained"] = False
    if plain["text_cfg"].get("hf_model_name"):
        plain["text_cfg"]["hf_model_pretrained"] = False
    return plain


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"cannot read {path} as weights of open_clip, a .safetensors file or one that torch reads without running "
            f"code: {error}"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no state_dict of tensors by name")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _from_state(source: str, towers: dict[str, Any], state: Mapping[str, Tensor]) -> PretrainedClip:
    image: dict[str, Tensor] = {}
    text: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key.startswith("visual."):
            image[key.removeprefix("visual.")] = tensor
        elif key.startswith(_TEXT_AT_THE_ROOT):
            text[key] = tensor
        elif key.startswith("text.") and key not in _NOT_WEIGHTS:
            text[key.removeprefix("text.")] = tensor
        elif key != "logit_scale" and key not in _NOT_WEIGHTS:
            raise CheckpointError(
                f"{source}: {key} is neither of an image tower (visual.…) nor of a text tower (text.…): this is no "
                "two-tower model of open_clip"
            )
    scale = state.get("logit_scale")
    log_logit_scale = None if scale is None else float(scale.flatten()[0])
    return PretrainedClip(source, towers, image, text, log_logit_scale=log_logit_scale)


# Comparing ------------------------------------------------------------------------------------------------------------


def _compare(config: ModelConfig, clip: PretrainedClip) -> None:
    ours, theirs = _settings(tower_config(config.towers)), _settings(clip.towers)
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            raise ConfigError(
                f"model.towers.{key} is {ours.get(key)!r} and that of {clip.source} is {theirs.get(key)!r}: "
                "give the model the towers of its source"
            )
    for name in ("image_mean", "image_std"):
        mine: Sequence[float] = getattr(config, name)
        its: Sequence[float] | None = getattr(clip, name)
        if its is not None and any(abs(a - b) > 1e-4 for a, b in zip(mine, its, strict=True)):
            raise ConfigError(
                f"model.{name} is {list(mine)} and {clip.source} was trained with {list(its)}: set model.{name} to that"
            )


def _settings(towers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that decide the features of towers, defaults written out, by dotted key."""
    vision = {**asdict(CLIPVisionCfg()), **towers["vision_cfg"]}
    text = {**asdict(CLIPTextCfg()), **towers["text_cfg"]}
    if vision["timm_model_name"]:
        native = {"layers", "width", "head_width", "mlp_ratio", "patch_size"}
        vision = {k: v for k, v in vision.items() if k not in native}
    parts = {"vision_cfg": vision, "text_cfg": text}
    settings = {f"{part}.{k}": v for part, kept in parts.items() for k, v in kept.items() if k not in _FREE_SETTINGS}
    return {**settings, "quick_gelu": bool(towers.get("quick_gelu", False))}


def _fit(tower: nn.Module, name: str, state: Mapping[str, Tensor], kept_head: bool, source: str) -> dict[str, Tensor]:
    """Return the part of a state that the tower takes: all of it, or all but the projection to embed_dim."""
    expected = tower.state_dict()
    where = layout(tower)
    head = where.head if where else ("attnpool.c_proj.", "head.", "proj.")
    if not kept_head and not any(key.startswith(head) for key in expected):
        raise ConfigError(
            f"the {name} of {source} has no projection that could be new: give model.towers its embed_dim"
        )
    wanted = {k: v for k, v in expected.items() if kept_head or not k.startswith(head)}
    given = {k: v for k, v in state.items() if kept_head or not k.startswith(head)}
    if problems := misfits(*({f"{name}.{k}": v for k, v in part.items()} for part in (given, wanted))):
        raise CheckpointError(f"{source} holds other towers than this model: {first_few(problems)}")
    return given
