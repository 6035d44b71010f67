"""Hugging Face directories, and the classes that load them: importing this module teaches the Auto classes `hypclip`.

    import hypclip.export.huggingface
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)

A directory holds data only, no code. Nothing else of hypclip imports transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from hypclip.checkpoint import atomic_directory
from hypclip.config import build
from hypclip.data.picture import to_rgb
from hypclip.errors import CheckpointError, ConfigError, InputError, MissingExtraError, first_few
from hypclip.model import HypCLIP, ModelConfig
from hypclip.towers.build import tower_config
from hypclip.towers.image import evaluation_transform
from hypclip.towers.text import Tokenizer

try:
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoProcessor,
        BatchFeature,
        PreTrainedConfig,
        PreTrainedModel,
        ProcessorMixin,
    )
    from transformers.utils import ModelOutput
except ImportError as error:
    raise MissingExtraError(
        f"hypclip.export.huggingface: {error}: it comes with an extra, run pip install 'hypclip[hf]'"
    ) from error


def export_huggingface(model: HypCLIP, folder: Path) -> None:
    """Write a directory for AutoModel and AutoProcessor; it appears whole, and replaces one of its name.

    It has config.json, model.safetensors and processor_config.json.

    Raises:
        ConfigError: the towers have a tokenizer of their own, which the directory cannot hold.
        OSError: the folder cannot be written.
    """
    config = HypCLIPConfig(asdict(model.config), architectures=[HypCLIPForHub.__name__])
    processor = _processor(model)
    with atomic_directory(folder) as scratch:
        HypCLIPForHub(config, model).save_pretrained(scratch)
        processor.save_pretrained(scratch)


class HypCLIPConfig(PreTrainedConfig):  # type: ignore[misc]
    """A ModelConfig in the form of transformers: `model` has it as plain data."""

    model_type = "hypclip"

    def __init__(self, model: dict[str, Any] | None = None, **kwargs: Any):
        self.model = model or {}
        super().__init__(**kwargs)


@dataclass
class HypCLIPOutput(ModelOutput):  # type: ignore[misc]
    """Embeddings (N, D) and (M, D), space components, and logits, similarity times logit_scale, (N, M) and (M, N)."""

    loss: Tensor | None = None
    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    text_embeds: Tensor | None = None
    image_embeds: Tensor | None = None


class HypCLIPForHub(PreTrainedModel):  # type: ignore[misc]
    """A HypCLIP as transformers saves and loads models; `hypclip` is the model itself.

    Args:
        config: what to build.
        model: a model of this config to wrap instead.

    Raises:
        ConfigError: the config cannot work.
    """

    config_class = HypCLIPConfig
    base_model_prefix = "hypclip"
    main_input_name = "pixel_values"
    # The learned scalars are kept as logs, of which half precision leaves three digits.
    _keep_in_fp32_modules_strict = ["log_"]  # noqa: RUF012 a name that transformers reads

    def __init__(self, config: HypCLIPConfig, model: HypCLIP | None = None):
        super().__init__(config)
        # transformers builds on the meta device, and leaves tensors that are in no file, such as masks, undefined.
        with torch.device("cpu"):
            self.hypclip = HypCLIP(_model_config(config.model)) if model is None else model
        saved = self.hypclip.state_dict().keys()
        self._unsaved = {name: b.clone() for name, b in self.hypclip.named_buffers() if name not in saved}
        self._fixed = [name for name, p in self.hypclip.named_parameters() if not p.requires_grad]
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a model; arguments are those of transformers.

        Raises:
            CheckpointError: a tensor is missing, of another shape, or not of this model.
        """
        with_info = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        problems = [f"{name} is missing" for name in sorted(info["missing_keys"])]
        problems += [f"{name} is not in this model" for name in sorted(info["unexpected_keys"])]
        problems += [f"{entry[0]} has another shape" for entry in sorted(info["mismatched_keys"])]
        if problems:
            raise CheckpointError(f"{args[0]} holds other towers than its config: {first_few(problems)}")
        for name, value in model._unsaved.items():
            model.hypclip.get_buffer(name).copy_(value)
        for name in model._fixed:  # loaded as one to learn
            model.hypclip.get_parameter(name).requires_grad_(False)
        return (model, info) if with_info else model

    def get_image_features(self, pixel_values: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n d"]:
        """Embed normalised pixels; float32 space components."""
        return self.hypclip.encode_image(pixel_values.to(next(self.hypclip.image_tower.parameters()).dtype))

    def get_text_features(self, input_ids: Int[Tensor, "n length"]) -> Float[Tensor, "n d"]:
        """Embed token ids; float32 space components."""
        return self.hypclip.encode_text(input_ids)

    def forward(
        self,
        input_ids: Int[Tensor, "m length"] | None = None,
        pixel_values: Float[Tensor, "n 3 height width"] | None = None,
        return_dict: bool = True,
    ) -> HypCLIPOutput | tuple[Tensor, ...]:
        """Embed texts and pictures and compare all with all; there is no loss (see hypclip.objective).

        Raises:
            InputError: texts or pictures are missing.
        """
        if input_ids is None or pixel_values is None:
            missing = "input_ids" if input_ids is None else "pixel_values"
            raise InputError(
                f"forward compares texts with pictures and got no {missing}: for one kind alone call "
                "get_text_features(input_ids) or get_image_features(pixel_values)"
            )
        image, text = self.get_image_features(pixel_values), self.get_text_features(input_ids)
        logits = self.hypclip.similarity(image, text) * self.hypclip.logit_scale
        output = HypCLIPOutput(logits_per_image=logits, logits_per_text=logits.T, text_embeds=text, image_embeds=image)
        return output if return_dict else output.to_tuple()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Leave every weight as HypCLIP made it."""


class HypCLIPProcessor(ProcessorMixin):  # type: ignore[misc]
    """The tokenizer and the image transform of a model, in the form of transformers.

    Args:
        text_cfg: the open_clip text config, of which the tokenizer reads its context length.
        image_size: side of the pictures.
        image_mean: of pixel values in [0, 1], by channel.
        image_std: likewise.

    Raises:
        ConfigError: the text config names a tokenizer of its own.
    """

    def __init__(
        self, text_cfg: dict[str, Any], image_size: int, image_mean: Sequence[float], image_std: Sequence[float]
    ):
        super().__init__()
        _require_own_tokenizer(text_cfg)
        self.text_cfg, self.image_size = text_cfg, image_size
        self.image_mean, self.image_std = list(image_mean), list(image_std)

    @classmethod
    def from_args_and_dict(cls, args: Sequence[Any], processor_dict: dict[str, Any], **kwargs: Any) -> HypCLIPProcessor:
        """Build the processor of a processor_config.json.

        Raises:
            CheckpointError: the file lacks a setting.
        """
        settings, names = {**processor_dict, **kwargs}, ("text_cfg", "image_size", "image_mean", "image_std")
        if missing := [name for name in names if name not in settings]:
            raise CheckpointError(
                f"processor_config.json lacks {', '.join(missing)}: expected what hypclip wrote there"
            )
        return cls(*(settings[name] for name in names))

    def __call__(
        self,
        text: str | Sequence[Any] | None = None,
        images: Image.Image | Sequence[Any] | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Return `input_ids` (N, L), padded to the longest row, and `pixel_values` (N, 3, S, S), as the model has them.

        Args:
            text: strings.
            images: PIL pictures of any mode and size.
            return_tensors: "pt" or "np".

        Raises:
            InputError: neither texts nor pictures, something else than those, or tensors of another kind.
        """
        if text is None and images is None:
            raise InputError("the processor needs text=[...] or images=[...], got neither")
        if return_tensors not in ("pt", "np"):
            raise InputError(f"return_tensors must be 'pt' or 'np', got {return_tensors!r}")
        data: dict[str, Tensor] = {}
        if text is not None:
            data["input_ids"] = Tokenizer(self.text_cfg)(_listed(text, str, "text"))
        if images is not None:
            transform = evaluation_transform(self.image_size, self.image_mean, self.image_std)
            pictures = [transform(to_rgb(image)) for image in _listed(images, Image.Image, "images")]
            data["pixel_values"] = torch.stack(pictures) if pictures else torch.empty(0, 3, *[self.image_size] * 2)
        return BatchFeature({name: rows.numpy() for name, rows in data.items()} if return_tensors == "np" else data)

    @property
    def model_input_names(self) -> list[str]:
        """What the processor makes for the model."""
        return ["input_ids", "pixel_values"]


def _listed(items: Any, kind: type, name: str) -> list[Any]:
    listed = [items] if isinstance(items, kind) else list(items)
    for item in listed:
        if not isinstance(item, kind):
            raise InputError(f"{name} must be {kind.__name__} objects, got {type(item).__name__}")
    return listed


def _model_config(data: dict[str, Any]) -> ModelConfig:
    config = build(ModelConfig, data, "model")
    _require_own_tokenizer(tower_config(config.towers)["text_cfg"])
    return config


def _processor(model: HypCLIP) -> HypCLIPProcessor:
    text_cfg = tower_config(model.config.towers)["text_cfg"]
    return HypCLIPProcessor(text_cfg, model.image_size, model.config.image_mean, model.config.image_std)


def _require_own_tokenizer(text_cfg: dict[str, Any]) -> None:
    if name := text_cfg.get("hf_tokenizer_name"):
        raise ConfigError(
            f"model.towers: text_cfg.hf_tokenizer_name {name!r}: a Hugging Face directory of hypclip holds no "
            "tokenizer but CLIP's; publish the checkpoint directory instead, or export to ONNX"
        )


AutoConfig.register(HypCLIPConfig.model_type, HypCLIPConfig)
AutoModel.register(HypCLIPConfig, HypCLIPForHub)
AutoProcessor.register(HypCLIPConfig, HypCLIPProcessor)
