"""The ways to run a model's towers."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from hypclip import HypCLIP

BackendKind: TypeAlias = Literal["torch", "compile", "onnx"]
Precision: TypeAlias = Literal["float32", "bfloat16", "int8"]


class Backend(Protocol):
    def text(self, tokens: Tensor) -> Tensor: ...
    def image(self, pixels: Tensor) -> Tensor: ...


class _Torch:
    def __init__(self, model: HypCLIP):
        self.model = model

    @torch.inference_mode()
    def text(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)

    @torch.inference_mode()
    def image(self, pixels: Tensor) -> Tensor:
        mean = torch.tensor(self.model.config.image_mean).view(3, 1, 1)
        std = torch.tensor(self.model.config.image_std).view(3, 1, 1)
        return self.model.encode_image((pixels.float().div(255)).sub(mean).div(std))


def load_backend(model: HypCLIP, kind: BackendKind = "torch", precision: Precision = "float32") -> Backend:
    return _Torch(model)
