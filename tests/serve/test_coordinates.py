"""The coordinates in which points leave the server lead back to the points, and say how precise they are."""

import math
import typing

import numpy as np
import pytest
import torch

from hypclip.errors import HypclipError
from hypclip.geometry import lorentz, poincare
from serve.coordinates import Coordinates, coordinates, radii

CURVS = [0.1, 1.0, 2.0, 10.0]


def points(curv, radius, n=20, d=12):
    """Points of about these radii, as float32: what models and stores hold."""
    directions = torch.nn.functional.normalize(torch.randn(n, d, dtype=torch.float64), dim=-1)
    return lorentz.exp_map0(radius * directions, curv).float()


@pytest.mark.parametrize("curv", CURVS)
@pytest.mark.parametrize("scale", [1e-3, 0.5, 3.0, 10.0])
def test_every_kind_leads_back_to_the_point(curv, scale):
    x = points(curv, scale / curv**0.5)
    exact = x.double()
    assert coordinates(x, "space", curv).tobytes() == x.numpy().tobytes()
    with_time = torch.from_numpy(coordinates(x, "lorentz", curv))
    assert torch.equal(with_time[:, 1:], exact)
    torch.testing.assert_close(with_time[:, 0] ** 2 - exact.square().sum(-1), torch.full((20,), 1 / curv).double())
    back = lorentz.exp_map0(torch.from_numpy(coordinates(x, "tangent", curv)), curv)
    torch.testing.assert_close(back, exact, rtol=1e-9, atol=0)
    back = poincare.to_lorentz(torch.from_numpy(coordinates(x, "poincare", curv)), curv)
    torch.testing.assert_close(back, exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("curv", CURVS)
def test_tangent_vectors_are_as_long_as_the_radius(curv):
    x = points(curv, 2.0)
    lengths = np.linalg.norm(coordinates(x, "tangent", curv), axis=-1)
    assert lengths == pytest.approx(radii(x, curv), rel=1e-12)
    assert radii(x, curv) == pytest.approx([2.0] * 20, rel=1e-6)


@pytest.mark.parametrize("curv", CURVS)
def test_the_ball_has_radius_one_over_the_root_of_the_curvature(curv):
    far = points(curv, 16 / curv**0.5)
    norms = np.linalg.norm(coordinates(far, "poincare", curv), axis=-1)
    assert (norms < 1 / math.sqrt(curv)).all()
    assert norms == pytest.approx(1 / math.sqrt(curv), rel=1e-6)


def test_the_origin_is_the_origin_everywhere():
    origin = torch.zeros(1, 3)
    assert radii(origin, 2.0) == [0.0]
    for kind in ("space", "tangent", "poincare"):
        assert coordinates(origin, kind, 2.0).tolist() == [[0.0, 0.0, 0.0]]
    assert coordinates(origin, "lorentz", 4.0).tolist() == [[0.5, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("kind", typing.get_args(Coordinates))
def test_shapes_and_precision(kind):
    x = points(1.0, 1.0, n=3, d=5)
    converted = coordinates(x, kind, 1.0)
    assert converted.shape == (3, 6 if kind == "lorentz" else 5)
    assert converted.dtype == (np.float32 if kind == "space" else np.float64)
    assert converted.flags.c_contiguous  # which is what orjson takes
    assert np.isfinite(converted).all()


def test_no_points_have_no_radii():
    assert radii(torch.empty(0, 4), 1.0) == []


@pytest.mark.parametrize("radius", [1e-6, 1e-3, 1.0, 5.0, 11.0])
def test_radii_are_exact_to_what_float32_points_hold(radius):
    x = points(1.0, radius)
    truth = [math.asinh(math.sqrt(sum(float(v) ** 2 for v in row))) for row in x]
    assert radii(x, 1.0) == pytest.approx(truth, rel=1e-12)


def test_one_point_and_many_are_the_same():
    x = points(0.7, 2.0)
    for kind in typing.get_args(Coordinates):
        together = coordinates(x, kind, 0.7)
        apart = np.concatenate([coordinates(row[None], kind, 0.7) for row in x])
        assert np.allclose(together, apart, rtol=1e-14, atol=0)


def test_a_kind_that_is_none_is_no_silent_default():
    with pytest.raises((UnboundLocalError, HypclipError)):
        coordinates(torch.zeros(1, 3), "klein", 1.0)
