"""Hugging Face directories, and the classes that load them: importing this module teaches the Auto classes `hypclip`.

    import hypclip.export.huggingface
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    classify = pipeline("zero-shot-image-classification", model=folder)

A directory holds data only, no code. Only hypclip.export and hypclip.pretrained.clip_sources import
transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hypclip.checkpoint import atomic_directory, say_what_is_assumed
from hypclip.config import build
from hypclip.errors import CheckpointError, InputError, MissingExtraError, first_few
from hypclip.geometry.entailment import Entailment
from hypclip.model import HypCLIP, ModelConfig
from hypclip.towers.build import tower_config

try:
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModel,
        AutoModelForZeroShotImageClassification,
        AutoProcessor,
        AutoTokenizer,
        PreTrainedConfig,
        PreTrainedModel,
    )
    from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES
    from transformers.utils import ModelOutput

    from hypclip.export.processing import (
        HypCLIPImageProcessor,
        HypCLIPProcessor,
        HypCLIPTokenizer,
        require_own_tokenizer,
    )
except ImportError as error:
    raise MissingExtraError(
        f"hypclip.export.huggingface: {error}: it comes with an extra, run pip install 'hypclip[hf]'"
    ) from error


def export_huggingface(model: HypCLIP, folder: Path) -> None:
    """Write a directory for AutoModel, AutoProcessor and pipelines; it appears whole, and replaces one of its name.

    It has config.json, model.safetensors, processor_config.json and tokenizer_config.json.

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
            raise CheckpointError(f"{model.name_or_path} holds other towers than its config: {first_few(problems)}")
        for name, value in model._unsaved.items():
            model.hypclip.get_buffer(name).copy_(value)
        for name in model._fixed:  # loaded as one to learn
            model.hypclip.get_parameter(name).requires_grad_(False)
        if model.hypclip.metric.has_cones and "entailment" not in model.config.model:
            say_what_is_assumed(model.name_or_path)
        return (model, info) if with_info else model

    def get_image_features(self, pixel_values: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n d"]:
        """Embed normalised pixels; float32 space components.

        Raises:
            InputError: the images have another size than the model's.
        """
        size = self.hypclip.image_size
        if pixel_values.shape[-2:] != (size, size):
            raise InputError(f"pixel_values must be {size} by {size} pixels, got {tuple(pixel_values.shape)}")
        return self.hypclip.encode_image(pixel_values.to(next(self.hypclip.image_tower.parameters()).dtype))

    def get_text_features(
        self, input_ids: Int[Tensor, "n length"], attention_mask: Int[Tensor, "n length"] | None = None
    ) -> Float[Tensor, "n d"]:
        """Embed token ids; float32 space components.

        Args:
            input_ids: rows of the tokenizer.
            attention_mask: what CLIP's tokenizer gives besides; nothing reads it, since the end of a text is its
                end-of-text token, and no token sees those after it.

        Raises:
            InputError: the rows are longer than the context.
        """
        context = self.hypclip.tokenizer.context_length
        if input_ids.shape[-1] > context:
            raise InputError(
                f"input_ids has rows of {input_ids.shape[-1]} tokens, and the context is {context}: "
                "leave truncation to the tokenizer"
            )
        return self.hypclip.encode_text(input_ids)

    def forward(
        self,
        input_ids: Int[Tensor, "m length"] | None = None,
        pixel_values: Float[Tensor, "n 3 height width"] | None = None,
        attention_mask: Int[Tensor, "m length"] | None = None,
        return_dict: bool = True,
    ) -> HypCLIPOutput | tuple[Tensor, ...]:
        """Embed texts and images and compare all with all; there is no loss (see hypclip.objective).

        Raises:
            InputError: texts or images are missing.
        """
        if input_ids is None or pixel_values is None:
            missing = "input_ids" if input_ids is None else "pixel_values"
            raise InputError(
                f"forward compares texts with images and got no {missing}: for one kind alone call "
                "get_text_features(input_ids) or get_image_features(pixel_values)"
            )
        image, text = self.get_image_features(pixel_values), self.get_text_features(input_ids, attention_mask)
        logits = self.hypclip.similarity(image, text) * self.hypclip.logit_scale
        output = HypCLIPOutput(logits_per_image=logits, logits_per_text=logits.T, text_embeds=text, image_embeds=image)
        return output if return_dict else output.to_tuple()

    def entails(
        self,
        general: Float[Tensor, "n d"],
        specific: Float[Tensor, "m d"],
        entailment: Entailment | None = None,
    ) -> Bool[Tensor, "n m"]:
        """Return whether each of the first is more general than each of the second, by the rule in config.json.

        Args:
            general: features (N, D) of texts or images.
            specific: features (M, D).
            entailment: another rule, a Cone or a Plane of hypclip.geometry.entailment.

        Raises:
            InputError: they are no features of the model's, or the rule is none.
            ConfigError: the model lives on the sphere, where no point is more general than another.
        """
        return self.hypclip.entails(general, specific, entailment)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HypCLIPForHub:
        """Move and convert, as `half` and `to` do, but for the learned scalars, which stay float32."""
        exact = {name: p.detach() for name, p in self.named_parameters() if name.rpartition(".")[2].startswith("log_")}
        super()._apply(fn, recurse)
        for name, before in exact.items():
            parameter = self.get_parameter(name)
            if parameter.dtype in (torch.float16, torch.bfloat16):
                parameter.data = before.to(parameter.device)
        return self

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Leave every weight as HypCLIP made it."""


def _model_config(data: dict[str, Any]) -> ModelConfig:
    config = build(ModelConfig, data, "model")
    require_own_tokenizer(tower_config(config.towers)["text_cfg"])
    return config


def _processor(model: HypCLIP) -> HypCLIPProcessor:
    text_cfg = tower_config(model.config.towers)["text_cfg"]
    images = HypCLIPImageProcessor(model.image_size, model.config.image_mean, model.config.image_std)
    return HypCLIPProcessor(images, HypCLIPTokenizer(text_cfg))


AutoConfig.register(HypCLIPConfig.model_type, HypCLIPConfig)
AutoModel.register(HypCLIPConfig, HypCLIPForHub)
AutoModelForZeroShotImageClassification.register(HypCLIPConfig, HypCLIPForHub)
AutoProcessor.register(HypCLIPConfig, HypCLIPProcessor)
AutoTokenizer.register(HypCLIPConfig, slow_tokenizer_class=HypCLIPTokenizer)
AutoImageProcessor.register(HypCLIPConfig, image_processor_classes={"pil": HypCLIPImageProcessor})
# The pipeline looks here for the name of the class before it says that the model is not supported.
MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES[HypCLIPConfig.model_type] = HypCLIPForHub.__name__
