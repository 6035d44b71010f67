"""Reports of a run for people: an image of the radii, and a summary at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from hypclip.files import read_text
from hypclip.geometry.metric import Metric
from hypclip.objective import Loss
from hypclip.training.step import Embedded

_WIDTH, _ROW, _LABEL, _BINS = 480, 60, 90, 60
_BAR, _INK, _PAPER = (64, 96, 160), (30, 30, 30), (255, 255, 255)


def radius_histogram(features: Mapping[str, Tensor], metric: Metric, curv: Tensor) -> NDArray[np.uint8]:
    """Draw histograms of the features' distances to the origin, one row per role on one axis.

    Args:
        features: role → space components (..., D); points at the origin, where a box is missing, are left out.
        metric: of the model.
        curv: of the model.

    Returns:
        Pixels (1, height, width, 3), uint8.
    """
    radii = {role: metric.radius(x.flatten(0, -2), curv).float().cpu().numpy() for role, x in features.items()}
    radii = {role: r[r > 0] for role, r in radii.items()}
    highest = max((float(r.max()) for r in radii.values() if r.size), default=1.0)
    drawn = Image.new("RGB", (_LABEL + _WIDTH + 10, _ROW * len(radii) + 20), _PAPER)
    draw = ImageDraw.Draw(drawn)
    for row, (role, values) in enumerate(radii.items()):
        bottom = _ROW * (row + 1)
        counts, _ = np.histogram(values, bins=_BINS, range=(0.0, highest))
        for place, height in enumerate((counts / max(1, counts.max()) * (_ROW - 12)).astype(int)):
            left = _LABEL + place * _WIDTH // _BINS
            draw.rectangle([left, bottom - height, left + _WIDTH // _BINS - 1, bottom], fill=_BAR)
        draw.text((4, bottom - 24), role, fill=_INK)
    draw.text((_LABEL, _ROW * len(radii) + 4), "0", fill=_INK)
    draw.text((_LABEL + _WIDTH - 30, _ROW * len(radii) + 4), f"{highest:.3g}", fill=_INK)
    return np.asarray(drawn)[None]


def summary(output_dir: Path, step: int, elapsed_s: float) -> str:
    """Summarise a finished run from its log: time, speed, losses, curvature, scores, warnings."""
    lines = [json.loads(line) for line in read_text(output_dir / "metrics.jsonl").splitlines()]
    if not lines:
        return f"finished: {step} steps; the model is in {output_dir / 'checkpoint'}"
    first, last = lines[0], lines[-1]
    rates = sorted(line["samples_per_s"] for line in lines)
    scores = [f"  {name} {_number(value)}" for name, value in last.items() if name.endswith(("_r1", "/top1"))]
    warnings = sorted({warning for line in lines for warning in line["warnings"]})
    skipped = sorted(last["skipped"].items(), key=lambda item: -item[1])
    reasons = f" ({', '.join(f'{reason} {count}' for reason, count in skipped)})" if skipped else ""
    total = sum(count for _, count in skipped)
    return "\n".join(
        [
            f"finished: {step} steps, this time in {elapsed_s / 60:.1f} min, {rates[len(rates) // 2]:.0f} samples/s; "
            f"the model is in {output_dir / 'checkpoint'}",
            f"  loss {_number(first['loss'])} → {_number(last['loss'])}, curv {_number(last['curv'])}, "
            f"logit_scale {_number(last['logit_scale'])}, {total} bad samples passed over{reasons}",
            *scores,
            *(f"  a part is lost of the damaged shard {shard}: {why}" for shard, why in last["damaged_shards"].items()),
            *(f"  warning: {warning}" for warning in warnings),
        ]
    )


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def non_finite(step: int, loss: Loss, seen: Embedded, logit_scale: float, norm: Tensor | None = None) -> str:
    """Return the message about a loss, or a gradient norm, that is not a finite number."""
    parts = ", ".join(f"{name} {value.item():.4g}" for name, value in loss.parts.items())
    norms = ", ".join(f"{role} {x.norm(dim=-1).max().item():.4g}" for role, x in seen.features.items())
    what = "loss" if norm is None else f"gradient norm ({norm.item()})"
    return (
        f"non-finite {what} at step {step}, before the update: loss {loss.loss.item():.4g}; parts: {parts}; "
        f"curv {seen.curv.mean().item():.4g}, logit_scale {logit_scale:.4g}; largest norms: {norms}. "
        "The last checkpoint is intact; lower train.learning_rate or use train.precision=fp32"
    )
