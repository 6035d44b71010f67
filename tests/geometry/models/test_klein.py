"""The Klein ball against 50 digits, its straight geodesics, and the Einstein midpoint."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hypclip.geometry import lorentz
from hypclip.geometry.models import klein
from tests.support import reference
from tests.support.checks import CURVS_DRAWN, DTYPES, each_curvature, gradients, tangents
from tests.support.reference import exact, known_pairs, rounded

NEAR = tangents(max_norm=4.0)


def klein_pairs(curv):
    """Pairs of points at every radius that the dtype can hold, the smaller of their gaps, and exact copies."""
    pairs = known_pairs(curv.dtype, curv.item())
    k, m = (klein.from_lorentz(x, curv) for x in (pairs.x, pairs.y))
    gap = 1 - exact(curv) * np.maximum(*((exact(p) ** 2).sum(-1) for p in (k, m)))
    held = rounded(gap) > (1e-8 if curv.dtype == torch.float32 else 3.5e-13)  # radius 9.9 and 15
    k, m, gap = (t[held & (k != m).any(-1)] for t in (k, m, rounded(gap)))
    return k, m, exact(k), exact(m), gap


# Against 50 digits ----------------------------------------------------------------------------------------------------


@each_curvature
@pytest.mark.parametrize("dim", [2, 16])
def test_from_lorentz_is_exact(curv, dim):
    x = reference.points(curv, dim)
    error = reference.relative_rows(klein.from_lorentz(x, curv), reference.klein_from_lorentz(exact(x), exact(curv)))
    assert error.max() <= (1e-7 if curv.dtype == torch.float32 else 1e-15)


@each_curvature
def test_to_lorentz_and_dist_are_exact(curv):
    k, m, exact_k, exact_m, gap = klein_pairs(curv)
    bound = 1e-7 if curv.dtype == torch.float32 else 1e-15 / gap
    error = reference.relative_rows(klein.to_lorentz(k, curv), reference.klein_to_lorentz(exact_k, exact(curv)))
    assert (error / bound).max() <= 1
    error = reference.relative(klein.dist(k, m, curv), reference.klein_dist(exact_k, exact_m, exact(curv)))
    assert (error / bound).max() <= 1


@each_curvature
def test_einstein_midpoint_is_exact(curv):
    k, m, exact_k, exact_m, gap = klein_pairs(curv)
    weights = torch.rand(len(k), 2, dtype=curv.dtype)
    two = np.stack([exact_k, exact_m], 1)
    factor = exact(weights) / reference.sqrt(1 - exact(curv) * (two * two).sum(-1))
    want = (factor[..., None] * two).sum(-2) / factor.sum(-1)[..., None]
    off = rounded(reference.norm(exact(klein.einstein_midpoint(torch.stack([k, m], 1), curv, weights)) - want))
    assert (curv.double().sqrt() * off / (1e-7 if curv.dtype == torch.float32 else 1e-15 / gap)).max() <= 1


def test_float32_holds_a_radius_of_8_but_not_of_10():
    curv = torch.tensor(1.0)
    held, lost = (klein.from_lorentz(reference.points(curv, 8, (radius,), each=100), curv) for radius in (8.0, 10.0))
    assert klein.to_lorentz(held, curv).isfinite().all()
    assert klein.to_lorentz(lost, curv).isnan().any()


def test_float64_keeps_the_radius_of_a_point_as_documented():
    x = reference.points(torch.tensor(1.0, dtype=torch.float64), 8, (15.0,), each=100)
    kept = lorentz.radius(klein.to_lorentz(klein.from_lorentz(x, 1.0), 1.0), 1.0)
    assert 1e-5 < (kept - 15).abs().max() <= 1e-3


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_points_outside_the_ball_have_no_finite_image(dtype):
    k = torch.tensor([[1.0, 0.0], [0.0, 1.1], [3.0, 3.0], [torch.inf, 0.0], [torch.nan, 0.0]], dtype=dtype)
    inside = torch.full_like(k, 0.2)
    assert klein.to_lorentz(k, 1.0).isnan().any(-1).all()
    assert klein.dist(k, inside, 1.0).isnan().all()
    assert klein.dist(inside, k, 1.0).isnan().all()
    assert klein.einstein_midpoint(torch.stack([k, inside], 1), 1.0).isnan().any(-1).all()


# Invariants -----------------------------------------------------------------------------------------------------------


@given(NEAR, NEAR, CURVS_DRAWN, st.floats(0, 1))
def test_geodesics_are_straight(v, u, curv, t):
    x, y = (lorentz.exp_map0(p / curv**0.5, curv) for p in (v, u))
    k, m = klein.from_lorentz(x, curv), klein.from_lorentz(y, curv)
    step, way = m - k, klein.from_lorentz(lorentz.geodesic(x, y, t, curv), curv) - k
    torch.testing.assert_close(way.norm() * step, step.norm() * way, rtol=0.0, atol=1e-13 / curv)


@given(st.lists(NEAR, min_size=1, max_size=5), CURVS_DRAWN, st.integers(0, 2**32))
def test_the_einstein_midpoint_is_the_lorentz_centroid(vs, curv, seed):
    x = lorentz.exp_map0(torch.stack(vs) / curv**0.5, curv)
    weights = torch.rand(len(x), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    k = klein.from_lorentz(x, curv)
    for w in (None, weights, 7 * weights):
        middle = klein.einstein_midpoint(k, curv, w)
        want = klein.from_lorentz(lorentz.centroid(x, curv, w), curv)
        torch.testing.assert_close(middle, want, rtol=0.0, atol=1e-12 / curv**0.5)


def test_the_einstein_midpoint_averages_each_batch():
    k = 0.2 * torch.randn(3, 5, 4, dtype=torch.float64)
    weights = torch.rand(3, 5, dtype=torch.float64)
    each = [klein.einstein_midpoint(k[i], 0.7, weights[i]) for i in range(3)]
    torch.testing.assert_close(klein.einstein_midpoint(k, 0.7, weights), torch.stack(each))
    torch.testing.assert_close(klein.einstein_midpoint(k[:, :1], 0.7), k[:, 0])


# Gradients ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["origin", "near", "opposite"])
def test_gradcheck_of_dist_where_it_is_delicate(case):
    k = torch.rand(3, 4, dtype=torch.float64) - 0.5
    m = {"origin": 0 * k, "near": k + 1e-3 * torch.randn_like(k), "opposite": -k}[case]
    assert torch.autograd.gradcheck(
        lambda k, m: klein.dist(k, m, 0.7), (k.requires_grad_(), m.detach().requires_grad_())
    )


@each_curvature
def test_coincident_points_are_at_distance_0_with_gradient_0(curv):
    k = klein.from_lorentz(reference.points(curv, 8, (1e-6, 0.1, 1.0, 6.0)), curv)
    assert torch.equal(klein.dist(k, k, curv), torch.zeros(len(k), dtype=curv.dtype))
    for gradient in gradients(lambda a, b: klein.dist(a, b, curv), k, k):
        assert torch.equal(gradient, torch.zeros_like(k))
