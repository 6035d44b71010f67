"""The spaces a model can be trained in, behind one signature."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from hypclip.errors import ConfigError, HypclipError, InputError
from hypclip.geometry import lorentz, product
from hypclip.geometry.metric import Metric
from tests.support.checks import DTYPES, assert_autocast_changes_nothing, gradients

F, D = 2, 4
METRICS = {
    "lorentz": Metric(),
    "sphere": Metric("sphere"),
    "euclidean": Metric("euclidean"),
    "squared": Metric("euclidean", "squared"),
    "l1": Metric("product", "l1", D),
    "l1_mean": Metric("product", "l1_mean", D),
    "l2": Metric("product", "l2", D),
}
each_metric = pytest.mark.parametrize("name", METRICS)
FUNCTIONS = {
    "lift": lambda m, x, y, c: m.lift(x, scales(m, 0.5), c),
    "pairwise_similarity": lambda m, x, y, c: m.pairwise_similarity(x, y, c),
    "mean": lambda m, x, y, c: m.mean(torch.stack([x, y], -2), c),
    "radius": lambda m, x, y, c: m.radius(x, c),
}
each_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def curvature(metric: Metric, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor([0.4, 1.3] if metric.geometry == "product" else 0.7, dtype=dtype)


def scales(metric: Metric, scale: float) -> Tensor:
    """Return the same scale for every factor, in the shape that a model has."""
    return torch.full((F,) if metric.geometry == "product" else (), scale)


def features(rows: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(rows, F * D, dtype=dtype)


def placed(metric: Metric, rows: int = 5) -> Tensor:
    return metric.lift(features(rows), scales(metric, 0.6), curvature(metric))


def row_wise(metric: Metric, x: Tensor, y: Tensor) -> Tensor:
    """Return the distance of paired rows, by the most accurate formula; for the sphere minus the cosine."""
    match metric.geometry:
        case "lorentz":
            return lorentz.dist(x, y, curvature(metric))
        case "sphere":
            return -cosine_similarity(x, y, dim=-1)
        case "euclidean":
            return (x - y).norm(dim=-1) ** (2 if metric.distance == "squared" else 1)
    return product.dist(x, y, curvature(metric), D, metric.distance)


# Similarity -----------------------------------------------------------------------------------------------------------


@each_metric
def test_similarity_is_minus_the_distance_or_the_cosine(name):
    metric = METRICS[name]
    x, y = placed(metric), placed(metric, 4)
    got = metric.pairwise_similarity(x, y, curvature(metric))
    want = -row_wise(metric, x[:, None].expand(5, 4, -1), y[None].expand(5, 4, -1))
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def test_on_the_sphere_only_directions_count():
    x, y = features(), features(4)
    metric = METRICS["sphere"]
    torch.testing.assert_close(
        metric.pairwise_similarity(3 * x, 0.1 * y, 0.7), metric.pairwise_similarity(x, y, 2.0), rtol=1e-14, atol=1e-14
    )


@each_metric
def test_the_most_similar_is_the_point_itself(name):
    metric = METRICS[name]
    y = placed(metric, 20).float()
    similarity = metric.pairwise_similarity(y, y, curvature(metric, torch.float32))
    assert torch.equal(similarity.argmax(-1), torch.arange(20))
    torch.testing.assert_close(similarity, similarity.T, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("name", ["l1", "l1_mean", "l2"])
def test_distances_in_the_product_are_those_of_one_factor_when_the_other_stays(name):
    metric = METRICS[name]
    x, y = placed(metric), placed(metric, 4)
    x[:, D:] = y[:1, D:]
    y[:, D:] = y[:1, D:]
    alone = lorentz.pairwise_dist(x[:, :D], y[:, :D], 0.4)
    got = -metric.pairwise_similarity(x, y, curvature(metric))
    torch.testing.assert_close(got, alone / (F if name == "l1_mean" else 1), rtol=1e-6, atol=1e-6)


# Lift, mean, radius ---------------------------------------------------------------------------------------------------


def test_a_lift_scales_and_lands_in_the_space():
    x, scale = features(), torch.tensor(0.3)
    torch.testing.assert_close(METRICS["lorentz"].lift(x, scale, 0.7), lorentz.exp_map0(0.3 * x, 0.7))
    for name in ("euclidean", "squared"):
        torch.testing.assert_close(METRICS[name].lift(x, scale, 0.7), 0.3 * x)
    unit = METRICS["sphere"].lift(x, scale, 0.7)
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(5).double())
    torch.testing.assert_close((unit * x).sum(-1), x.norm(dim=-1))
    curv = torch.tensor([0.4, 1.3], dtype=torch.float64)
    each = [lorentz.exp_map0(s * x[:, p], c) for s, c, p in ((0.3, 0.4, slice(D)), (0.8, 1.3, slice(D, None)))]
    for name in ("l1", "l1_mean", "l2"):
        got = METRICS[name].lift(x, torch.tensor([0.3, 0.8], dtype=torch.float64), curv)
        torch.testing.assert_close(got, torch.cat(each, -1))
        torch.testing.assert_close(METRICS[name].lift(x, scale, 0.4)[:, :D], each[0])


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.has_cones])
def test_features_of_unit_variance_start_at_a_tangent_length_of_about_1(name):
    metric = METRICS[name]
    dim = 64 * D
    scale = torch.tensor(metric.initial_log_scale(dim)).exp()
    x = metric.lift(torch.randn(400, dim), scale, 1.0)
    parts = x.view(400, 64, D) if metric.geometry == "product" else x.view(400, 1, dim)
    length = torch.asinh(parts.norm(dim=-1)) if metric.is_hyperbolic else parts.norm(dim=-1)
    assert length.square().mean().item() == pytest.approx(1.0, rel=0.02)


@each_metric
def test_the_mean_of_one_point_is_that_point(name):
    metric = METRICS[name]
    x = placed(metric)
    torch.testing.assert_close(metric.mean(x[:, None], curvature(metric)), x)
    torch.testing.assert_close(metric.mean(x[:, None].expand(-1, 3, -1), curvature(metric)), x)
    torch.testing.assert_close(metric.mean(x[:1], curvature(metric)), x[0])


@each_metric
def test_a_mean_is_in_the_space_and_does_not_depend_on_the_order(name):
    metric = METRICS[name]
    x = placed(metric, 15).view(5, 3, -1)
    mean = metric.mean(x, curvature(metric))
    assert mean.shape == (5, F * D)
    torch.testing.assert_close(metric.mean(x.flip(1), curvature(metric)), mean)
    within = metric.radius(x, curvature(metric)).amax(1)
    assert (metric.radius(mean, curvature(metric)) <= within + 1e-12).all()


def test_means_are_taken_in_the_tangent_space_or_on_the_sphere():
    v = torch.randn(5, 3, F * D, dtype=torch.float64)
    torch.testing.assert_close(
        METRICS["lorentz"].mean(lorentz.exp_map0(v, 0.7), 0.7), lorentz.exp_map0(v.mean(1), 0.7), rtol=1e-9, atol=1e-12
    )
    torch.testing.assert_close(METRICS["euclidean"].mean(v, 0.7), v.mean(1))
    curv = curvature(METRICS["l1"])
    torch.testing.assert_close(
        METRICS["l1"].mean(product.exp_map0(v, curv, D), curv),
        product.exp_map0(v.mean(1), curv, D),
        rtol=1e-9,
        atol=1e-12,
    )
    mean = METRICS["sphere"].mean(v, 0.7)
    torch.testing.assert_close(mean.norm(dim=-1), torch.ones(5).double())
    torch.testing.assert_close(METRICS["sphere"].mean(v * torch.tensor([1.0, 5.0, 0.2])[:, None], 0.7), mean)


@each_metric
def test_the_radius_is_the_distance_to_the_origin(name):
    metric = METRICS[name]
    x = placed(metric)
    radius = metric.radius(x, curvature(metric))
    if metric.geometry == "sphere":
        want = torch.ones(5).double()
    else:
        apart = -metric.pairwise_similarity(x, torch.zeros(1, F * D).double(), curvature(metric))[:, 0]
        want = apart.sqrt() if metric.distance == "squared" else apart
    torch.testing.assert_close(radius, want)


# What a metric says of itself -----------------------------------------------------------------------------------------


def test_what_a_metric_says_of_itself():
    said = {name: (m.is_hyperbolic, m.has_cones, m.factors(F * D)) for name, m in METRICS.items()}
    assert said == {
        "lorentz": (True, True, 1),
        "sphere": (False, False, 1),
        "euclidean": (False, True, 1),
        "squared": (False, True, 1),
        "l1": (True, True, F),
        "l1_mean": (True, True, F),
        "l2": (True, True, F),
    }
    assert Metric() == Metric("lorentz", "geodesic", None)
    assert METRICS["l1"].initial_log_scale(512) == pytest.approx(-0.5 * math.log(D))
    assert METRICS["lorentz"].initial_log_scale(512) == pytest.approx(-0.5 * math.log(512))


@pytest.mark.parametrize(
    ("geometry", "distance", "factor_dim", "message"),
    [
        ("lorentz", "squared", None, "distance must be one of geodesic for geometry lorentz, got 'squared'"),
        ("lorentz", "l1", None, "distance must be one of geodesic for geometry lorentz, got 'l1'"),
        ("sphere", "squared", None, "distance must be one of geodesic for geometry sphere"),
        ("euclidean", "l2", None, "distance must be one of geodesic, squared for geometry euclidean, got 'l2'"),
        ("product", "geodesic", 4, "distance must be one of l1, l1_mean, l2 for geometry product, got 'geodesic'"),
        ("product", "squared", 4, "distance must be one of l1, l1_mean, l2 for geometry product"),
        ("product", "l1", None, "factor_dim.* belongs to geometry product.*got factor_dim None with geometry product"),
        ("lorentz", "geodesic", 4, "factor_dim.* got factor_dim 4 with geometry lorentz"),
        ("sphere", "geodesic", 4, "factor_dim.* got factor_dim 4 with geometry sphere"),
        ("euclidean", "squared", 8, "factor_dim.* got factor_dim 8 with geometry euclidean"),
    ],
)
def test_combinations_that_mean_nothing_are_refused(geometry, distance, factor_dim, message):
    with pytest.raises(ConfigError, match=message):
        Metric(geometry, distance, factor_dim)


@pytest.mark.parametrize("factor_dim", [3, 5, 16])
def test_a_factor_dim_that_does_not_divide_is_refused(factor_dim):
    metric = Metric("product", "l1", factor_dim)
    with pytest.raises(ConfigError, match=f"factor_dim {factor_dim} does not divide the embedding's 8 dimensions"):
        metric.factors(8)
    with pytest.raises(HypclipError):
        metric.radius(features(), 1.0)


# Gradients and precision ----------------------------------------------------------------------------------------------


@each_metric
def test_gradcheck(name):
    metric = METRICS[name]
    x, y = features(3), features(3)
    inputs = (x, y, scales(metric, 0.5).double(), curvature(metric))

    def everything(x: Tensor, y: Tensor, scale: Tensor, curv: Tensor) -> tuple[Tensor, Tensor]:
        placed = metric.lift(x, scale, curv)
        mean = metric.mean(torch.stack([placed, metric.lift(y, scale, curv)], -2), curv)
        return metric.pairwise_similarity(placed, mean, curv), metric.radius(mean, curv)

    assert torch.autograd.gradcheck(everything, [t.clone().requires_grad_() for t in inputs])


@each_metric
@each_function
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_and_gradients_are_finite_where_they_are_delicate(name, function, dtype):
    metric = METRICS[name]
    x = features(4, dtype)
    half = x.clone()
    half[:, :D] = 0
    for a, b in ((x, x), (0 * x, x), (x, 0 * x), (0 * x, 0 * x), (x, -x), (half, x), (x, x.nextafter(2 * x))):
        inputs = a, b, curvature(metric, dtype)
        assert function(metric, *inputs).isfinite().all()
        assert all(g.isfinite().all() for g in gradients(lambda *i: function(metric, *i), *inputs))


@each_metric
@each_function
def test_an_outer_autocast_changes_nothing(name, function):
    metric = METRICS[name]
    x, y = features(5, torch.float32), features(5, torch.float32)
    curv = curvature(metric, torch.float32)
    assert_autocast_changes_nothing(lambda x, y: function(metric, x, y, curv), x, y)


@each_metric
@each_function
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_points_are_refused(name, function, dtype):
    x = features(5, dtype)
    with pytest.raises(InputError, match="float32 or float64 points"):
        function(METRICS[name], x, x, 1.0)


@each_metric
@each_function
def test_the_result_has_the_dtype_of_the_points(name, function):
    for dtype in DTYPES:
        x = features(5, dtype)
        assert function(METRICS[name], x, x, 1.0).dtype == dtype
