"""The picture of the radii, and the summary of a finished run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hypclip.geometry import lorentz
from hypclip.geometry.metric import Metric
from hypclip.training.monitoring.report import radius_histogram, summary

CURV = torch.tensor(1.0)
LORENTZ = Metric("lorentz", "geodesic", None)
BLUE = (64, 96, 160)
ROW, LABEL = 60, 90


def at_radii(*radii: float, curv: float = 1.0) -> Tensor:
    """Points at such distances from the origin, in different directions."""
    tangents = torch.nn.functional.normalize(torch.randn(len(radii), 6), dim=-1) * torch.tensor(radii).unsqueeze(1)
    return lorentz.exp_map0(tangents, torch.tensor(curv))


def bins_of(picture: np.ndarray, row: int) -> list[int]:
    """Return which of the sixty bins of a row have a bar higher than the axis."""
    blue = (picture[0, ROW * row + 1 : ROW * (row + 1), LABEL : LABEL + 480] == BLUE).all(-1).any(0)
    return [place for place in range(60) if blue[8 * place]]


def test_it_is_a_picture_with_a_row_for_each_role():
    picture = radius_histogram(
        {"image": at_radii(1.0), "text": at_radii(2.0), "box_text": at_radii(3.0)}, LORENTZ, CURV
    )
    assert picture.shape == (1, 3 * ROW + 20, LABEL + 480 + 10, 3)
    assert picture.dtype == np.uint8
    assert [bins_of(picture, row) for row in range(3)] == [[20], [40], [59]] or [
        bins_of(picture, row) for row in range(3)
    ] == [[19], [39], [59]]  # the edge of a bin, which rounding decides


def test_bars_stand_at_the_radii_whatever_the_curvature():
    for curv in (0.3, 4.0):
        points = {"image": at_radii(1.01, 1.51, curv=curv), "text": at_radii(0.33, 2.0, 2.0, 2.0, curv=curv)}
        picture = radius_histogram(points, LORENTZ, torch.tensor(curv))
        assert bins_of(picture, 0) == [30, 45]
        assert bins_of(picture, 1) == [9, 59]


def test_a_higher_count_is_a_higher_bar():
    picture = radius_histogram({"text": at_radii(0.33, 0.33, 0.33, 2.0)}, LORENTZ, CURV)
    heights = (picture[0, :ROW, LABEL:] == BLUE).all(-1).sum(0)
    assert heights[8 * 9] > 2.5 * heights[8 * 59] > 0


def test_points_at_the_origin_are_left_out():
    """Where a box is missing; packed as (B, N, D)."""
    found = at_radii(1.0, 1.3, 2.0)
    packed = torch.cat([found, torch.zeros(3, 6)]).view(2, 3, 6)
    roles = {"image": at_radii(2.0)}
    picture = radius_histogram({**roles, "box_image": packed}, LORENTZ, CURV)
    assert np.array_equal(picture, radius_histogram({**roles, "box_image": found}, LORENTZ, CURV))


@pytest.mark.parametrize("empty", [torch.zeros(0, 6), torch.zeros(2, 3, 6)])
def test_a_role_without_points_has_no_bars(empty):
    picture = radius_histogram({"box_image": empty, "image": at_radii(0.5, 1.0)}, LORENTZ, CURV)
    assert bins_of(picture, 0) == []
    assert bins_of(picture, 1) != []
    assert radius_histogram({"box_image": empty}, LORENTZ, CURV).shape == (1, ROW + 20, LABEL + 490, 3)


@pytest.mark.parametrize(
    ("metric", "curv"),
    [
        (Metric("sphere", "geodesic", None), torch.tensor(1.0)),
        (Metric("euclidean", "geodesic", None), torch.tensor(1.0)),
        (Metric("product", "l1", 2), torch.ones(3)),
    ],
)
def test_every_geometry_has_a_picture(metric, curv):
    features = torch.nn.functional.normalize(torch.randn(5, 6), dim=-1)
    assert bins_of(radius_histogram({"image": features}, metric, curv), 0) != []


# The summary ----------------------------------------------------------------------------------------------------------


def line(step: int, **values: Any) -> dict[str, Any]:
    usual = {
        "step": step, "loss": 4.0 - step / 100, "curv": 1.0, "logit_scale": 14.0, "samples_per_s": 100.0 + step,
        "skipped": {}, "damaged_shards": {}, "warnings": [],
    }  # fmt: skip
    return usual | values


def summary_of(folder: Path, *lines: dict[str, Any], step: int = 30) -> list[str]:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines), encoding="utf-8")
    return summary(folder, step, 90.0).splitlines()


def test_it_has_time_speed_losses_and_where_the_model_is(tmp_path):
    skipped = {"no caption": 2, "unreadable image": 3}
    told = summary_of(tmp_path, line(10), line(20, samples_per_s=1.0), line(30, skipped=skipped, curv=0.51234))
    assert told == [
        f"finished: 30 steps, this time in 1.5 min, 110 samples/s; the model is in {tmp_path}/checkpoint",
        "  loss 3.9 → 3.7, curv 0.5123, logit_scale 14, 5 bad samples passed over (unreadable image 3, no caption 2)",
    ]


def test_it_names_damaged_shards(tmp_path):
    damaged = {"a/003.tar": "unexpected end of data", "a/007.tar": "it is an empty file"}
    told = summary_of(tmp_path, line(10), line(30, damaged_shards=damaged))
    assert told[2:] == [
        "  a part is lost of the damaged shard a/003.tar: unexpected end of data",
        "  a part is lost of the damaged shard a/007.tar: it is an empty file",
    ]


def test_it_has_the_last_scores(tmp_path):
    scores = {
        "scenes/image_to_text_r1": 0.25,
        "scenes/image_to_text_r10": 0.5,
        "squares/top1": 0.75,
        "squares/top5": 1.0,
    }
    told = summary_of(tmp_path, line(10, **dict.fromkeys(scores, 0.0)), line(30, **scores))
    assert told[2:] == ["  scenes/image_to_text_r1 0.25", "  squares/top1 0.75"]


def test_it_has_every_warning_once(tmp_path):
    told = summary_of(tmp_path, line(10, warnings=["cones open", "curv lowest"]), line(30, warnings=["cones open"]))
    assert told[2:] == ["  warning: cones open", "  warning: curv lowest"]


def test_a_number_that_was_not_finite_is_said_to_be_so(tmp_path):
    told = summary_of(tmp_path, line(10), line(30, loss=None, **{"squares/top1": None}))
    assert "loss 3.9 → not finite, " in told[1]
    assert told[2:] == ["  squares/top1 not finite"]


def test_a_log_without_lines_has_a_summary_too(tmp_path):
    """A finished run that is resumed after its log was removed."""
    assert summary_of(tmp_path) == [f"finished: 30 steps; the model is in {tmp_path}/checkpoint"]
