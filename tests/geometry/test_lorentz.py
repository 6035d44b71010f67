"""The hyperboloid against 50 digits, its invariants, and its gradients where they are delicate."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from hypclip.errors import InputError
from hypclip.geometry import lorentz
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
from tests.support.reference import exact, known_pairs, rounded

RHO = torch.logspace(-6, np.log10(15), 40).tolist()
"""√c · radius, dense enough to meet both sides of the switch to the series."""

# Against 50 digits ----------------------------------------------------------------------------------------------------


@each_curvature
@pytest.mark.parametrize("dim, radii", [(2, RHO), (16, RHO), (512, RHO[::8])], ids=["2", "16", "512"])
def test_the_functions_of_one_point_are_exact(curv, dim, radii):
    eps_ratio = torch.finfo(curv.dtype).eps / torch.finfo(torch.float32).eps
    x = reference.points(curv, dim, radii, each=1)
    exact_x, c = exact(x), exact(curv)
    time = reference.relative(lorentz.time_component(x, curv).squeeze(-1), reference.time_component(exact_x, c))
    log = reference.relative_rows(lorentz.log_map0(x, curv), reference.log_map0(exact_x, c))
    radius = reference.relative(lorentz.radius(x, curv), reference.radius(exact_x, c))
    assert time.max() <= 3e-7 * eps_ratio
    assert log.max() <= 4e-7 * eps_ratio
    assert radius.max() <= 4e-7 * eps_ratio


@each_curvature
@pytest.mark.parametrize("dim, each", [(2, 4), (16, 2), (512, 1)])
@pytest.mark.parametrize("reach, bound", [(RHO[::2], 2e-6), ((20.0, 25.0, 32.0), 5e-6)], ids=["15", "32"])
def test_exp_map0_is_exact(curv, dim, each, reach, bound):
    v = reference.vectors([rho / curv.sqrt().item() for rho in reach], dim, curv.dtype, each=each)
    error = reference.relative_rows(lorentz.exp_map0(v, curv), reference.exp_map0(exact(v), exact(curv)))
    assert error.max() <= bound * torch.finfo(curv.dtype).eps / torch.finfo(torch.float32).eps


@each_curvature
def test_the_maps_at_the_origin_meet_their_bar_at_every_curvature(curv):
    norms = torch.logspace(-6, 1, 30).tolist()
    v = reference.vectors(norms, 16, curv.dtype, each=2)
    x = reference.points(curv, 16, [norm * curv.sqrt().item() for norm in norms], each=2)
    assert reference.relative_rows(lorentz.exp_map0(v, curv), reference.exp_map0(exact(v), exact(curv))).max() <= 1e-5
    assert reference.relative_rows(lorentz.log_map0(x, curv), reference.log_map0(exact(x), exact(curv))).max() <= 1e-5


@each_curvature
@pytest.mark.parametrize("dim", [2, 8])
def test_dist_is_exact_for_near_pairs_far_out(curv, dim):
    p = known_pairs(curv.dtype, curv.item(), dim)
    error = reference.relative(lorentz.dist(p.x, p.y, curv), p.exact_dist)
    if curv.dtype == torch.float32:
        assert error.max() <= 1e-7
    else:
        assert (error / torch.maximum(p.rho_x, p.rho_y).cosh()).max() <= 2e-15


@each_curvature
def test_inner_is_exact_up_to_its_cancellation(curv):
    p = known_pairs(curv.dtype, curv.item())
    want = reference.inner(p.exact_x, p.exact_y, p.c)
    times = rounded(reference.time_component(p.exact_x, p.c) * reference.time_component(p.exact_y, p.c))
    relative = 1e-7 if curv.dtype == torch.float32 else 1e-15
    assert (
        reference.absolute(lorentz.inner(p.x, p.y, curv), want) <= relative * rounded(abs(want)) + 1e-15 * times
    ).all()


@each_curvature
@pytest.mark.parametrize(
    "dim, radii, each", [(8, (1e-3, 0.1, 1.0, 4.0, 15.0), 2), (512, (1.0, 15.0), 1)], ids=["8", "512"]
)
def test_pairwise_functions_keep_to_their_bounds(curv, dim, radii, each):
    eps_ratio = torch.finfo(curv.dtype).eps / torch.finfo(torch.float32).eps
    x, y = reference.pairs(curv, dim, radii, (1e-5, 0.1, 2.0), each=each)
    exact_x, exact_y, c = exact(x)[:, None], exact(y)[None], exact(curv)
    inner = reference.inner(exact_x, exact_y, c)
    times = rounded(reference.time_component(exact_x, c) * reference.time_component(exact_y, c))
    assert (reference.absolute(lorentz.pairwise_inner(x, y, curv), inner) / times).max() <= 1e-6 * eps_ratio

    # sinh²(√c d/2) = (cosh(√c d) − 1)/2
    half = (-c * inner - 1) / 2
    got = reference.sinh(reference.sqrt(c) * exact(lorentz.pairwise_dist(x, y, curv)) / 2) ** 2
    sinh_x, sinh_y = (rounded(reference.sqrt(c) * reference.norm(p)) for p in (exact_x, exact_y))
    unit = sinh_x * sinh_y + (1 + sinh_x.asinh() + sinh_y.asinh()) * rounded(half)
    assert (rounded(abs(got - half)) / unit).max() <= 1e-6 * eps_ratio


@each_curvature
def test_the_maps_at_a_point_are_exact(curv):
    p = known_pairs(curv.dtype, curv.item())
    single = curv.dtype == torch.float32
    cosh_x, cosh_y = p.rho_x.cosh(), p.rho_y.cosh()

    log = reference.log_map(p.exact_x, p.exact_y, p.c)
    error = length(p.exact_x, exact(lorentz.log_map(p.x, p.y, curv)) - log, p.c) / rounded(p.exact_dist)
    assert (error / (1e-7 * cosh_x if single else 1e-15 * (cosh_x + cosh_y))).max() <= 1

    # What the maps are given is the logarithm rounded: tangents of every length, outwards, inwards and across.
    v = rounded(log).to(curv.dtype)
    norm = reference.sqrt(reference.tangent_inner(p.exact_x, exact(v), exact(v), p.c))
    error = reference.relative(lorentz.tangent_norm(p.x, v, curv), norm)
    assert (error / (1e-7 if single else 2e-15 * cosh_x)).max() <= 1

    want = reference.exp_map(p.exact_x, exact(v), p.c)
    off = rounded(reference.dist(exact(lorentz.exp_map(p.x, v, curv)), want, p.c))
    bound = 1e-15 * cosh_x * rounded(reference.sqrt(p.c) * norm).cosh() / curv.double().sqrt()
    bound += 1e-7 * rounded(reference.time_component(want, p.c)) if single else 0
    assert (off / bound)[p.rho_y < 15.01].max() <= 1


@each_curvature
def test_parallel_transport_is_exact(curv):
    p = known_pairs(curv.dtype, curv.item())
    v = lorentz.log_map(p.x, p.y, curv)  # every other tangent along the geodesic, the others across and along
    v[::2] = torch.randn_like(v[::2])
    want = reference.parallel_transport(p.exact_x, p.exact_y, exact(v), p.c)
    error = length(p.exact_y, exact(lorentz.parallel_transport(p.x, p.y, v, curv)) - want, p.c)
    error /= length(p.exact_x, exact(v), p.c) * (p.rho_x.cosh() + p.rho_y.cosh())
    assert error.max() <= (1e-7 if curv.dtype == torch.float32 else 1e-15)


def length(x: reference.Exact, v: reference.Exact, c: reference.Exact) -> torch.Tensor:
    return rounded(reference.sqrt(abs(reference.tangent_inner(x, v, v, c))))


@each_curvature
@pytest.mark.parametrize("t", [0.0, 0.25, 1.0])
def test_geodesic_is_exact(curv, t):
    p = known_pairs(curv.dtype, curv.item())
    inside = p.rho_y < 15.01
    want = reference.geodesic(p.exact_x, p.exact_y, reference.mpf(t), p.c)
    error = rounded(reference.norm(exact(lorentz.geodesic(p.x, p.y, t, curv)) - want))
    error /= rounded(reference.time_component(want, p.c))
    assert error[inside].max() <= (1e-7 if curv.dtype == torch.float32 else 1e-10)


@each_curvature
def test_centroid_is_exact_far_out(curv):
    p = known_pairs(curv.dtype, curv.item())
    weights = torch.rand(len(p.x), 2, dtype=curv.dtype)
    two = np.stack([p.exact_x, p.exact_y], 1)
    want = reference.centroid(two, exact(weights), p.c)
    error = rounded(reference.norm(exact(lorentz.centroid(torch.stack([p.x, p.y], 1), curv, weights)) - want))
    error /= rounded(reference.time_component(want, p.c))
    assert error[p.rho_y < 15.01].max() <= (1e-7 if curv.dtype == torch.float32 else 1e-10)


def test_float32_reaches_as_far_as_documented():
    axis = torch.tensor([[1.0, 0.0]])
    assert lorentz.exp_map0(88 * axis, 1.0).isfinite().all()
    x = lorentz.exp_map0(torch.cat([44 * axis, -44 * axis]), 1.0)
    assert lorentz.time_component(x, 1.0).isfinite().all()
    torch.testing.assert_close(lorentz.radius(x, 1.0), torch.tensor([44.0, 44.0]))
    exact = torch.tensor([[0.0, 88.0], [88.0, 0.0]])
    torch.testing.assert_close(lorentz.pairwise_dist(x, x, 1.0, exact_within=0.1), exact)
    torch.testing.assert_close(lorentz.pairwise_dist(x, x.flip(0), 1.0).diagonal(), torch.tensor([88.0, 88.0]))
    torch.testing.assert_close(lorentz.dist(x, x.flip(0), 1.0), torch.tensor([88.0, 88.0]))


@pytest.mark.parametrize("dtype, limit", [(torch.float32, 88.0), (torch.float64, 709.0)])
@pytest.mark.parametrize("curv", [0.1, 10.0])
def test_a_tangent_beyond_the_range_of_sinh_is_refused(dtype, limit, curv):
    """Not clamped, and not infinite."""
    v = torch.tensor([[1.0, 0.0], [0.0, limit * 1.01]], dtype=dtype) / curv**0.5
    with pytest.raises(InputError, match=rf"√c\|v\| beyond {limit:.0f}"):
        lorentz.exp_map0(v, curv)
    assert lorentz.exp_map0(v * torch.tensor([torch.nan, 1.0], dtype=dtype), curv).isnan().all()  # a NaN stays one


# Invariants -----------------------------------------------------------------------------------------------------------


@given(tangents(), CURVS_DRAWN, st.sampled_from(DTYPES))
def test_exp_and_log_are_inverse(v, curv, dtype):
    v = (v / curv**0.5).to(dtype)
    eps = torch.finfo(dtype).eps
    x = lorentz.exp_map0(v, curv)
    assert (lorentz.log_map0(x, curv) - v).norm() <= 16 * eps * v.norm()
    assert (lorentz.exp_map0(lorentz.log_map0(x, curv), curv) - x).norm() <= 64 * eps * x.norm()
    torch.testing.assert_close(lorentz.radius(x, curv), v.norm(), rtol=16 * eps, atol=0.0)
    torch.testing.assert_close(lorentz.dist(x, torch.zeros_like(x), curv), v.norm(), rtol=16 * eps, atol=0.0)


@given(tangents(), tangents(), CURVS_DRAWN, st.sampled_from(DTYPES), st.floats(0, 1))
def test_points_lie_on_the_hyperboloid(v, u, curv, dtype, t):
    x, y = (lorentz.exp_map0((p / curv**0.5).to(dtype), curv) for p in (v, u))
    for point in (x, y, lorentz.geodesic(x, y, t, curv), lorentz.centroid(torch.stack([x, y]), curv)):
        time = lorentz.time_component(point.double(), curv).item()
        assert lorentz.inner(point.double(), point.double(), curv).item() == pytest.approx(
            -1 / curv, abs=4e-15 * time**2
        )


@given(tangents(), tangents(), CURVS_DRAWN, st.sampled_from(DTYPES))
def test_dist_is_symmetric(v, u, curv, dtype):
    x, y = rows(*(lorentz.exp_map0((p / curv**0.5).to(dtype), curv) for p in (v, u)))
    assert torch.equal(lorentz.dist(x, y, curv), lorentz.dist(y, x, curv))
    both = torch.cat([x, y])
    half = torch.sinh(curv**0.5 / 2 * lorentz.pairwise_dist(both, both, curv)).square()
    rho = curv**0.5 * lorentz.radius(both, curv)
    bound = rho.sinh().unsqueeze(1) * rho.sinh() + (1 + rho.unsqueeze(1) + rho) * half
    assert ((half - half.T).abs() <= 8 * torch.finfo(dtype).eps * bound).all()


@given(tangents(), tangents(), tangents(), CURVS_DRAWN, st.sampled_from(DTYPES))
def test_dist_obeys_the_triangle_inequality(v, u, w, curv, dtype):
    x, y, z = (lorentz.exp_map0((p / curv**0.5).to(dtype), curv) for p in (v, u, w))
    slack = 1e-7 if dtype == torch.float32 else 2e-15 * max(p.norm().cosh().item() for p in (v, u, w))
    detour = lorentz.dist(x, y, curv) + lorentz.dist(y, z, curv)
    assert lorentz.dist(x, z, curv) <= detour * (1 + 4 * slack)


@given(tangents(), tangents(), rotations(), CURVS_DRAWN)
def test_rotations_about_the_origin_change_no_distance(v, u, rotation, curv):
    x, y = (lorentz.exp_map0(p / curv**0.5, curv) for p in (v, u))
    moved = 64 * torch.finfo(torch.float64).eps * max(v.norm().cosh().item(), u.norm().cosh().item())
    turned = lorentz.dist(x @ rotation, y @ rotation, curv)
    torch.testing.assert_close(
        turned, lorentz.dist(x, y, curv), rtol=moved, atol=moved * max(v.norm(), u.norm()).item()
    )
    expected = lorentz.exp_map0(v, curv) @ rotation
    off = 1e-13 * expected.norm().item()  # a point reaches 1e19 here: what counts is the error beside its length
    torch.testing.assert_close(lorentz.exp_map0(v @ rotation, curv), expected, rtol=0.0, atol=off)


@given(tangents(), tangents(), CURVS_DRAWN, st.floats(0, 1))
def test_a_geodesic_runs_at_constant_speed(v, u, curv, t):
    x, y = (lorentz.exp_map0(p / curv**0.5, curv) for p in (v, u))
    slack = 64 * torch.finfo(torch.float64).eps * max(v.norm().cosh().item(), u.norm().cosh().item()) / curv**0.5
    whole, part = lorentz.dist(x, y, curv), lorentz.dist(x, lorentz.geodesic(x, y, t, curv), curv)
    torch.testing.assert_close(part, t * whole, rtol=1e-8, atol=slack)


NEAR = tangents(max_norm=4.0)


@given(NEAR, NEAR, CURVS_DRAWN, st.floats(0, 1))
def test_the_maps_at_a_point_are_inverse_and_follow_the_geodesic(v, u, curv, t):
    x, y = (lorentz.exp_map0(p / curv**0.5, curv) for p in (v, u))
    log, d = lorentz.log_map(x, y, curv), lorentz.dist(x, y, curv)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(lorentz.tangent_norm(x, log, curv), d, **close)
    torch.testing.assert_close(lorentz.exp_map(x, log, curv), y, **close)
    torch.testing.assert_close(lorentz.exp_map(x, t * log, curv), lorentz.geodesic(x, y, t, curv), **close)
    torch.testing.assert_close(lorentz.log_map(x, lorentz.exp_map(x, u, curv), curv), u, rtol=1e-8, atol=1e-8)


@given(NEAR, NEAR, NEAR, NEAR, CURVS_DRAWN)
def test_parallel_transport_is_an_isometry_of_the_tangent_spaces(v, u, a, b, curv):
    x, y = (lorentz.exp_map0(p / curv**0.5, curv) for p in (v, u))

    def product(at: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (lorentz.tangent_norm(at, a + b, curv) ** 2 - lorentz.tangent_norm(at, a - b, curv) ** 2) / 4

    moved_a, moved_b = (lorentz.parallel_transport(x, y, t, curv) for t in (a, b))
    torch.testing.assert_close(product(y, moved_a, moved_b), product(x, a, b), rtol=1e-9, atol=1e-7)
    torch.testing.assert_close(lorentz.parallel_transport(y, x, moved_a, curv), a, rtol=1e-8, atol=1e-8)
    log, back = lorentz.log_map(x, y, curv), lorentz.log_map(y, x, curv)
    torch.testing.assert_close(lorentz.parallel_transport(x, y, log, curv), -back, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(lorentz.parallel_transport(x, x, a, curv), a)


def test_transport_round_a_triangle_turns_by_its_area():
    # Curvature −c turns a vector by c times the area, which is π less the angles.
    curv, corners = 0.7, torch.tensor([[0.0, 0.0], [1.2, 0.1], [0.3, 0.9]], dtype=torch.float64)
    start = v = torch.tensor([1.0, 0.0], dtype=torch.float64)
    angles = 0.0
    for i in range(3):
        x, y, z = (corners[(i + k) % 3] for k in range(3))
        v = lorentz.parallel_transport(x, y, v, curv)
        ahead, behind = (lorentz.log_map(x, p, curv) for p in (y, z))
        d_y, d_z, d = (lorentz.tangent_norm(x, t, curv) for t in (ahead, behind, ahead - behind))
        angles += torch.acos((d_y**2 + d_z**2 - d**2) / (2 * d_y * d_z))
    torch.testing.assert_close(v.norm(), start.norm())
    torch.testing.assert_close(torch.atan2(v[1], v[0]).abs(), torch.pi - angles)


@given(tangents(), CURVS_DRAWN)
def test_the_maps_at_the_origin_are_those_at_a_point(v, curv):
    v = v / curv**0.5
    zero, x = torch.zeros_like(v), lorentz.exp_map0(v, curv)
    torch.testing.assert_close(lorentz.tangent_norm(zero, v, curv), v.norm())
    torch.testing.assert_close(lorentz.exp_map(zero, v, curv), x, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(lorentz.log_map(zero, x, curv), lorentz.log_map0(x, curv), rtol=1e-12, atol=0.0)


@given(tangents(), tangents(), CURVS_DRAWN, st.floats(0.01, 100))
def test_the_centroid_of_two_points_is_their_midpoint(v, u, curv, scale):
    x, y = (lorentz.exp_map0(p / curv**0.5, curv) for p in (v, u))
    middle = lorentz.geodesic(x, y, 0.5, curv)
    slack = 1e-10 * lorentz.time_component(middle, curv).item()
    two = torch.stack([x, y])
    weights = torch.full((2,), scale, dtype=torch.float64)
    for mean in (
        lorentz.centroid(two, curv),
        lorentz.centroid(two.flip(0), curv),
        lorentz.centroid(two, curv, weights),
    ):
        torch.testing.assert_close(mean, middle, rtol=0.0, atol=slack)


def test_the_centroid_of_equal_points_is_that_point_even_at_radius_20():
    x = reference.points(torch.tensor(1.0, dtype=torch.float64), 4, (1e-6, 1.0, 20.0), each=2)
    torch.testing.assert_close(lorentz.centroid(x[:, None].expand(-1, 5, -1), 1.0), x, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(lorentz.centroid(torch.stack([x, -x], 1), 1.0), torch.zeros_like(x))


def test_a_geodesic_between_coincident_points_stays_there():
    x = reference.points(torch.tensor(1.0), 4)
    for t in (0.0, 0.3, 1.0):
        torch.testing.assert_close(lorentz.geodesic(x, x, t, 1.0), x)


def test_geodesic_takes_a_fraction_for_each_row():
    x, y = torch.randn(2, 3, 4, dtype=torch.float64)
    t = torch.tensor([[0.0], [0.3], [1.0]], dtype=torch.float64)
    each = [lorentz.geodesic(x[i : i + 1], y[i : i + 1], t[i].item(), 0.5) for i in range(3)]
    torch.testing.assert_close(lorentz.geodesic(x, y, t, 0.5), torch.cat(each))


@each_curvature
def test_pairwise_functions_agree_with_the_row_wise_ones(curv):
    x, y = torch.randn(2, 5, 4, dtype=curv.dtype)
    grid_x, grid_y = x[:, None].expand(5, 5, 4), y[None].expand(5, 5, 4)
    torch.testing.assert_close(lorentz.pairwise_inner(x, y, curv), lorentz.inner(grid_x, grid_y, curv))
    torch.testing.assert_close(lorentz.pairwise_dist(x, y, curv), lorentz.dist(grid_x, grid_y, curv))


def test_the_inner_product_orders_pairs_as_the_distance_does():
    x, y = lorentz.exp_map0(3 * torch.randn(40, 8), 1.0), lorentz.exp_map0(3 * torch.randn(40, 8), 1.0)
    nearest = lorentz.pairwise_dist(x.double(), y.double(), 1.0).argsort(-1)
    assert torch.equal(lorentz.pairwise_inner(x.double(), y.double(), 1.0).argsort(-1, descending=True), nearest)


def test_polar_rebuilds_the_point():
    x = reference.points(torch.tensor(0.7), 4)
    rho, sinh, unit = lorentz.polar(x, 0.7)
    torch.testing.assert_close(rho.sinh(), sinh, rtol=1e-5, atol=0.0)
    torch.testing.assert_close(sinh / 0.7**0.5 * unit, x)
    assert [part.tolist() for part in lorentz.polar(torch.zeros(2), 0.7)] == [[0.0], [0.0], [0.0, 0.0]]


# Gradients ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["origin", "near", "opposite", "same ray"])
def test_gradcheck_of_dist_where_it_is_delicate(case):
    x = torch.randn(3, 4, dtype=torch.float64)
    y = {"origin": 0 * x, "near": x + 1e-3 * torch.randn_like(x), "opposite": -x, "same ray": 3 * x}[case]
    torch.autograd.gradcheck(lambda x, y: lorentz.dist(x, y, 0.7), (x.requires_grad_(), y.detach().requires_grad_()))


@pytest.mark.parametrize(
    "case", ["at the origin", "from the origin", "to the origin", "coincident", "near", "opposite"]
)
def test_gradcheck_of_the_maps_at_a_point_where_they_are_delicate(case):
    x, y, v = torch.randn(3, 2, 4, dtype=torch.float64)
    x, y = {
        "at the origin": (0 * x, 0 * x),
        "from the origin": (0 * x, y),
        "to the origin": (x, 0 * y),
        "coincident": (x, x),
        "near": (x, x + 1e-3 * y),
        "opposite": (x, -x),
    }[case]
    curv = torch.tensor(0.7, dtype=torch.float64)
    x, y, v, still, curv = (tensor.clone().requires_grad_() for tensor in (x, y, v, 0 * v, curv))
    assert torch.autograd.gradcheck(lorentz.exp_map, (x, v, curv))
    assert torch.autograd.gradcheck(lorentz.exp_map, (x, still, curv))
    assert torch.autograd.gradcheck(lorentz.log_map, (x, y, curv))
    assert torch.autograd.gradcheck(lorentz.parallel_transport, (x, y, v, curv))


@each_curvature
def test_coincident_rows_are_at_distance_0_with_gradient_0(curv):
    x = reference.points(curv, 8)
    assert torch.equal(lorentz.dist(x, x, curv), torch.zeros(len(x), dtype=curv.dtype))
    for gradient in gradients(lambda a, b: lorentz.dist(a, b, curv), x, x):
        assert torch.equal(gradient, torch.zeros_like(x))
    (gradient,) = gradients(lambda v: lorentz.tangent_norm(x, v, curv), torch.zeros_like(x))
    assert torch.equal(gradient, torch.zeros_like(x))


@each_curvature
def test_at_the_origin_the_maps_are_the_identity_and_the_radius_has_gradient_0(curv):
    zero = torch.zeros(4, dtype=curv.dtype)
    for function in (lorentz.exp_map0, lorentz.log_map0):
        assert torch.equal(function(zero, curv), zero)
        by_point, _ = torch.autograd.functional.jacobian(function, (zero, curv))
        assert torch.equal(by_point, torch.eye(4).to(zero))
    assert torch.equal(gradients(lambda x: lorentz.radius(x, curv), zero)[0], zero)


# Shapes --------------------------------------------------------------------------------------------------------------


def test_tests_check_the_shapes_of_signatures():
    with pytest.raises(TypeCheckError):
        lorentz.dist(torch.zeros(2, 3), torch.zeros(2, 4), 1.0)
