"""The hemisphere against 50 digits, and the sphere it is."""

import pytest
import torch
from hypothesis import given

from hypclip.geometry import lorentz
from hypclip.geometry.models import half_space, hemisphere
from tests.support import reference
from tests.support.checks import CURVS_DRAWN, DTYPES, each_curvature, gradients, tangents
from tests.support.reference import exact, known_pairs

NEAR = tangents(max_norm=5.0)


# Against 50 digits ----------------------------------------------------------------------------------------------------


@each_curvature
@pytest.mark.parametrize("dim", [1, 2, 8])
def test_the_maps_are_exact(curv, dim):
    bound = 1e-7 if curv.dtype == torch.float32 else 1e-15
    x, c = reference.points(curv, dim), exact(curv)
    j, want = hemisphere.from_lorentz(x, curv), reference.hemisphere_from_lorentz(exact(x), c)
    assert j.shape == (len(x), dim + 1)
    assert reference.relative_rows(j[:, :-1], want[:, :-1]).max() <= bound
    assert reference.relative(j[:, -1], want[:, -1]).max() <= bound
    want = reference.hemisphere_to_lorentz(exact(j), c)
    assert reference.relative_rows(hemisphere.to_lorentz(j, curv), want).max() <= bound


@each_curvature
def test_dist_is_exact(curv):
    pairs = known_pairs(curv.dtype, curv.item())
    j, i = (hemisphere.from_lorentz(x, curv) for x in (pairs.x, pairs.y))
    apart = (j != i).any(-1)
    want = reference.hemisphere_dist(exact(j[apart]), exact(i[apart]), exact(curv))
    got = hemisphere.dist(j[apart], i[apart], curv)
    if curv.dtype == torch.float32:
        assert reference.relative(got, want).max() <= 1e-7
    else:
        reach = torch.maximum(pairs.rho_x, pairs.rho_y).cosh()[apart] * (got + 1 / curv.sqrt())
        assert (reference.absolute(got, want) / reach).max() <= 2e-15


@each_curvature
def test_the_way_there_and_back_keeps_every_digit(curv):
    x = reference.points(curv, 8)
    back = hemisphere.to_lorentz(hemisphere.from_lorentz(x, curv), curv)
    assert ((back - x).norm(dim=-1) / x.norm(dim=-1)).max() <= 4 * torch.finfo(curv.dtype).eps


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_points_below_the_rim_have_no_finite_image(dtype):
    j = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.6, -0.8], [0.0, torch.nan, 1.0], [0.0, 0.0, torch.nan]], dtype=dtype)
    top = torch.tensor([0.0, 0.0, 1.0], dtype=dtype).expand_as(j)
    assert hemisphere.to_lorentz(j, 1.0).isnan().any(-1).all()
    assert hemisphere.dist(j, top, 1.0).isnan().all()
    assert hemisphere.dist(top, j, 1.0).isnan().all()


# Invariants -----------------------------------------------------------------------------------------------------------


@given(NEAR, NEAR, CURVS_DRAWN)
def test_points_lie_on_the_sphere_and_its_distance_is_that_of_the_half_space_around_it(v, u, curv):
    j, i = (hemisphere.from_lorentz(lorentz.exp_map0(t / curv**0.5, curv), curv) for t in (v, u))
    assert j[-1] > 0
    torch.testing.assert_close(j.norm().item(), curv**-0.5, rtol=4e-16, atol=0.0)
    torch.testing.assert_close(hemisphere.dist(j, i, curv), half_space.dist(j, i, curv), rtol=1e-9, atol=1e-9)


@given(NEAR, NEAR, CURVS_DRAWN)
def test_only_the_ray_counts(v, u, curv):
    j, i = (hemisphere.from_lorentz(lorentz.exp_map0(t / curv**0.5, curv), curv) for t in (v, u))
    torch.testing.assert_close(hemisphere.to_lorentz(3 * j, curv), hemisphere.to_lorentz(j, curv))
    want = hemisphere.dist(j, i, curv)
    torch.testing.assert_close(hemisphere.dist(3 * j, 0.5 * i, curv), want, rtol=1e-9, atol=1e-11)


# Gradients ------------------------------------------------------------------------------------------------------------


@each_curvature
def test_coincident_points_are_at_distance_0_with_gradient_0(curv):
    j = hemisphere.from_lorentz(reference.points(curv, 8), curv)
    assert torch.equal(hemisphere.dist(j, j, curv), torch.zeros(len(j), dtype=curv.dtype))
    for gradient in gradients(lambda a, b: hemisphere.dist(a, b, curv), j, j):
        assert torch.equal(gradient, torch.zeros_like(j))
