"""Apertures and exterior angles against 50 digits, their invariants, and their gradients where they are delicate."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hypclip.geometry import cones, lorentz
from tests.support import reference
from tests.support.checks import CURVS_DRAWN, DTYPES, each_curvature, gradients, rotations, tangents
from tests.support.reference import exact, known_pairs, rounded

each_angle = pytest.mark.parametrize(
    "angle",
    [cones.oxy_angle, lambda x, y, c: cones.pairwise_oxy_angle(x, y, c).diagonal()],
    ids=["row-wise", "pairwise"],
)


# Against 50 digits ----------------------------------------------------------------------------------------------------


@each_curvature
@pytest.mark.parametrize("min_radius", [0.1, 0.5])
def test_half_aperture_is_exact(curv, min_radius):
    edge = math.asinh(2 * min_radius)
    radii = (
        1e-6,
        0.1,
        *(edge * (1 + step) for step in (-1e-3, -1e-6, -1e-9, 0, 1e-9, 1e-6, 1e-3)),
        0.5,
        2.0,
        5.0,
        15.0,
    )
    x = reference.points(curv, 8, radii)
    error = reference.absolute(
        cones.half_aperture(x, curv, min_radius), reference.half_aperture(exact(x), exact(curv), min_radius)
    )
    assert error.max() <= 1e-7


@each_curvature
@pytest.mark.parametrize("dim", [2, 8])
def test_oxy_angle_is_exact_for_near_pairs_far_out(curv, dim):
    p = known_pairs(curv.dtype, curv.item(), dim)
    error = reference.absolute(cones.oxy_angle(p.x, p.y, curv), reference.oxy_angle(p.exact_x, p.exact_y, p.c))
    if curv.dtype == torch.float32:
        assert error.max() <= 4e-7
    else:
        assert (error / (1 + p.rho_y.sinh() / p.separation.sinh())).max() <= 2e-15


@each_curvature
@pytest.mark.parametrize(
    "dim, radii, each", [(8, (1e-3, 0.1, 1.0, 4.0, 15.0), 2), (512, (1.0, 15.0), 1)], ids=["8", "512"]
)
def test_pairwise_oxy_angle_keeps_to_its_bound(curv, dim, radii, each):
    eps_ratio = torch.finfo(curv.dtype).eps / torch.finfo(torch.float32).eps
    x, y = reference.pairs(curv, dim, radii, (1e-5, 0.1, 2.0), each=each)
    exact_x, exact_y, c = exact(x)[:, None], exact(y)[None], exact(curv)
    rho_x, rho_y = (rounded(reference.sqrt(c) * reference.radius(p, c)) for p in (exact_x, exact_y))
    separation = rounded(reference.sqrt(c) * reference.dist(exact_x, exact_y, c))
    got = cones.pairwise_oxy_angle(x, y, curv)
    error = reference.absolute(got, reference.oxy_angle(exact_x, exact_y, c))
    bound = (1e-3 * eps_ratio**0.5 + 3e-7 * eps_ratio * rho_x.cosh()) * rho_y.sinh() / separation.sinh()
    told = (separation > 0) & (bound < 1)
    assert told.double().mean() > 0.4
    assert (error / (bound + 4e-7 * eps_ratio))[told].max() <= 1
    assert ((got >= 0) & (got <= 3.1415928)).all()


# Invariants -----------------------------------------------------------------------------------------------------------


@given(tangents(), tangents(), rotations(), CURVS_DRAWN)
def test_rotations_about_the_origin_change_no_cone(v, u, rotation, curv):
    x, y = (lorentz.exp_map0(p / curv**0.5, curv) for p in (v, u))
    aperture = cones.half_aperture(x, curv)
    torch.testing.assert_close(cones.half_aperture(x @ rotation, curv), aperture, rtol=0.0, atol=1e-6)
    separation = curv**0.5 * lorentz.dist(x, y, curv)
    # A rotated point moves by its rounding, which turns the ray to a near point far out.
    slack = 1e-14 * (1 + (v.norm().sinh() + u.norm().sinh()) / separation.clamp(min=1e-9).sinh())
    if slack < 0.1:
        angle = cones.oxy_angle(x @ rotation, y @ rotation, curv)
        torch.testing.assert_close(angle, cones.oxy_angle(x, y, curv), rtol=0.0, atol=slack.item())


@given(tangents(max_norm=8.0), st.floats(0.01, 0.99), st.floats(1.01, 3.0), CURVS_DRAWN, st.sampled_from(DTYPES))
def test_the_angle_is_0_straight_behind_and_pi_towards_the_origin(v, nearer, farther, curv, dtype):
    x, inwards, outwards = (lorentz.exp_map0(scale * v / curv**0.5, curv).to(dtype) for scale in (1.0, nearer, farther))
    slack = 1e-5 if dtype == torch.float32 else 1e-9
    # Rounded to float32, a point far out leaves the ray; the closer it is to x, the more that turns.
    slack *= 1 + torch.sinh(farther * v.norm()).item() / min(1.0, (farther - 1) * v.norm().item())
    if slack < 0.1:
        assert cones.oxy_angle(x, outwards, curv).item() == pytest.approx(0.0, abs=slack)
    slack = 1e-5 * (1 + v.norm().sinh().item() / min(1.0, (1 - nearer) * v.norm().item()))
    if slack < 0.1:
        assert cones.oxy_angle(x, inwards, curv).item() == pytest.approx(math.pi, abs=slack)


@given(tangents(max_norm=6.0), tangents(max_norm=6.0), CURVS_DRAWN)
def test_the_law_of_sines_holds(v, u, curv):
    x, y = (lorentz.exp_map0(p / curv**0.5, curv) for p in (v, u))
    apart = torch.sinh(curv**0.5 * lorentz.dist(x, y, curv))
    sine_at_x, sine_at_y = cones.oxy_angle(x, y, curv).sin(), cones.oxy_angle(y, x, curv).sin()
    torch.testing.assert_close(sine_at_x * v.norm().sinh(), sine_at_y * u.norm().sinh(), rtol=1e-9, atol=1e-8)
    cos_theta = torch.nn.functional.cosine_similarity(v, u, dim=0).clamp(-1, 1)
    torch.testing.assert_close(sine_at_x * apart, (1 - cos_theta**2).sqrt() * u.norm().sinh(), rtol=1e-6, atol=1e-5)


@given(tangents(), CURVS_DRAWN, st.floats(0.05, 0.5))
def test_cones_narrow_outwards(v, curv, min_radius):
    x, farther = (lorentz.exp_map0(scale * v / curv**0.5, curv) for scale in (1.0, 1.1))
    at_x, beyond = (cones.half_aperture(p, curv, min_radius) for p in (x, farther))
    assert 0 < beyond <= at_x <= math.pi / 2
    assert (at_x < math.pi / 2) == (curv**0.5 * x.norm() > 2 * min_radius)


def seen_from(radius: float, theta: float, distance: float, angle: float) -> tuple[float, float]:
    """Return the polar coordinates of the point that (radius, theta) sees at this distance and exterior angle."""
    outwards = math.sinh(radius) * math.cosh(distance) + math.cosh(radius) * math.sinh(distance) * math.cos(angle)
    aside = math.sinh(distance) * math.sin(angle)
    return math.asinh(math.hypot(outwards, aside)), theta + math.atan2(aside, outwards)


@given(st.floats(0.25, 4.0), *(st.floats(0.01, 4.0), st.floats(-1.0, 1.0)) * 2)
def test_entailment_is_transitive(radius, to_y, tilt_y, to_z, tilt_z):
    polar_x = (radius, 0.0)
    polar_y = seen_from(*polar_x, to_y, tilt_y * math.asin(0.2 / math.sinh(radius)))
    polar_z = seen_from(*polar_y, to_z, tilt_z * math.asin(0.2 / math.sinh(polar_y[0])))
    x, y, z = (
        math.sinh(rho) * torch.tensor([math.cos(theta), math.sin(theta)], dtype=torch.float64)
        for rho, theta in (polar_x, polar_y, polar_z)
    )
    for general, specific, tilt in ((x, y, tilt_y), (y, z, tilt_z)):
        angle, aperture = cones.oxy_angle(general, specific, 1.0), cones.half_aperture(general, 1.0)
        torch.testing.assert_close(angle, abs(tilt) * aperture, rtol=1e-9, atol=1e-9)
    assert cones.oxy_angle(x, z, 1.0) <= cones.half_aperture(x, 1.0) + 1e-9


def test_coincident_points_and_the_origin_have_angle_0():
    x, origin = torch.randn(3, 4), torch.zeros(3, 4)
    for a, b in ((x, x), (origin, x), (origin, origin)):
        assert torch.equal(cones.oxy_angle(a, b, 0.7), torch.zeros(3))
        for gradient in gradients(lambda a, b: cones.oxy_angle(a, b, 0.7), a, b):
            assert torch.equal(gradient, origin)


def test_the_angle_of_the_origin_seen_from_anywhere_is_pi():
    x, origin = torch.randn(3, 4), torch.zeros(3, 4)
    torch.testing.assert_close(cones.oxy_angle(x, origin, 0.7), torch.full((3,), math.pi))
    torch.testing.assert_close(cones.pairwise_oxy_angle(x, origin, 0.7), torch.full((3, 3), math.pi))


@each_curvature
def test_pairwise_agrees_with_row_wise(curv):
    x, y = torch.randn(2, 5, 4, dtype=curv.dtype)
    row_wise = cones.oxy_angle(x[:, None].expand(5, 5, 4), y[None].expand(5, 5, 4), curv)
    torch.testing.assert_close(cones.pairwise_oxy_angle(x, y, curv), row_wise, rtol=1e-4, atol=1e-4)


# Gradients ------------------------------------------------------------------------------------------------------------


def on_the_cone(apex_radius: float, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the apex of a cone and a point on its surface, at distance 1 (curvature −1)."""
    aperture = math.asin(min(1.0, 0.2 / math.sinh(apex_radius)))
    along = math.sinh(apex_radius) * math.cosh(1) + math.cosh(apex_radius) * math.sinh(1) * math.cos(aperture)
    x = torch.tensor([[math.sinh(apex_radius), 0.0, 0.0]], dtype=dtype)
    return x, torch.tensor([[along, math.sinh(1) * math.sin(aperture), 0.0]], dtype=dtype)


