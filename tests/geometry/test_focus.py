"""Planes of a focus: distances and exterior angles computed in the plane are those of the space."""

import math

import pytest
import torch
from mpmath import mp

from hypclip.errors import InputError
from hypclip.geometry import cones, focus, lorentz, planes
from tests.support import reference as ref

CURVS = (0.1, 1.0, 7.0)


def points(n: int, dim: int, curv: float, far: float = 3.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(n, dim, generator=generator, dtype=torch.float64), dim=1)
    radii = far * torch.rand(n, 1, generator=generator, dtype=torch.float64)
    return lorentz.exp_map0(radii * unit / math.sqrt(curv), curv)


def drawn(radius: torch.Tensor, angle: torch.Tensor, curv: float) -> torch.Tensor:
    """Return the points of the hyperbolic plane with these polar coordinates about its origin."""
    direction = torch.stack([torch.cos(angle), torch.sin(angle)], dim=1)
    return lorentz.exp_map0(radius.unsqueeze(1) * direction, curv)


@pytest.mark.parametrize("curv", CURVS)
@pytest.mark.parametrize("dim", [2, 3, 64])
def test_about_the_root_all_that_concerns_root_and_focus_is_true(curv, dim):
    y = points(200, dim, curv)
    x = y[0]
    flat = drawn(*focus.about_root(y, x, curv), curv)
    every = x.expand_as(y), flat[:1].expand_as(flat)
    assert torch.allclose(lorentz.radius(flat, curv), lorentz.radius(y, curv), rtol=1e-12)
    assert torch.allclose(lorentz.dist(flat, every[1], curv), lorentz.dist(y, every[0], curv), rtol=1e-9, atol=1e-7)
    rest = slice(1, None)
    for measure in (cones.oxy_angle, planes.height):
        below = measure(every[0], y, curv), measure(every[1], flat, curv)
        above = measure(y, every[0], curv), measure(flat, every[1], curv)
        for space, plane in (below, above):
            assert torch.allclose(space[rest], plane[rest], atol=1e-7)


@pytest.mark.parametrize("curv", CURVS)
@pytest.mark.parametrize("dim", [2, 3, 64])
def test_about_a_point_distances_from_it_and_from_the_target_are_true(curv, dim):
    y = points(200, dim, curv)
    x, target = y[0], y[1]
    distance, angle = focus.about_point(y, x, target, curv)
    assert torch.allclose(distance, lorentz.dist(y, x.expand_as(y), curv), rtol=1e-12)
    flat = drawn(distance, angle, curv)
    assert torch.allclose(
        lorentz.dist(flat, flat[1:2].expand_as(flat), curv),
        lorentz.dist(y, target.expand_as(y), curv),
        rtol=1e-7,
        atol=1e-6,
    )


@pytest.mark.parametrize("curv", CURVS)
@pytest.mark.parametrize("far", [1e-7, 1e-3, 1.0, 3.0])
def test_angles_at_a_point_are_those_of_tangent_vectors_however_near_the_points_are(curv, far):
    x = points(1, 8, curv, seed=1)
    ways = torch.randn(50, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    # At right angles to x, tangent vectors have no time component: their angles are those of Euclid.
    ways -= (ways @ x.T) / x.square().sum() * x
    ways = torch.nn.functional.normalize(ways, dim=1)
    y = lorentz.exp_map(x.expand_as(ways), far / math.sqrt(curv) * ways, curv)
    distance, angle = focus.about_point(y, x[0], y[0], curv)
    assert torch.allclose(distance, torch.full_like(distance, far / math.sqrt(curv)), rtol=1e-7)
    exact = 2 * torch.atan2((ways - ways[0]).norm(dim=1), (ways + ways[0]).norm(dim=1))
    assert torch.allclose(angle, exact, atol=1e-7)


def test_towards_the_root_and_away_from_it_are_opposite():
    ray = torch.tensor([0.6, 0.8], dtype=torch.float64)
    inner, x, outer = (lorentz.exp_map0(r * ray, 1.0) for r in (0.2, 0.7, 1.9))
    distance, angle = focus.about_point(torch.stack([inner, outer, x, torch.zeros(2)]), x, outer, 1.0)
    assert distance.tolist() == pytest.approx([0.5, 1.2, 0, 0.7])
    assert angle.tolist() == pytest.approx([math.pi, 0, 0, math.pi])


def test_where_there_is_no_direction_the_angle_is_0():
    y, zero = points(3, 4, 1.0), torch.zeros(4, dtype=torch.float64)
    assert focus.about_root(y, zero, 1.0)[1].tolist() == [0, 0, 0]
    assert focus.about_root(zero[None], y[0], 1.0)[1].tolist() == [0]
    assert focus.about_point(y, y[0], y[0], 1.0)[1].tolist() == [0, 0, 0]
    assert focus.about_root(y[:0], y[0], 1.0)[0].shape == (0,)


@pytest.mark.parametrize("curv", ref.CURVS)
def test_angles_keep_their_digits_where_directions_nearly_agree(curv):
    x = torch.tensor([0.3, -0.7, 0.2], dtype=torch.float64)
    turn = torch.tensor([0.7, 0.3, 0.0], dtype=torch.float64)
    y = torch.stack([sign * x + t * turn for sign in (1, -1) for t in (1e-12, 1e-8, 1e-3, 1.0)])
    _, angle = focus.about_root(y, x, curv)
    ex, ey = ref.exact(x), ref.exact(y)
    for row, found in zip(ey, angle.tolist(), strict=True):
        # Of the cross product and the dot product, at 50 digits.
        cross = [ex[i - 2] * row[i - 1] - ex[i - 1] * row[i - 2] for i in range(3)]
        exact = mp.atan2(mp.sqrt(sum(part * part for part in cross)), (ex * row).sum())
        assert abs(found - float(exact)) <= 4e-16 + 1e-15 * min(found, math.pi - found)
    radii = focus.about_root(y, x, curv)[0]
    exact_radii = ref.asinh(ref.sqrt(ref.number(curv)) * ref.norm(ey)) / mp.sqrt(ref.number(curv))
    assert radii.tolist() == pytest.approx([float(r) for r in exact_radii], rel=4e-16)


def test_float32_points_get_float32_answers_and_half_precision_is_refused():
    y = points(5, 4, 1.0).float()
    assert {part.dtype for part in focus.about_root(y, y[0], 1.0)} == {torch.float32}
    assert {part.dtype for part in focus.about_point(y, y[0], y[1], 1.0)} == {torch.float32}
    with pytest.raises(InputError, match="float16"):
        focus.about_root(y.half(), y[0].half(), 1.0)
