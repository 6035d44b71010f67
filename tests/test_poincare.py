"""The ball against 50 digits, its group laws, and its isometry with the hyperboloid."""

import pytest
import reference
import torch
from helpers import (
    CURVS_DRAWN,
    DTYPES,
    assert_autocast_changes_nothing,
    each_space,
    gradients,
    rotations,
    rows,
    tangents,
)
from hypothesis import given
from hypothesis import strategies as st
from reference import exact

from hypclip.errors import InputError
from hypclip.geometry import lorentz, poincare

FUNCTIONS = {
    "from_lorentz": lambda p, q, c: poincare.from_lorentz(p, c),
    "to_lorentz": lambda p, q, c: poincare.to_lorentz(p, c),
    "mobius_add": poincare.mobius_add,
    "exp_map0": lambda p, q, c: poincare.exp_map0(p, c),
    "log_map0": lambda p, q, c: poincare.log_map0(p, c),
    "dist": poincare.dist,
}
each_function = pytest.mark.parametrize("function", [pytest.param(f, id=n) for n, f in FUNCTIONS.items()])
RHO = torch.logspace(-6, 1.176, 30).tolist()
"""√c · radius up to 15."""


def ball_points(curv, dim, seed=0):
    """Points at every radius, and one at radius 0.0316 each side of where the series take over."""
    return poincare.from_lorentz(reference.points(curv, dim, (*RHO, 0.0632, 0.0633), each=2, seed=seed), curv)


def ball_pairs(curv, dim):
    """Pairs at every radius and separation, and pairs on opposite sides of the origin."""
    x, y = reference.pairs(curv, dim)
    inside = curv.sqrt() * lorentz.radius(y, curv) < 15.01
    p, q = poincare.from_lorentz(x[inside], curv), poincare.from_lorentz(y[inside], curv)
    apart = (p != q).any(-1)
    p, q = p[apart], q[apart]
    z = ball_points(curv, dim)
    return torch.cat([p, p, z]), torch.cat([q, -q, -0.9 * z])


# Against 50 digits ----------------------------------------------------------------------------------------------------


@each_space
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


@each_space
@pytest.mark.parametrize("dim", [2, 8])
def test_the_functions_of_two_points_are_exact(curv, dim):
    bound = 1e-7 if curv.dtype == torch.float32 else 1e-9
    p, q = ball_pairs(curv, dim)
    want = reference.ball_dist(exact(p), exact(q), exact(curv))
    assert reference.relative(poincare.dist(p, q, curv), want).max() <= bound
    want = reference.ball_mobius_add(exact(p), exact(q), exact(curv))
    assert reference.relative_rows(poincare.mobius_add(p, q, curv), want).max() <= bound


def test_float32_keeps_the_radius_of_a_point_as_documented():
    curv = torch.tensor(1.0)
    for radius, worst in ((5.0, 1e-5), (10.0, 2e-3), (15.0, 0.15)):
        p = poincare.from_lorentz(reference.points(curv, 8, (radius,), each=100), curv)
        kept = poincare.dist(p, torch.zeros_like(p), curv)
        assert 0 < (kept - radius).abs().max() <= worst
    p = poincare.from_lorentz(reference.points(curv, 8, (17.0,), each=1000), curv)
    assert poincare.to_lorentz(p, curv).isfinite().all()


@each_function
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_points_outside_the_ball_have_no_finite_image(function, dtype):
    if function is FUNCTIONS["from_lorentz"] or function is FUNCTIONS["exp_map0"]:
        p = torch.full((1, 2), torch.nan, dtype=dtype)
    else:
        p = torch.tensor([[1.0, 0.0], [0.0, 1.1], [3.0, 3.0], [torch.inf, 0.0], [torch.nan, 0.0]], dtype=dtype)
    assert not function(p, torch.zeros_like(p), 1.0).reshape(len(p), -1).isfinite().all(-1).any()


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


# Gradients ------------------------------------------------------------------------------------------------------------


