"""The upper half-space against 50 digits, its metric, and the isometries that are plain to see there."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hypclip.geometry import lorentz
from hypclip.geometry.models import half_space
from tests.support import reference
from tests.support.checks import CURVS_DRAWN, DTYPES, each_curvature, gradients, tangents
from tests.support.reference import exact, known_pairs, rounded

NEAR = tangents(max_norm=5.0)


def half_space_points(v: torch.Tensor, curv: float) -> torch.Tensor:
    return half_space.from_lorentz(lorentz.exp_map0(v / curv**0.5, curv), curv)


# Against 50 digits ----------------------------------------------------------------------------------------------------


@each_curvature
@pytest.mark.parametrize("dim", [1, 2, 8])
def test_the_maps_are_exact(curv, dim):
    single = curv.dtype == torch.float32
    x = reference.points(curv, dim)
    x = torch.cat([x, -x, x.roll(1, -1)])  # every fourth along an axis: towards infinity, and straight down
    c = exact(curv)
    h, want = half_space.from_lorentz(x, curv), reference.half_space_from_lorentz(exact(x), c)
    assert reference.relative(h[:, -1], want[:, -1]).max() <= (1e-7 if single else 1e-15)
    aside, want_aside = h[:, :-1], want[:, :-1]
    off = rounded(reference.norm(exact(aside) - want_aside)) if dim > 1 else torch.zeros(len(x))
    assert (off <= (1e-7 if single else 1e-15) * (rounded(reference.norm(want_aside)) if dim > 1 else 1)).all()

    want = reference.half_space_to_lorentz(exact(h), c)
    off = rounded(reference.norm(exact(half_space.to_lorentz(h, curv)) - want))
    length, time = rounded(reference.norm(want)), rounded(reference.time_component(want, c))
    assert (off <= (1e-7 * length if single else 1e-15 * time)).all()


@each_curvature
def test_dist_is_exact_at_every_radius(curv):
    pairs = known_pairs(curv.dtype, curv.item())
    h, g = (half_space.from_lorentz(x, curv) for x in (pairs.x, pairs.y))
    apart = (h != g).any(-1)
    want = reference.half_space_dist(exact(h[apart]), exact(g[apart]), exact(curv))
    error = reference.relative(half_space.dist(h[apart], g[apart], curv), want)
    assert error.max() <= (1e-7 if curv.dtype == torch.float32 else 2e-15)


@each_curvature
def test_a_radius_is_kept_as_documented(curv):
    eps = torch.finfo(curv.dtype).eps
    x = reference.points(curv, 8, (1e-6, 1e-3, 1.0, 15.0))
    back = half_space.to_lorentz(half_space.from_lorentz(x, curv), curv)
    off = (curv.sqrt() * (lorentz.radius(back, curv) - lorentz.radius(x, curv))).abs()
    assert off.max() <= 16 * eps
    assert (off / lorentz.radius(x, curv)).max() > 1e4 * eps


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_points_outside_the_half_space_have_no_finite_image(dtype):
    h = torch.tensor([[1.0, 0.0], [0.0, -1.0], [torch.nan, 1.0], [1.0, torch.nan]], dtype=dtype)
    inside = torch.ones_like(h)
    assert half_space.to_lorentz(h, 1.0).isnan().any(-1).all()
    assert half_space.dist(h, inside, 1.0).isnan().all()
    assert half_space.dist(inside, h, 1.0).isnan().all()


# Invariants -----------------------------------------------------------------------------------------------------------


@given(NEAR, NEAR, CURVS_DRAWN, st.floats(-3, 3), st.floats(0.1, 10))
def test_horizontal_moves_and_scaling_change_no_distance(v, u, curv, aside, scale):
    h, g = (half_space_points(t, curv) for t in (v, u))
    move = torch.tensor([aside, 0.0, -aside, 0.0], dtype=torch.float64)
    moved = half_space.dist(scale * h + move, scale * g + move, curv)
    torch.testing.assert_close(moved, half_space.dist(h, g, curv), rtol=1e-9, atol=1e-9)


@each_curvature
def test_the_distance_up_is_the_logarithm_of_the_heights(curv):
    h = torch.tensor([[1.0, 2.0, 1e-5], [1.0, 2.0, 3.0]], dtype=curv.dtype)
    d = half_space.dist(h[0], h[1], curv)
    torch.testing.assert_close(d, torch.log(h[1, -1] / h[0, -1]) / curv.sqrt())


@given(NEAR, CURVS_DRAWN, NEAR)
def test_the_metric_is_the_euclidean_one_over_the_height(v, curv, direction):
    h = half_space_points(v, curv)
    step = 1e-6 * h[-1] * direction / direction.norm()
    want = step.norm() / (curv**0.5 * h[-1])
    torch.testing.assert_close(half_space.dist(h + step / 2, h - step / 2, curv), want, rtol=1e-8, atol=0.0)


@each_curvature
def test_the_origin_and_the_last_axis_are_where_documented(curv):
    zero = torch.zeros(3, dtype=curv.dtype)
    origin = torch.tensor([0.0, 0.0, 1.0]).to(curv) / curv.sqrt()
    torch.testing.assert_close(half_space.from_lorentz(zero, curv), origin)
    assert half_space.to_lorentz(origin, curv).abs().max() <= torch.finfo(curv.dtype).eps
    x = torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, -2.0]]).to(curv)
    up = torch.tensor([[0.0, 0.0, 1.0]]).to(curv) / curv.sqrt()
    height = torch.exp(torch.tensor([[1.0], [-1.0]]).to(curv) * curv.sqrt() * lorentz.radius(x, curv)[:, None])
    torch.testing.assert_close(half_space.from_lorentz(x, curv), height * up)


# Gradients ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["near", "above", "mirrored"])
def test_gradcheck_of_dist_where_it_is_delicate(case):
    h = torch.rand(3, 4, dtype=torch.float64) + 0.1
    mirror = torch.tensor([-1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
    up = torch.tensor([1.0, 1.0, 1.0, 9.0], dtype=torch.float64)
    g = {"near": h + 1e-3 * torch.randn_like(h), "above": h * up, "mirrored": h * mirror}[case]
    assert torch.autograd.gradcheck(
        lambda h, g: half_space.dist(h, g, 0.7), (h.requires_grad_(), g.detach().requires_grad_())
    )


@each_curvature
def test_coincident_points_are_at_distance_0_with_gradient_0(curv):
    h = half_space.from_lorentz(reference.points(curv, 8), curv)
    assert torch.equal(half_space.dist(h, h, curv), torch.zeros(len(h), dtype=curv.dtype))
    for gradient in gradients(lambda a, b: half_space.dist(a, b, curv), h, h):
        assert torch.equal(gradient, torch.zeros_like(h))
