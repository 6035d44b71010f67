"""Preprocessing of texts and images in the classes of transformers: tokenizer, image processor, and both in one.

They give what `HypCLIP.tokenizer` and `HypCLIP.transform` give, with the arguments that CLIP's have in transformers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BaseImageProcessor, BatchFeature, ProcessorMixin, PythonBackend
from transformers.processing_utils import ImagesKwargs, TextKwargs

from hypclip.client.rgb import from_array, to_rgb
from hypclip.errors import CheckpointError, ConfigError, InputError
from hypclip.towers.image import evaluation_transform
from hypclip.towers.text import Tokenizer


class HypCLIPTokenizer(PythonBackend):  # type: ignore[misc]
    """A model's tokenizer: CLIP's ids, and rows that are never longer than the context unless truncation is False.

    Text is data, as everywhere in hypclip: `<end_of_text>` in a text is read as ordinary characters.

    Args:
        text_cfg: the open_clip text config, of which the tokenizer reads its context length.
        kwargs: those of transformers.

    Raises:
        CheckpointError: there is no text config.
        ConfigError: the text config names a tokenizer of its own.
    """

    model_input_names = ["input_ids"]  # noqa: RUF012 a name that transformers reads; a mask comes when it is asked for
    padding_side = "right"
    truncation_side = "right"

    def __init__(self, text_cfg: dict[str, Any] | None = None, **kwargs: Any):
        if text_cfg is None:
            raise CheckpointError("tokenizer_config.json lacks text_cfg: expected what hypclip wrote there")
        require_own_tokenizer(text_cfg)
        self._tokenizer = Tokenizer(text_cfg)
        self._pieces = self._tokenizer.encoder
        first, last = (self._pieces.decoder[i] for i in (self._pieces.sot_token_id, self._pieces.eot_token_id))
        settings = {
            **kwargs,
            "model_max_length": self._tokenizer.context_length,
            "bos_token": first,
            "eos_token": last,
            "pad_token": self._pieces.decoder[self._tokenizer.pad_id],
            "special_tokens_pattern": "bos_eos",
            "split_special_tokens": True,
            "clean_up_tokenization_spaces": False,
        }
        super().__init__(text_cfg=text_cfg, **settings)

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return len(self._pieces.encoder)

    def get_vocab(self) -> dict[str, int]:
        """Return the id of every token."""
        return dict(self._pieces.encoder)

    def pad(self, encoded_inputs: Any, padding: Any = True, max_length: int | None = None, **kwargs: Any) -> Any:
        """Pad rows as transformers do; rows of a tower that looks at its padding always fill the context.

        Raises:
            InputError: they are to be padded on the left, where a text would get the places of other tokens.
        """
        side = kwargs.get("padding_side") or self.padding_side
        if side != "right" and padding not in (False, "do_not_pad"):
            raise InputError(
                f"padding_side must be 'right', got {side!r}: the model reads texts from the first place on"
            )
        if not self._tokenizer.shortens and padding not in (False, "do_not_pad"):
            padding, max_length = "max_length", self._tokenizer.context_length
        return super().pad(encoded_inputs, padding=padding, max_length=max_length, **kwargs)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write nothing: the vocabulary is CLIP's, which hypclip has."""
        return ()

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join tokens to text."""
        letters = "".join(tokens)
        text = bytes(self._pieces.byte_decoder[letter] for letter in letters).decode("utf-8", errors="replace")
        return text.replace("</w>", " ").strip()

    def _get_padding_truncation_strategies(
        self, padding: Any = False, truncation: Any = None, max_length: int | None = None, **kwargs: Any
    ) -> Any:
        """Truncate to the context of the model unless told not to, also where `max_length` is beyond it."""
        if max_length is not None:
            max_length = min(max_length, self._tokenizer.context_length)
        return super()._get_padding_truncation_strategies(
            padding=padding, truncation=True if truncation is None else truncation, max_length=max_length, **kwargs
        )

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return [self._pieces.decoder[i] for i in self._pieces.encode(text)]

    def _convert_token_to_id(self, token: str) -> int:
        return int(self._pieces.encoder.get(token, self.pad_token_id))

    def _convert_id_to_token(self, index: int) -> str:
        return str(self._pieces.decoder[index])


class HypCLIPImageProcessor(BaseImageProcessor):  # type: ignore[misc]
    """A model's image transform: shortest side resized, centre cropped, normalised.

    Args:
        image_size: side of the images.
        image_mean: of pixel values in [0, 1], by channel.
        image_std: likewise.
        kwargs: those of transformers.

    Raises:
        CheckpointError: one of these is not given.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 a name that transformers reads

    def __init__(
        self,
        image_size: int | None = None,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if image_size is None or image_mean is None or image_std is None:
            given = {"image_size": image_size, "image_mean": image_mean, "image_std": image_std}
            missing = ", ".join(name for name, value in given.items() if value is None)
            raise CheckpointError(f"the image processor lacks {missing}: expected what hypclip wrote in the file")
        self.image_size, self.image_mean, self.image_std = image_size, list(image_mean), list(image_std)
        self.size, self.crop_size = {"shortest_edge": image_size}, {"height": image_size, "width": image_size}

    def __call__(self, images: Any, return_tensors: Any = None, device: Any = None, **kwargs: Any) -> BatchFeature:
        """Return `pixel_values` (N, 3, S, S) float32.

        Args:
            images: an image or any number of them: PIL of any mode, or arrays and tensors (H, W), (H, W, C) or
                (C, H, W), of bytes or of numbers in [0, 1].
            return_tensors: "pt", "np" or, for a list of arrays, None.
            device: where a tensor goes.
            kwargs: what the one transform of the model does anyway, such as do_resize=True.

        Raises:
            InputError: something else than images, an argument that would change the transform.
        """
        own = {
            "size": self.size,
            "crop_size": self.crop_size,
            "image_mean": self.image_mean,
            "image_std": self.image_std,
        }
        other = [name for name, value in kwargs.items() if value is not None and value != own.get(name, True)]
        other += [name for name in kwargs if name not in other and name not in ImagesKwargs.__annotations__]
        if other:
            raise InputError(
                f"the image processor takes no other {', '.join(other)}: the model was trained with one transform, to "
                f"{self.image_size} pixels a side"
            )
        check_tensors(return_tensors)
        transform = evaluation_transform(self.image_size, self.image_mean, self.image_std)
        rows = [transform(to_rgb(image)) for image in _images_of(images)]
        pixels = torch.stack(rows) if rows else torch.empty(0, 3, self.image_size, self.image_size)
        if return_tensors == "pt":
            return BatchFeature({"pixel_values": pixels if device is None else pixels.to(device)})
        return BatchFeature({"pixel_values": pixels.numpy() if return_tensors == "np" else list(pixels.numpy())})

    def preprocess(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """Preprocess images as a call does, under the name that transformers has for it."""
        return self(images, *args, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that are kept in files."""
        settings = {name: getattr(self, name) for name in ("image_size", "image_mean", "image_std")}
        return {"image_processor_type": type(self).__name__, **settings}


class HypCLIPProcessor(ProcessorMixin):  # type: ignore[misc]
    """The tokenizer and the image processor of a model.

    Args:
        image_processor: for images.
        tokenizer: for texts.
    """

    def __init__(self, image_processor: HypCLIPImageProcessor | None = None, tokenizer: HypCLIPTokenizer | None = None):
        super().__init__(image_processor, tokenizer)

    def __call__(self, text: Any = None, images: Any = None, return_tensors: Any = "pt", **kwargs: Any) -> BatchFeature:
        """Return `input_ids` (N, L), cut and padded to the longest row, and `pixel_values` (N, 3, S, S).

        Args:
            text: a string, or any number of them.
            images: see HypCLIPImageProcessor; first and second argument may stand in the other order.
            return_tensors: "pt" or "np".
            kwargs: those of tokenizers of transformers, such as padding, truncation and max_length, which beyond the
                context is the context; `text_kwargs`, `images_kwargs` and `common_kwargs`.

        Raises:
            InputError: neither texts nor images, something else than those, or tensors of another kind.
        """
        if _holds_images(text):
            text, images = images, text
        if text is None and images is None:
            raise InputError("the processor needs text=[...] or images=[...], got neither")
        common = {"return_tensors": return_tensors, **kwargs.pop("common_kwargs", {})}
        check_tensors(common["return_tensors"])
        for_text = {"padding": True, "truncation": True, **common, **kwargs.pop("text_kwargs", {})}
        for_images = {**common, **kwargs.pop("images_kwargs", {})}
        for name, value in kwargs.items():
            if name in TextKwargs.__annotations__:
                for_text[name] = value
            elif name in ImagesKwargs.__annotations__:
                for_images[name] = value
            else:
                raise InputError(f"the processor knows no argument {name!r}")
        data: dict[str, Any] = {}
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            for each in texts:
                if not isinstance(each, str):
                    raise InputError(f"text must be str objects, got {type(each).__name__}")
            data |= self.tokenizer(texts, **for_text) if texts else _no_texts(common["return_tensors"])
        if images is not None:
            data |= self.image_processor(images, **for_images)
        return BatchFeature(data)

    @classmethod
    def _get_arguments_from_pretrained(
        cls, path: Any, processor_dict: dict[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """Refuse a foreign file, for which transformers would look elsewhere and blame the folder."""
        if "image_processor" not in (processor_dict or {}):
            raise CheckpointError("processor_config.json lacks image_processor: expected what hypclip wrote there")
        return super()._get_arguments_from_pretrained(path, processor_dict, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        """Names of the model's inputs that the processor makes."""
        return ["input_ids", "pixel_values"]


def require_own_tokenizer(text_cfg: dict[str, Any]) -> None:
    """Refuse a text config whose tokenizer a Hugging Face directory cannot hold.

    Raises:
        ConfigError: it names a tokenizer of its own.
    """
    if name := text_cfg.get("hf_tokenizer_name"):
        raise ConfigError(
            f"model.towers: text_cfg.hf_tokenizer_name {name!r}: a Hugging Face directory of hypclip holds no "
            "tokenizer but CLIP's; publish the checkpoint directory instead, or export to ONNX"
        )


def check_tensors(kind: Any) -> None:
    """Refuse tensors of another kind than torch's and numpy's.

    Raises:
        InputError: they are.
    """
    if kind not in ("pt", "np", None):
        raise InputError(f"return_tensors must be 'pt' or 'np', got {kind!r}")


def _no_texts(kind: Any) -> dict[str, Any]:
    empty = torch.empty(0, 1, dtype=torch.int64)
    return {"input_ids": {"pt": empty, "np": empty.numpy(), None: []}[kind]}


def _holds_images(value: Any) -> bool:
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSU":  # of strings
        return bool(value.size) and isinstance(value.flat[0], Image.Image)
    kinds = Image.Image | np.ndarray | torch.Tensor
    return isinstance(value, kinds) or (isinstance(value, list | tuple) and bool(value) and isinstance(value[0], kinds))


def _images_of(images: Any) -> list[Image.Image]:
    if isinstance(images, np.ndarray | torch.Tensor):
        images = list(images) if images.ndim == 4 or images.dtype == object else [images]
    if isinstance(images, str | bytes) or not isinstance(images, Image.Image | Iterable):
        images = [images]
    return [_image_of(image) for image in ([images] if isinstance(images, Image.Image) else images)]


def _image_of(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().float().numpy() if image.is_floating_point() else image.cpu().numpy()
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"images must be Image objects, got {type(image).__name__}: open files first; arrays and tensors of pixels "
            "are taken too"
        )
    wanted = "(height, width), (height, width, 1, 3 or 4) or (1, 3 or 4, height, width)"
    if image.ndim == 3 and image.shape[-1] not in (1, 3, 4) and image.shape[0] in (1, 3, 4):
        image = image.transpose(1, 2, 0)
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[-1] not in (1, 3, 4)) or not image.size:
        raise InputError(f"an array of pixels must be {wanted}, got {image.shape}")
    if np.issubdtype(image.dtype, np.floating):
        if not (image.min() >= 0 and image.max() <= 1):  # also where one is not a number
            raise InputError("an array of numbers must hold pixel values in [0, 1]; those of 0 to 255 are bytes, uint8")
        image = np.rint(image * 255).astype(np.uint8)
    try:
        return from_array(image)
    except ValueError as error:
        raise InputError(f"an array of pixels: {error}") from error
