"""What a run is warned of: a curvature that is stuck, and cones that have opened to half-spaces."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hypclip.model import LOG_CURV_RANGE
from hypclip.objective import Objective
from hypclip.training.monitoring.health import find_trouble
from tests.support.training import points

LOWEST, HIGHEST = LOG_CURV_RANGE
OPEN = {"clamped/text-image": 1.0, "clamped/box_text-text": 0.995}


def curv(*logs: float) -> Tensor:
    """Return c: one number, or one per factor."""
    return torch.tensor(logs if len(logs) > 1 else logs[0]).exp()


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (curv(LOWEST), "lowest"),
        (curv(HIGHEST), "highest"),
        (curv(LOWEST, LOWEST, 0.0), "lowest"),
        (curv(HIGHEST, HIGHEST), "highest"),
        (torch.tensor(0.1), "lowest"),
        (torch.tensor(10.0, dtype=torch.float64), "highest"),
    ],
)
def test_a_curvature_at_its_bound_is_trouble(found: Tensor, name: str) -> None:
    """For a product, when most of its factors are there."""
    trouble = find_trouble({}, found)
    assert trouble.keys() == {f"curv {name}"}
    (message,) = trouble.values()
    assert f"{name} value {'0.1' if name == 'lowest' else '10'} " in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "found",
    [
        curv(0.0),
        curv(LOWEST + 0.01),
        curv(HIGHEST - 0.01),
        curv(LOWEST, 0.0, 0.0),
        curv(LOWEST, HIGHEST, 0.0, 0.3),
        torch.tensor([1.0]),
    ],
)
def test_a_curvature_within_its_bounds_is_none(found: Tensor) -> None:
    assert find_trouble({"clamped/text-image": 0.0}, found) == {}


@pytest.mark.parametrize("found", [curv(LOWEST), curv(HIGHEST), curv(HIGHEST, HIGHEST)])
def test_a_curvature_that_is_given_may_be_where_it_likes(found: Tensor) -> None:
    assert find_trouble({}, found, learned=False) == {}


def test_a_curvature_in_a_graph_is_looked_at_without_it() -> None:
    log_curv = torch.tensor(LOWEST, requires_grad=True)
    assert find_trouble({}, log_curv.exp()).keys() == {"curv lowest"}
    assert log_curv.grad is None


@pytest.mark.parametrize("learned", [True, False])
def test_cones_that_are_all_half_spaces_are_trouble(learned: bool) -> None:
    trouble = find_trouble({**OPEN, "margin/text-image": 0.3, "loss": 2.0}, curv(0.0), learned=learned)
    assert trouble.keys() == {"cones open"}
    assert "half-space" in trouble["cones open"]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_some_open_cones_are_none(share: float) -> None:
    assert find_trouble({**OPEN, "clamped/box_image-image": share}, curv(0.0)) == {}


def test_an_edge_that_no_pair_had_says_nothing_of_the_others() -> None:
    nothing = dict.fromkeys(OPEN, math.nan)
    assert find_trouble({**OPEN, "clamped/box_image-image": math.nan}, curv(0.0)).keys() == {"cones open"}
    assert find_trouble(nothing, curv(0.0)) == {}


def test_without_cones_nothing_is_said_of_them() -> None:
    assert find_trouble({"loss": 1.0, "violation/text-image": 1.0}, curv(0.0)) == {}


def test_several_troubles_are_several_warnings() -> None:
    assert find_trouble(OPEN, curv(LOWEST)).keys() == {"curv lowest", "cones open"}


@pytest.mark.parametrize(("radius", "names"), [(1e-3, {"cones open"}), (1.0, set())])
def test_what_an_objective_sees_tells_collapsed_cones(radius: float, names: set[str]) -> None:
    """Points within asinh 2K = 0.2 of the origin."""
    seen = Objective.from_recipe("hycoclip").describe(points(20, radius=radius), curv=1.0)
    assert find_trouble({name: value.item() for name, value in seen.items()}, curv(0.0)).keys() == names
