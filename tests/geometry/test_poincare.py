"""The ball against 50 digits, its group laws, and its isometry with the hyperboloid."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hypclip.geometry import lorentz, poincare
from tests.support import reference
from tests.support.checks import (
    CURVS_DRAWN,
    DTYPES,
    each_curvature,
    gradients,
    rotations,
    rows,
    tangents,
)
from tests.support.reference import exact, rounded

RHO = torch.logspace(-6, 1.176, 30).tolist()
"""√c · radius up to 15."""


def ball_points(curv, dim, seed=0):
    """Points at every radius, and one at radius 0.0316 each side of where the series take over."""
    return poincare.from_lorentz(reference.points(curv, dim, (*RHO, 0.0632, 0.0633), each=2, seed=seed), curv)


def ball_pairs(curv, dim):
    """Pairs at every radius and separation, and pairs on opposite sides of the origin."""
    x, y = reference.pairs(curv, dim, each=5)
    inside = curv.sqrt() * lorentz.radius(y, curv) < 15.01
    p, q = poincare.from_lorentz(x[inside], curv), poincare.from_lorentz(y[inside], curv)
    apart = (p != q).any(-1)
    p, q = p[apart], q[apart]
    z = ball_points(curv, dim)
    return torch.cat([p, p, z]), torch.cat([q, -q, -0.9 * z])


# Against 50 digits ----------------------------------------------------------------------------------------------------


@each_curvature
@pytest.mark.parametrize("dim", [2, 16])
def test_the_functions_of_one_point_are_exact(curv, dim):
    near_the_rim, elsewhere = (1e-7, 1e-7) if curv.dtype == torch.float32 else (1e-9, 1e-15)
    c = exact(curv)
    x = reference.points(curv, dim, RHO, each=2)
    got, want = poincare.from_lorentz(x, curv), reference.ball_from_lorentz(exact(x), c)
    assert reference.relative_rows(got, want).max() <= elsewhere
    v = reference.vectors([rho / 2 / curv.sqrt().item() for rho in RHO], dim, curv.dtype, each=2)
    got, want = poincare.exp_map0(v, curv), reference.ball_exp_map0(exact(v), c)
    assert reference.relative_rows(got, want).max() <= elsewhere
    p = ball_points(curv, dim)
    got, want = poincare.to_lorentz(p, curv), reference.ball_to_lorentz(exact(p), c)
    assert reference.relative_rows(got, want).max() <= near_the_rim
    got, want = poincare.log_map0(p, curv), reference.ball_log_map0(exact(p), c)
    assert reference.relative_rows(got, want).max() <= near_the_rim


@each_curvature
@pytest.mark.parametrize("dim", [2, 8])
def test_the_functions_of_two_points_are_exact(curv, dim):
    bound = 1e-7 if curv.dtype == torch.float32 else 1e-9
    p, q = ball_pairs(curv, dim)
    want = reference.ball_dist(exact(p), exact(q), exact(curv))
    assert reference.relative(poincare.dist(p, q, curv), want).max() <= bound
    want = reference.ball_mobius_add(exact(p), exact(q), exact(curv))
    assert reference.relative_rows(poincare.mobius_add(p, q, curv), want).max() <= bound


@each_curvature
def test_the_maps_at_a_point_are_exact(curv):
    single, sqrt_c = curv.dtype == torch.float32, curv.double().sqrt()
    p, q = (t[::3] for t in ball_pairs(curv, 8))
    exact_p, exact_q, c = exact(p), exact(q), exact(curv)
    log = reference.ball_log_map(exact_p, exact_q, c)
    relative = 1e-7 if single else 1e-9
    assert reference.relative_rows(poincare.log_map(p, q, curv), log).max() <= relative

    v = rounded(log).to(curv.dtype)
    off = reference.norm(exact(poincare.exp_map(p, v, curv)) - reference.ball_exp_map(exact_p, exact(v), c))
    bound = 1e-7 if single else 2e-15 / rounded(1 - c * (exact_p * exact_p).sum(-1))
    assert (sqrt_c * rounded(off) / bound).max() <= 1

    want = reference.ball_parallel_transport(exact_p, exact_q, exact(q), c)
    assert reference.relative_rows(poincare.parallel_transport(p, q, q, curv), want).max() <= relative

    for t in (0.01, 0.5):
        want = reference.ball_geodesic(exact_p, exact_q, reference.mpf(t), c)
        off = rounded(reference.norm(exact(poincare.geodesic(p, q, t, curv)) - want))
        assert sqrt_c * off.max() <= (1e-7 if single else 1e-10)


def test_float32_keeps_the_radius_of_a_point_as_documented():
    curv = torch.tensor(1.0)
    for radius, worst in ((5.0, 1e-5), (10.0, 2e-3), (15.0, 0.15)):
        p = poincare.from_lorentz(reference.points(curv, 8, (radius,), each=100), curv)
        kept = poincare.dist(p, torch.zeros_like(p), curv)
        assert 0 < (kept - radius).abs().max() <= worst
    p = poincare.from_lorentz(reference.points(curv, 8, (17.0,), each=1000), curv)
    assert poincare.to_lorentz(p, curv).isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_points_outside_the_ball_have_no_finite_image(dtype):
    p = torch.tensor([[1.0, 0.0], [0.0, 1.1], [3.0, 3.0], [torch.inf, 0.0], [torch.nan, 0.0]], dtype=dtype)
    inside = torch.full_like(p, 0.2)
    for images in (
        *(function(p, 1.0) for function in (poincare.to_lorentz, poincare.log_map0)),
        *(
            function(*pair, 1.0)
            for function in (poincare.mobius_add, poincare.log_map, poincare.dist)
            for pair in ((p, inside), (inside, p))
        ),
        poincare.exp_map(p, inside, 1.0),
        poincare.geodesic(p, inside, 0.3, 1.0),
        poincare.parallel_transport(p, inside, inside, 1.0),
        poincare.parallel_transport(inside, p, inside, 1.0),
    ):
        assert not images.reshape(len(p), -1).isfinite().all(-1).any()


# Invariants -----------------------------------------------------------------------------------------------------------


def ball(v: torch.Tensor, curv: float) -> torch.Tensor:
    return poincare.exp_map0(v / curv**0.5, curv)


@given(tangents(max_norm=7.5), CURVS_DRAWN, st.sampled_from(DTYPES))
def test_maps_are_inverse(v, curv, dtype):
    v = (v / curv**0.5).to(dtype)
    eps = torch.finfo(dtype).eps
    p = poincare.exp_map0(v, curv)
    x = poincare.to_lorentz(p, curv)
    amplified = eps * (4 + torch.cosh(2 * curv**0.5 * v.norm()))
    assert (poincare.log_map0(p, curv) - v).norm() <= amplified * v.norm()
    assert (x - lorentz.exp_map0(2 * v, curv)).norm() <= 4 * amplified * x.norm()
    assert (poincare.from_lorentz(x, curv) - p).norm() <= 4 * eps * p.norm()


@given(tangents(max_norm=7.5), CURVS_DRAWN)
def test_a_ball_tangent_is_half_the_lorentz_tangent(v, curv):
    v = v / curv**0.5
    p, x = poincare.exp_map0(v, curv), lorentz.exp_map0(2 * v, curv)
    torch.testing.assert_close(poincare.from_lorentz(x, curv), p, rtol=1e-14, atol=0.0)
    torch.testing.assert_close(poincare.dist(p, torch.zeros_like(p), curv), 2 * v.norm(), rtol=1e-8, atol=0.0)
    assert curv**0.5 * p.norm() < 1


@given(tangents(max_norm=5.0), tangents(max_norm=5.0), CURVS_DRAWN)
def test_the_map_to_the_hyperboloid_is_an_isometry(v, u, curv):
    x, y = (lorentz.exp_map0(p / curv**0.5, curv) for p in (v, u))
    p, q = poincare.from_lorentz(x, curv), poincare.from_lorentz(y, curv)
    torch.testing.assert_close(poincare.dist(p, q, curv), lorentz.dist(x, y, curv), rtol=1e-10, atol=1e-10)


@given(tangents(max_norm=3.0), tangents(max_norm=3.0), CURVS_DRAWN)
def test_mobius_addition_is_a_gyrogroup(v, u, curv):
    p, q = ball(v, curv), ball(u, curv)
    zero = torch.zeros_like(p)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(poincare.mobius_add(zero, q, curv), q)
    torch.testing.assert_close(poincare.mobius_add(p, zero, curv), p)
    assert torch.equal(poincare.mobius_add(p, -p, curv), zero)
    total = poincare.mobius_add(p, q, curv)
    torch.testing.assert_close(poincare.mobius_add(-p, total, curv), q, **close)
    torch.testing.assert_close(total.norm(), poincare.mobius_add(q, p, curv).norm(), **close)
    from_origin = 2 * poincare.log_map0(poincare.mobius_add(-p, q, curv), curv).norm()
    torch.testing.assert_close(from_origin, poincare.dist(p, q, curv), **close)


@given(tangents(max_norm=5.0), tangents(max_norm=5.0), tangents(max_norm=5.0), CURVS_DRAWN, st.sampled_from(DTYPES))
def test_dist_is_a_metric(v, u, w, curv, dtype):
    p, q, r = rows(*(ball(t, curv).to(dtype) for t in (v, u, w)))
    assert torch.equal(poincare.dist(p, q, curv), poincare.dist(q, p, curv))
    slack = 4e-7 if dtype == torch.float32 else 1e-10
    assert poincare.dist(p, r, curv) <= (poincare.dist(p, q, curv) + poincare.dist(q, r, curv)) * (1 + slack)


@given(tangents(max_norm=5.0), tangents(max_norm=5.0), tangents(max_norm=2.0), rotations(), CURVS_DRAWN)
def test_rotations_and_translations_change_no_distance(v, u, w, rotation, curv):
    p, q, shift = (ball(t, curv) for t in (v, u, w))
    want = poincare.dist(p, q, curv)
    torch.testing.assert_close(poincare.dist(p @ rotation, q @ rotation, curv), want, rtol=1e-9, atol=1e-9)
    moved = [poincare.mobius_add(shift, t, curv) for t in (p, q)]
    torch.testing.assert_close(poincare.dist(*moved, curv), want, rtol=1e-7, atol=1e-7)


NEAR = tangents(max_norm=2.0)


@given(NEAR, NEAR, CURVS_DRAWN, st.floats(0, 1))
def test_the_maps_at_a_point_are_inverse_and_follow_the_geodesic(v, u, curv, t):
    p, q = ball(v, curv), ball(u, curv)
    log = poincare.log_map(p, q, curv)
    close = {"rtol": 1e-9, "atol": 1e-11}
    factor = 2 / (1 - curv * p.square().sum())
    torch.testing.assert_close(factor * log.norm(), poincare.dist(p, q, curv), **close)
    torch.testing.assert_close(poincare.exp_map(p, log, curv), q, **close)
    torch.testing.assert_close(poincare.exp_map(p, t * log, curv), poincare.geodesic(p, q, t, curv), **close)
    torch.testing.assert_close(poincare.log_map(p, poincare.exp_map(p, u / factor, curv), curv), u / factor, **close)
    zero = torch.zeros_like(p)
    torch.testing.assert_close(poincare.exp_map(zero, v, curv), poincare.exp_map0(v, curv), rtol=1e-14, atol=0.0)
    torch.testing.assert_close(poincare.log_map(zero, p, curv), poincare.log_map0(p, curv), rtol=1e-13, atol=0.0)
    torch.testing.assert_close(poincare.geodesic(p, p, t, curv), p)


@given(NEAR, NEAR, NEAR, CURVS_DRAWN, st.floats(0, 1))
def test_tangents_geodesics_and_transport_are_those_of_the_hyperboloid(v, u, w, curv, t):
    p, q = ball(v, curv), ball(u, curv)
    x, y = poincare.to_lorentz(p, curv), poincare.to_lorentz(q, curv)

    def push(at: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor:
        return torch.autograd.functional.jacobian(lambda p: poincare.to_lorentz(p, curv), at) @ tangent

    close = {"rtol": 1e-9, "atol": 1e-9}
    lifted = push(p, w)
    moved = poincare.parallel_transport(p, q, w, curv)
    torch.testing.assert_close(push(q, moved), lorentz.parallel_transport(x, y, lifted, curv), **close)
    torch.testing.assert_close(poincare.parallel_transport(q, p, moved, curv), w, **close)
    torch.testing.assert_close(push(p, poincare.log_map(p, q, curv)), lorentz.log_map(x, y, curv), **close)
    on_the_way = poincare.to_lorentz(poincare.geodesic(p, q, t, curv), curv)
    torch.testing.assert_close(on_the_way, lorentz.geodesic(x, y, t, curv), **close)


# Gradients ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["origin", "near", "opposite"])
def test_gradcheck_of_two_points_where_it_is_delicate(case):
    p = torch.rand(3, 4, dtype=torch.float64) - 0.5
    q = {"origin": 0 * p, "near": p + 1e-3 * torch.randn_like(p), "opposite": -p}[case]
    for function in (
        poincare.dist,
        poincare.mobius_add,
        poincare.log_map,
        lambda p, q, c: poincare.exp_map(p, q - p, c),
    ):
        arguments = (p.clone().requires_grad_(), q.clone().requires_grad_(), torch.tensor(0.7, dtype=torch.float64))
        assert torch.autograd.gradcheck(function, arguments)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_and_gradients_are_finite_near_the_rim(dtype):
    p, v, curv = (torch.tensor(value, dtype=dtype) for value in ([0.999999, 0.0], [0.0, 1.0], 1.0))
    for function in (
        poincare.dist,
        poincare.log_map,
        poincare.mobius_add,
        lambda p, q, c: poincare.geodesic(p, q, 0.3, c),
    ):
        assert function(p, p, curv).isfinite().all()
        assert all(g.isfinite().all() for g in gradients(function, p, p, curv))
    # A unit of length is 14 e6 steps of the metric there: the point falls on the rim.
    assert poincare.exp_map(p, v, curv).isfinite().all()
    assert all(g.isfinite().all() for g in gradients(poincare.exp_map, p, v, curv))


@each_curvature
def test_coincident_points_are_at_distance_0_with_gradient_0(curv):
    p = ball_points(curv, 8)
    assert torch.equal(poincare.dist(p, p, curv), torch.zeros(len(p), dtype=curv.dtype))
    for gradient in gradients(lambda a, b: poincare.dist(a, b, curv), p, p):
        assert torch.equal(gradient, torch.zeros_like(p))


@each_curvature
def test_the_maps_at_the_origin_are_multiples_of_the_identity(curv):
    zero = torch.zeros(4, dtype=curv.dtype)
    maps = {poincare.exp_map0: 1.0, poincare.log_map0: 1.0, poincare.to_lorentz: 2.0, poincare.from_lorentz: 0.5}
    for function, factor in maps.items():
        assert torch.equal(function(zero, curv), zero)
        by_point, _ = torch.autograd.functional.jacobian(function, (zero, curv))
        torch.testing.assert_close(by_point, factor * torch.eye(4).to(zero))
