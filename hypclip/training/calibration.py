"""Where points lie when training begins: the scales of the lift, set on the first batch."""

from __future__ import annotations

import math

import torch
from pydantic import PositiveFloat
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hypclip.config import STRICT_KEYS
from hypclip.data.batch import Batch
from hypclip.errors import TrainingError
from hypclip.model import HypCLIP
from hypclip.objective import Objective
from hypclip.training import distributed
from hypclip.training.precision import Precision
from hypclip.training.step import embed


@dataclass(frozen=True, config=STRICT_KEYS)
class FirstRadii:
    """The mean √c · radius that pictures and texts begin with.

    Towers begin with features of other lengths each, so that texts may lie further out than their pictures, and what is
    general further out than what is specific.
    """

    image: PositiveFloat
    text: PositiveFloat


@torch.no_grad()
def calibrate(
    wanted: FirstRadii, wrapped: nn.Module, model: HypCLIP, objective: Objective, batch: Batch, precision: Precision
) -> None:
    """Set log_image_scale and log_text_scale so that the first batch has the radii wanted; all processes take part.

    The √c · radius of a point is proportional to the scale. Scales do not exceed 1, the end of their range.

    Raises:
        TrainingError: features that are zero or not finite.
    """
    output = embed(wrapped, batch, objective, precision)
    for kind, radius, scale in (
        ("image", wanted.image, model.log_image_scale),
        ("text", wanted.text, model.log_text_scale),
    ):
        found = [x.flatten(0, -2) for role, x in output.features.items() if kind in role]
        if not found:
            continue
        points = torch.cat(found)
        held = points.any(-1)  # the padding of boxes lies at the origin
        rho = model.metric.radius(points[held] if held.any() else points, output.curv).mean()
        if model.metric.is_hyperbolic:
            rho = rho * output.curv.mean().sqrt()
        rho = _mean(rho)
        if not (rho.isfinite() and rho > 0):
            raise TrainingError(f"the first batch has {kind} features of mean √c · radius {rho.item()}")
        scale.add_(math.log(radius) - rho.log().to(scale)).clamp_(max=0.0)


def _mean(value: Tensor) -> Tensor:
    return distributed.gather_rows(value.view(1, 1)).mean()
