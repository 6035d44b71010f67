"""Calibration by measuring: the radii of points when training begins, the threshold of half-spaces when it ends."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from pydantic import PositiveFloat
from pydantic.dataclasses import dataclass
from torch import nn

from hypclip import distributed
from hypclip.config import STRICT_KEYS
from hypclip.data.batch import Batch
from hypclip.errors import TrainingError
from hypclip.geometry.entailment import Plane, pairwise_score
from hypclip.model import HypCLIP
from hypclip.objective import Objective
from hypclip.taxonomy import Taxonomy
from hypclip.taxonomy.calibration import Pairing, best_threshold
from hypclip.training.precision import Precision
from hypclip.training.step import embed

SLACK = 0.01
"""What a calibrated threshold may lose in F1 on phrases that training knew, to hold more of those it did not."""


@dataclass(frozen=True, config=STRICT_KEYS)
class FirstRadii:
    """The mean √c · radius that images and texts begin with.

    Towers begin with features of other lengths each, so that texts may lie further out than their images, and what is
    general further out than what is specific.

    Args:
        image: that of images.
        text: that of texts.
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
        rho = distributed.gather_rows(rho.view(1, 1)).mean()
        if not (rho.isfinite() and rho > 0):
            raise TrainingError(f"the first batch has {kind} features of mean √c · radius {rho.item()}")
        scale.add_(math.log(radius) - rho.log().to(scale)).clamp_(max=0.0)


@torch.no_grad()
def calibrate_threshold(model: HypCLIP, taxonomy: Taxonomy) -> None:
    """Set the threshold of the model's half-spaces by F1 on the pairs of a taxonomy, see `best_threshold`.

    A pair is a phrase and one that stands above another; it is true where the second stands above the first. Of a
    taxonomy of more than `MOST_PHRASES` a fixed sample of phrases takes part, with all that stands above them.
    """
    rule = model.config.entailment
    assert isinstance(rule, Plane)
    pairing = Pairing.of(taxonomy)
    x = model.embed_text(pairing.phrases).double()
    score = pairwise_score(Plane(), x[pairing.above], x, model.metric, model.curv.detach().cpu())
    threshold = best_threshold(score[pairing.other], pairing.true[pairing.other], SLACK)
    model.config = replace(model.config, entailment=replace(rule, threshold=threshold))
