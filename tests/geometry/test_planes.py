"""Half-spaces: heights over hyperplanes, whose values are known in closed form or by the Klein ball."""

import math

import pytest
import torch

from hypclip.errors import InputError
from hypclip.geometry import cones, lorentz, planes
from hypclip.geometry.models import klein


def points(n: int, seed: int, dim: int = 5, curv: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return lorentz.exp_map0(torch.randn(n, dim, generator=generator, dtype=torch.float64), curv)


@pytest.mark.parametrize("curv", [0.1, 1.0, 3.0])
def test_the_height_is_the_distance_to_the_nearest_point_of_the_hyperplane(curv):
    x, y = points(1, 1, 2, curv)[0], points(1, 2, 2, curv)[0]
    # In two dimensions the hyperplane is a geodesic through x; walk along it and look for what is nearest to y.
    ray = x / x.norm()
    across = torch.stack([-ray[1], ray[0]])  # tangent at x, across the ray: no part along time
    t = torch.linspace(-6, 6, 200_001, dtype=torch.float64).unsqueeze(1) / math.sqrt(curv)
    line = torch.cosh(math.sqrt(curv) * t) * x + torch.sinh(math.sqrt(curv) * t) / math.sqrt(curv) * across
    nearest = lorentz.dist(line, y.expand_as(line), curv).min() * math.sqrt(curv)
    assert planes.height(x, y, curv).abs().item() == pytest.approx(nearest.item(), rel=1e-6)


def test_behind_the_point_the_height_is_the_difference_of_the_radii():
    ray = torch.tensor([0.6, 0.8], dtype=torch.float64)
    near, far = (lorentz.exp_map0(r * ray, 1.0) for r in (0.7, 1.9))
    assert planes.height(near, far, 1.0).item() == pytest.approx(1.2, abs=1e-13)
    assert planes.height(far, near, 1.0).item() == pytest.approx(-1.2, abs=1e-13)
    assert planes.height(near, near, 1.0).item() == 0
    assert planes.height(near, torch.zeros(2, dtype=torch.float64), 1.0).item() == pytest.approx(-0.7, abs=1e-13)


def test_nothing_lies_above_or_below_the_origin():
    assert planes.height(torch.zeros(4, 3), torch.randn(4, 3), 1.0).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("curv", [0.25, 1.0])
def test_positive_heights_are_exterior_angles_below_a_right_angle(curv):
    x, y = 0.2 * points(400, 3, curv=curv), points(400, 4, curv=curv)
    angle = cones.oxy_angle(x, y, curv)
    above = planes.height(x, y, curv) >= 0
    assert 20 < above.sum() < 380
    assert torch.equal(above, angle <= math.pi / 2)


def test_positive_heights_are_the_half_space_of_the_klein_ball():
    x, y = 0.2 * points(400, 5), points(400, 6)
    k, m = klein.from_lorentz(x, 1.0), klein.from_lorentz(y, 1.0)
    assert 20 < (planes.height(x, y, 1.0) >= 0).sum() < 380
    assert torch.equal(planes.height(x, y, 1.0) >= 0, (k * m).sum(-1) >= k.square().sum(-1))


def test_all_pairs_are_one_inner_product():
    x, y = points(7, 7, curv=2.0), points(9, 8, curv=2.0)
    rows = torch.stack([planes.height(x, row.expand_as(x), 2.0) for row in y], 1)
    assert torch.allclose(planes.pairwise_height(x, y, 2.0), rows, atol=1e-12)
    inner = planes.as_general(x, 2.0) @ planes.as_specific(y, 2.0).T
    assert torch.allclose(torch.asinh(inner), rows, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 5.0])
def test_float32_agrees_with_float64_to_the_stated_bound(scale):
    generator = torch.Generator().manual_seed(9)
    v, w = torch.randn(2, 2000, 16, generator=generator)
    v, w = (scale * z / z.norm(dim=1, keepdim=True) for z in (v, v + 0.3 * w))
    x, y = lorentz.exp_map0(v, 1.0), lorentz.exp_map0(w, 1.0)
    true = planes.height(x.double(), y.double(), 1.0)
    assert ((planes.height(x, y, 1.0) - true).abs() <= 2e-7 * (1 + true.abs())).all()


def test_the_gradient_is_right_and_the_general_point_feels_it():
    x, y = points(3, 10).requires_grad_(), points(3, 11).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: planes.height(a, b, 1.5), (x, y))
    assert torch.autograd.gradcheck(lambda a, b: planes.pairwise_height(a, b, 1.5), (x, y))


def test_half_precision_is_refused():
    with pytest.raises(InputError, match="cast the features"):
        planes.height(torch.zeros(2, 3, dtype=torch.float16), torch.zeros(2, 3, dtype=torch.float16), 1.0)