@each_function
@pytest.mark.parametrize("scale", [1e-3, 0.3, 0.5])
def test_gradcheck(function, scale):
    p, q = (scale * (2 * torch.rand(2, 3, 4, dtype=torch.float64) - 1)).requires_grad_()
    c = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (p, q, c), eps=1e-6 * scale, rtol=1e-4)


@pytest.mark.parametrize("case", ["origin", "near", "opposite"])
def test_gradcheck_of_two_points_where_it_is_delicate(case):
    p = torch.rand(3, 4, dtype=torch.float64) - 0.5
    q = {"origin": 0 * p, "near": p + 1e-3 * torch.randn_like(p), "opposite": -p}[case]
    for function in (poincare.dist, poincare.mobius_add):
        arguments = (p.clone().requires_grad_(), q.clone().requires_grad_(), torch.tensor(0.7, dtype=torch.float64))
        assert torch.autograd.gradcheck(function, arguments)


@each_function
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "p, q",
    [
        pytest.param([0.0, 0.0], [0.0, 0.0], id="origin twice"),
        pytest.param([0.0, 0.0], [0.3, 0.2], id="origin and a point"),
        pytest.param([0.3, 0.2], [0.3, 0.2], id="coincident"),
        pytest.param([1e-30, 0.0], [0.0, 1e-30], id="tiny"),
        pytest.param([0.3, 0.2], [-0.3, -0.2], id="opposite"),
        pytest.param([0.999999, 0.0], [0.999999, 0.0], id="coincident at radius 14"),
    ],
)
def test_values_and_gradients_are_finite_where_they_are_delicate(function, dtype, p, q):
    p, q, curv = (torch.tensor(value, dtype=dtype) for value in (p, q, 1.0))
    assert function(p, q, curv).isfinite().all()
    assert all(g.isfinite().all() for g in gradients(function, p, q, curv))


@each_space
def test_coincident_points_are_at_distance_0_with_gradient_0(curv):
    p = ball_points(curv, 8)
    assert torch.equal(poincare.dist(p, p, curv), torch.zeros(len(p), dtype=curv.dtype))
    for gradient in gradients(lambda a, b: poincare.dist(a, b, curv), p, p):
        assert torch.equal(gradient, torch.zeros_like(p))


@each_space
def test_the_maps_at_the_origin_are_multiples_of_the_identity(curv):
    zero = torch.zeros(4, dtype=curv.dtype)
    maps = {poincare.exp_map0: 1.0, poincare.log_map0: 1.0, poincare.to_lorentz: 2.0, poincare.from_lorentz: 0.5}
    for function, factor in maps.items():
        assert torch.equal(function(zero, curv), zero)
        by_point, _ = torch.autograd.functional.jacobian(function, (zero, curv))
        torch.testing.assert_close(by_point, factor * torch.eye(4).to(zero))


# Precision and errors -------------------------------------------------------------------------------------------------


@each_function
def test_an_outer_autocast_changes_nothing(function):
    p, q = 0.2 * torch.randn(2, 5, 4)
    assert_autocast_changes_nothing(lambda p, q: function(p, q, 0.7), p, q)


@each_function
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_points_are_refused(function, dtype):
    p = torch.zeros(5, 16, dtype=dtype)
    with pytest.raises(InputError, match="float32 or float64 points"):
        function(p, p, 1.0)


@each_function
@pytest.mark.parametrize("curv", [0.0, -1.0, float("nan")])
def test_curv_must_be_positive(function, curv):
    with pytest.raises(InputError, match="curv must be positive"):
        function(torch.zeros(5, 16), torch.zeros(5, 16), curv)


@each_function
def test_the_result_has_the_dtype_of_the_points(function):
    for dtype in DTYPES:
        p = torch.zeros(5, 16, dtype=dtype)
        assert function(p, p, 1.0).dtype == function(p, p, torch.tensor(1.0)).dtype == dtype
