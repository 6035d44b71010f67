"""The weights of an ordinary CLIP, as transformers saved it: a CLIPModel or SiglipModel, or BERT for the text.

The towers become those of open_clip, tensor by tensor, with equal features.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from open_clip.hf_configs import arch_dict
from safetensors import SafetensorError
from torch import Tensor

from hypclip.errors import CheckpointError, ConfigError
from hypclip.files import read_text
from hypclip.model import ModelConfig

_CLIP_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_TIMM_BLOCK = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "self_attn.out_proj": "attn.proj",
}


@dataclass(frozen=True)
class PretrainedClip:
    """A trained CLIP whose embeddings lie in flat space: its towers as open_clip builds them, and their weights.

    `towers` is an open_clip config written out; `image_mean`, `image_std` and `log_logit_scale` are None where the
    source does not say; `has_text_head` is whether `text` has a projection to embed_dim.
    """

    source: str
    towers: dict[str, Any]
    image: dict[str, Tensor]
    text: dict[str, Tensor]
    image_mean: tuple[float, ...] | None = None
    image_std: tuple[float, ...] | None = None
    log_logit_scale: float | None = None
    has_text_head: bool = True

    def model_config(self, embed_dim: int | None = None, **settings: Any) -> ModelConfig:
        """Return the config of a HypCLIP with these towers and pixel statistics; `settings` are ModelConfig's."""
        pixels = {"image_mean": self.image_mean, "image_std": self.image_std}
        known = {name: list(values) for name, values in pixels.items() if values is not None}
        towers = copy.deepcopy(self.towers)
        towers["embed_dim"] = embed_dim or towers["embed_dim"]
        return ModelConfig(**{"towers": towers, **known, **settings})


class _Keys:
    """The tensors of a state, each taken once, so that those which nothing took can be named."""

    def __init__(self, source: Path, state: Mapping[str, Tensor]):
        self.source, self.left = source, dict(state)

    def take(self, key: str) -> Tensor:
        if key not in self.left:
            raise CheckpointError(f"{self.source} has no {key}, which its config calls for")
        return self.left.pop(key)

    def layer(self, theirs: str, ours: str) -> dict[str, Tensor]:
        return {f"{ours}.{kind}": self.take(f"{theirs}.{kind}") for kind in ("weight", "bias")}

    def blocks(
        self, theirs: str, ours: str, count: int, names: Mapping[str, str], attention: tuple[str, str]
    ) -> dict[str, Tensor]:
        """Take `count` blocks; `attention` are the names of the joint weight and bias of query, key and value."""
        taken: dict[str, Tensor] = {}
        for i in range(count):
            for old, new in names.items():
                taken |= self.layer(f"{theirs}.{i}.{old}", f"{ours}.{i}.{new}")
            for kind, joint in zip(("weight", "bias"), attention, strict=True):
                three = [self.take(f"{theirs}.{i}.self_attn.{x}_proj.{kind}") for x in "qkv"]
                taken[f"{ours}.{i}.{joint}"] = torch.cat(three)
        return taken

    def finish(self) -> None:
        self.left = {key: tensor for key, tensor in self.left.items() if not key.endswith(".position_ids")}
        if self.left:
            raise CheckpointError(f"{self.source} has tensors that no tower has a place for: {sorted(self.left)[:3]}")


def read_directory(folder: Path) -> PretrainedClip:
    """Read the CLIPModel or SiglipModel that transformers saved in a directory.

    Raises:
        ConfigError: a model of another kind, or with settings that open_clip's towers have not.
        CheckpointError: the directory cannot be read, or does not hold the tensors of its config.
    """
    kind = _read_json(folder / "config.json").get("model_type")
    match kind:
        case "clip":
            return _from_clip(folder, _load(folder, transformers.CLIPModel))
        case "siglip":
            return _from_siglip(folder, _load(folder, transformers.SiglipModel))
    raise ConfigError(
        f"{folder} holds a model of type {kind!r}; of transformers, both towers come from a CLIPModel or a SiglipModel "
        "(types clip and siglip), a text tower alone by warm_start.text_model"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}, the config of a directory of transformers: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a mapping, got {type(content).__name__}")
    return content


