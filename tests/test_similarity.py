"""The two geometries a model can be trained in, behind one signature."""

import pytest
import torch
from helpers import DTYPES, assert_autocast_changes_nothing

from hypclip.errors import InputError
from hypclip.geometry import lorentz
from hypclip.geometry.similarity import lift, mean_point, pairwise_similarity

GEOMETRIES = ("lorentz", "sphere")
each_geometry = pytest.mark.parametrize("geometry", GEOMETRIES)
FUNCTIONS = {
    "pairwise_similarity": pairwise_similarity,
    "mean_point": lambda x, y, c, g: mean_point(torch.stack([x, y], -2), c, g),
    "lift": lambda x, y, c, g: lift(x, torch.tensor(0.5), c, g),
}
each_function = pytest.mark.parametrize("function", [pytest.param(f, id=n) for n, f in FUNCTIONS.items()])


def test_similarity_is_the_negative_distance_or_the_cosine():
    x, y = torch.randn(3, 8), torch.randn(4, 8)
    torch.testing.assert_close(pairwise_similarity(x, y, 0.7, "lorentz"), -lorentz.pairwise_dist(x, y, 0.7))
    cosine = torch.nn.functional.cosine_similarity(x[:, None], y[None], dim=-1)
    torch.testing.assert_close(pairwise_similarity(x, y, 0.7, "sphere"), cosine)
    torch.testing.assert_close(pairwise_similarity(3 * x, 0.1 * y, 0.7, "sphere"), cosine)


def test_the_most_similar_is_the_nearest():
    y = lorentz.exp_map0(torch.randn(20, 8), 1.0)
    for geometry in GEOMETRIES:
        assert torch.equal(pairwise_similarity(y, y, 1.0, geometry).argmax(-1), torch.arange(20))


def test_a_lift_scales_and_lands_in_the_space():
    features, scale = torch.randn(5, 8), torch.tensor(0.3)
    torch.testing.assert_close(lift(features, scale, 0.7, "lorentz"), lorentz.exp_map0(0.3 * features, 0.7))
    unit = lift(features, scale, 0.7, "sphere")
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(5))
    torch.testing.assert_close((unit * features).sum(-1), features.norm(dim=-1))


@each_geometry
def test_the_mean_of_one_point_is_that_point(geometry):
    x = lift(torch.randn(5, 8), torch.tensor(1.0), 0.7, geometry)
    torch.testing.assert_close(mean_point(x[:, None], 0.7, geometry), x)
    torch.testing.assert_close(mean_point(x[:, None].expand(-1, 3, -1), 0.7, geometry), x)


def test_means_are_taken_in_the_tangent_space_or_on_the_sphere():
    v = torch.randn(5, 3, 8)
    torch.testing.assert_close(
        mean_point(lorentz.exp_map0(v, 0.7), 0.7, "lorentz"), lorentz.exp_map0(v.mean(1), 0.7), rtol=1e-4, atol=1e-5
    )
    mean = mean_point(v, 0.7, "sphere")
    torch.testing.assert_close(mean.norm(dim=-1), torch.ones(5))
    torch.testing.assert_close(mean_point(v * torch.tensor([1.0, 5.0, 0.2])[:, None], 0.7, "sphere"), mean)


@each_geometry
def test_gradcheck(geometry):
    x, y = torch.randn(2, 3, 4, dtype=torch.float64).requires_grad_()
    scale, curv = torch.tensor([0.5, 0.7], dtype=torch.float64).requires_grad_()

    def similarity(x, y, scale, curv):
        return pairwise_similarity(
            lift(x, scale, curv, geometry), mean_point(y[:, None], curv, geometry), curv, geometry
        )

    assert torch.autograd.gradcheck(similarity, (x, y, scale, curv))


@each_function
@each_geometry
def test_an_outer_autocast_changes_nothing(function, geometry):
    x, y = torch.randn(2, 5, 16)
    assert_autocast_changes_nothing(lambda x, y: function(x, y, 0.7, geometry), x, y)


@each_function
@each_geometry
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_points_are_refused(function, geometry, dtype):
    x = torch.randn(5, 16, dtype=dtype)
    with pytest.raises(InputError, match="float32 or float64 points"):
        function(x, x, 1.0, geometry)


@each_function
@each_geometry
def test_the_result_has_the_dtype_of_the_points(function, geometry):
    for dtype in DTYPES:
        x = torch.randn(5, 16, dtype=dtype)
        assert function(x, x, 1.0, geometry).dtype == dtype
