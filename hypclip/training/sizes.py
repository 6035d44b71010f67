"""Sizes of images that an image tower takes."""

from __future__ import annotations

import torch

from hypclip.errors import ConfigError
from hypclip.model import HypCLIP


def check_sizes(model: HypCLIP, box_size: int | None) -> None:
    """Refuse images of a size that the image tower does not take, before any data is read.

    Raises:
        ConfigError: the size of the model's images, or of boxes where it is given.
    """
    for size in dict.fromkeys((model.image_size, box_size or model.image_size)):
        try:
            with torch.no_grad():
                model.image_tower.eval()(torch.zeros(1, 3, size, size))
        except (RuntimeError, AssertionError, ValueError) as error:
            if size == model.image_size:
                raise ConfigError(
                    f"model.towers: the image tower does not take images of {size} pixels, its "
                    f"vision_cfg.image_size ({error}): for a tower of timm set img_size in timm_model_kwargs too"
                ) from error
            raise ConfigError(
                f"data.box_size is {size} and the image tower takes images of {model.image_size} pixels only "
                f"({error}): leave it out, or, for a tower of timm that can, set dynamic_img_size in "
                "vision_cfg.timm_model_kwargs"
            ) from error
    model.image_tower.train()