def _load(folder: Path, kind: Any, *, ignored: tuple[str, ...] = (), **settings: Any) -> Any:
    """Load a model of transformers in float32 and refuse one of which tensors are missing, left over or misshapen."""
    try:
        model, info = kind.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32, **settings
        )
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"transformers cannot read {folder}: {error}") from error
    problems = [f"{key} is missing" for key in sorted(info["missing_keys"])]
    problems += [f"{key} is not of the model" for key in sorted(info["unexpected_keys"]) if not key.startswith(ignored)]
    problems += [f"{key} has another shape" for key in sorted(map(str, info["mismatched_keys"]))]
    if problems:
        raise CheckpointError(f"{folder} does not hold the model of its config: {'; '.join(problems[:3])}")
    return model


def _pixels(folder: Path) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return mean and standard deviation of the pixels, where the directory says."""
    path = folder / "preprocessor_config.json"
    settings = _read_json(path) if path.is_file() else {}
    mean, std = (tuple(settings[name]) if name in settings else None for name in ("image_mean", "image_std"))
    return mean, std


def _activation(folder: Path, *configs: Any) -> tuple[bool, dict[str, Any]]:
    """Return quick_gelu and the act_kwargs of open_clip for the activation that both towers have."""
    names = {config.hidden_act for config in configs}
    match names:
        case _ if names == {"quick_gelu"}:
            return True, {}
        case _ if names == {"gelu"}:
            return False, {}
        case _ if names <= {"gelu_pytorch_tanh", "gelu_new"}:
            return False, {"act_kwargs": {"approximate": "tanh"}}
    raise ConfigError(
        f"{folder}: hidden_act must be one of quick_gelu, gelu and gelu_pytorch_tanh, the same in both, got "
        f"{sorted(names)}"
    )


def _transformer_cfg(config: Any) -> dict[str, Any]:
    eps = config.layer_norm_eps
    return {
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        **({} if eps == 1e-5 else {"norm_kwargs": {"eps": eps}}),
    }


def _from_clip(folder: Path, model: Any) -> PretrainedClip:
    vision, text = model.config.vision_config, model.config.text_config
    quick_gelu, activation = _activation(folder, vision, text)
    pooling: dict[str, Any] = {}
    if text.eos_token_id not in (2, text.vocab_size - 1):
        pooling = {"pool_type": "eos", "eos_id": text.eos_token_id}
    towers = {
        "embed_dim": model.config.projection_dim,
        "quick_gelu": quick_gelu,
        "vision_cfg": {
            **_transformer_cfg(vision),
            **activation,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
        },
        "text_cfg": {
            **_transformer_cfg(text),
            **activation,
            **pooling,
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "heads": text.num_attention_heads,
        },
    }
    keys = _Keys(folder, model.state_dict())
    joint = ("attn.in_proj_weight", "attn.in_proj_bias")
    seen = "vision_model."
    image = {
        "class_embedding": keys.take(f"{seen}embeddings.class_embedding"),
        "conv1.weight": keys.take(f"{seen}embeddings.patch_embedding.weight"),
        "positional_embedding": keys.take(f"{seen}embeddings.position_embedding.weight"),
        "proj": keys.take("visual_projection.weight").T,
        **keys.layer(f"{seen}pre_layrnorm", "ln_pre"),
        **keys.layer(f"{seen}post_layernorm", "ln_post"),
        **keys.blocks(f"{seen}encoder.layers", "transformer.resblocks", vision.num_hidden_layers, _CLIP_BLOCK, joint),
    }
    words = {
        **_words(keys, text.num_hidden_layers),
        "text_projection": keys.take("text_projection.weight").T,
    }
    scale = float(keys.take("logit_scale"))
    keys.finish()
    return PretrainedClip(str(folder), towers, image, words, *_pixels(folder), log_logit_scale=scale)


def _words(keys: _Keys, layers: int) -> dict[str, Tensor]:
    """Take the text tower that CLIP and SigLIP share, but for its projection."""
    return {
        "token_embedding.weight": keys.take("text_model.embeddings.token_embedding.weight"),
        "positional_embedding": keys.take("text_model.embeddings.position_embedding.weight"),
        **keys.layer("text_model.final_layer_norm", "ln_final"),
        **keys.blocks(
            "text_model.encoder.layers",
            "transformer.resblocks",
            layers,
            _CLIP_BLOCK,
            ("attn.in_proj_weight", "attn.in_proj_bias"),
        ),
    }


def _from_siglip(folder: Path, model: Any) -> PretrainedClip:
    vision, text = model.config.vision_config, model.config.text_config
    _, activation = _activation(folder, vision, text)
    if not activation:
        raise ConfigError(f"{folder}: hidden_act of a SiglipModel must be gelu_pytorch_tanh, got {vision.hidden_act!r}")
    if not getattr(vision, "vision_use_head", True) or vision.layer_norm_eps != 1e-6:
        raise ConfigError(f"{folder}: a SiglipModel needs its pooling head and layer_norm_eps 1e-6, as timm's ViT has")
    width = vision.hidden_size
    towers = {
        "embed_dim": width,
        "quick_gelu": False,
        "vision_cfg": {
            "image_size": vision.image_size,
            "timm_model_name": "vit_base_patch16_siglip_224",
            "timm_pool": "map",
            "timm_proj": "none",
            "timm_model_kwargs": {
                "img_size": vision.image_size,
                "patch_size": vision.patch_size,
                "embed_dim": width,
                "depth": vision.num_hidden_layers,
                "num_heads": vision.num_attention_heads,
                "mlp_ratio": vision.intermediate_size / width,
                "act_layer": "gelu_tanh",
            },
        },
        "text_cfg": {
            **_transformer_cfg(text),
            **activation,
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "heads": text.num_attention_heads,
            "hf_tokenizer_name": str(folder),
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
    }
    keys = _Keys(folder, model.state_dict())
    seen, pool = "vision_model.", "vision_model.head."
    image = {
        **keys.layer(f"{seen}embeddings.patch_embedding", "trunk.patch_embed.proj"),
        "trunk.pos_embed": keys.take(f"{seen}embeddings.position_embedding.weight").unsqueeze(0),
        **keys.layer(f"{seen}post_layernorm", "trunk.norm"),
        **keys.blocks(
            f"{seen}encoder.layers",
            "trunk.blocks",
            vision.num_hidden_layers,
            _TIMM_BLOCK,
            ("attn.qkv.weight", "attn.qkv.bias"),
        ),
        "trunk.attn_pool.latent": keys.take(f"{pool}probe"),
        **keys.layer(f"{pool}attention.out_proj", "trunk.attn_pool.proj"),
        **keys.layer(f"{pool}layernorm", "trunk.attn_pool.norm"),
        **keys.layer(f"{pool}mlp.fc1", "trunk.attn_pool.mlp.fc1"),
        **keys.layer(f"{pool}mlp.fc2", "trunk.attn_pool.mlp.fc2"),
    }
    for kind in ("weight", "bias"):
        joint = keys.take(f"{pool}attention.in_proj_{kind}")
        image[f"trunk.attn_pool.q.{kind}"] = joint[:width]
        image[f"trunk.attn_pool.kv.{kind}"] = joint[width:]
    words = {**_words(keys, text.num_hidden_layers), **keys.layer("text_model.head", "text_projection")}
    scale = float(keys.take("logit_scale").flatten()[0])
    keys.take("logit_bias")
    keys.finish()
    return PretrainedClip(str(folder), towers, image, words, *_pixels(folder), log_logit_scale=scale)


def with_text_model(
    clip: PretrainedClip, folder: Path, projection: Literal["linear", "mlp"] = "linear"
) -> PretrainedClip:
    """Replace the text tower by a text model in a directory of transformers, such as BERT, with a new projection.

    Args:
        clip: where the image tower comes from.
        folder: config, weights and tokenizer of the text model.
        projection: to embed_dim.

    Raises:
        ConfigError: a text model that open_clip has no text tower for.
        CheckpointError: the directory cannot be read, or lacks tensors of its model.
    """
    kind = str(_read_json(folder / "config.json").get("model_type"))
    if kind not in arch_dict:
        known = ", ".join(sorted(arch_dict))
        raise ConfigError(f"{folder} holds a text model of type {kind!r}; open_clip has towers for {known}")
    heads = ("cls.", "lm_head.", "pooler.", f"{kind}.pooler.", "classifier.", "qa_outputs.")
    model = _load(folder, transformers.AutoModel, ignored=heads, add_pooling_layer=False)
    text_cfg = {
        "context_length": min(77, model.config.max_position_embeddings),
        "hf_model_name": str(folder),
        "hf_model_pretrained": False,
        "hf_tokenizer_name": str(folder),
        "hf_proj_type": projection,
        "hf_pooler_type": "mean_pooler",
    }
    state = {f"transformer.{key}": tensor for key, tensor in model.state_dict().items()}
    return replace(
        clip,
        source=f"{clip.source} with the text model {folder}",
        towers={**clip.towers, "text_cfg": text_cfg},
        text=state,
        log_logit_scale=None,
        has_text_head=False,
    )