@pytest.mark.parametrize("apex_radius", [0.1, 0.3, 1.0, 4.0])
def test_gradcheck_on_the_surface_of_a_cone(apex_radius):
    x, y = on_the_cone(apex_radius, torch.float64)

    def margin(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return cones.oxy_angle(x, y, 1.0) - cones.half_aperture(x, 1.0)

    torch.testing.assert_close(margin(x, y), torch.zeros(1, dtype=torch.float64))
    assert torch.autograd.gradcheck(margin, (x.requires_grad_(), y.requires_grad_()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("side", [0.0, 0.2, 1.0])
def test_the_gradient_is_finite_where_a_cone_becomes_a_half_space(dtype, side):
    edge = torch.tensor([0.2, 0.0], dtype=dtype)
    x = torch.nextafter(edge, torch.tensor(side, dtype=dtype)) * torch.tensor([1, 0])
    (gradient,) = gradients(lambda x: cones.half_aperture(x, 1.0), x)
    assert gradient.isfinite().all()
    if side < 0.2:
        assert torch.equal(gradient, torch.zeros_like(x))


@each_angle
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "x, y",
    [
        pytest.param([1e4, 3e3], [1e4, 3e3], id="coincident at radius 10"),
        pytest.param([1e6, 0.0], [1e6, 1.0], id="near at radius 14"),
    ],
)
def test_angles_and_gradients_of_near_pairs_are_finite_far_out(angle, dtype, x, y):
    x, y, curv = (torch.tensor(value, dtype=dtype) for value in ([x, x], [y, y], 0.7))
    assert angle(x, y, curv).isfinite().all()
    assert all(g.isfinite().all() for g in gradients(angle, x, y, curv))


@each_angle
@pytest.mark.parametrize("radius", [1e-4, 1.0, 5.0, 10.0, 15.0])
def test_random_pairs_have_finite_gradients_at_every_radius(angle, radius):
    x, y = (reference.points(torch.tensor(1.0), 16, (radius,), each=200, seed=seed) for seed in (1, 2))
    assert all(g.isfinite().all() for g in gradients(lambda x, y: angle(x, y, 1.0), x, y))
