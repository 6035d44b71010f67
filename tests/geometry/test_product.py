"""Products of hyperboloids against loops over their factors, and what happens where a factor is degenerate."""

import math

import pytest
import torch
from torch import Tensor

from hypclip.errors import InputError
from hypclip.geometry import lorentz, product
from tests.support import reference
from tests.support.checks import DTYPES, assert_autocast_changes_nothing, gradients
from tests.support.reference import exact, known_pairs, rounded

F, D = 3, 4
COMBINES = ("l1", "l1_mean", "l2")
each_combine = pytest.mark.parametrize("combine", COMBINES)
EACH = (0.3, 1.0, 4.0)
"""The curvatures of the factors, where each has its own."""
CURVS = {
    "a float": 0.7,
    "a number": torch.tensor(0.7, dtype=torch.float64),
    "one for all": torch.tensor([0.7], dtype=torch.float64),
    "one per factor": torch.tensor(EACH, dtype=torch.float64),
}
each_curv = pytest.mark.parametrize("curv", CURVS.values(), ids=CURVS)

ROW_WISE = {
    "exp_map0": lambda x, y, c: product.exp_map0(x, c, D),
    "log_map0": lambda x, y, c: product.log_map0(x, c, D),
    **{f"dist {k}": lambda x, y, c, k=k: product.dist(x, y, c, D, k) for k in COMBINES},
    **{f"radius {k}": lambda x, y, c, k=k: product.radius(x, c, D, k) for k in COMBINES},
}
FUNCTIONS = ROW_WISE | {
    f"pairwise_dist {k}": lambda x, y, c, k=k: product.pairwise_dist(x, y, c, D, k) for k in COMBINES
}
each_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def draw(rows: int = 5, dtype: torch.dtype = torch.float64, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(rows, F * D, dtype=dtype)


def by_factor(curv: float | Tensor) -> list[tuple[slice, Tensor]]:
    """Return the slice of each factor's components, and its c."""
    each = torch.as_tensor(curv, dtype=torch.float64).expand(F)
    return [(slice(f * D, (f + 1) * D), each[f]) for f in range(F)]


def combined(distances: Tensor, combine: str) -> Tensor:
    """Combine the last dimension by the definition."""
    match combine:
        case "l1":
            return distances.sum(-1)
        case "l1_mean":
            return distances.sum(-1) / F
    return distances.square().sum(-1).sqrt()


# Factor by factor -----------------------------------------------------------------------------------------------------


@each_curv
@pytest.mark.parametrize("name", ["exp_map0", "log_map0"])
def test_the_maps_at_the_origin_are_those_of_the_factors(name, curv):
    v = draw()
    want = torch.cat([getattr(lorentz, name)(v[:, part], c) for part, c in by_factor(curv)], -1)
    torch.testing.assert_close(getattr(product, name)(v, curv, D), want, rtol=1e-14, atol=0.0)


@each_curv
@each_combine
def test_the_distances_are_combinations_of_those_of_the_factors(combine, curv):
    x, y = draw(5), draw(4)
    grid_x, grid_y = x[:, None].expand(5, 4, -1), y[None].expand(5, 4, -1)
    apart = torch.stack([lorentz.dist(grid_x[..., p], grid_y[..., p], c) for p, c in by_factor(curv)], -1)
    out = torch.stack([lorentz.radius(x[:, p], c) for p, c in by_factor(curv)], -1)
    close = {"rtol": 1e-12, "atol": 0.0}
    torch.testing.assert_close(product.dist(grid_x, grid_y, curv, D, combine), combined(apart, combine), **close)
    torch.testing.assert_close(product.pairwise_dist(x, y, curv, D, combine), combined(apart, combine), **close)
    torch.testing.assert_close(product.radius(x, curv, D, combine), combined(out, combine), **close)
    torch.testing.assert_close(product.combine_distances(apart, combine), combined(apart, combine), **close)


@each_combine
def test_one_factor_is_the_hyperboloid(combine):
    x, y = draw(5), draw(4)
    for curv in (0.7, torch.tensor([0.7], dtype=torch.float64)):
        for got, want in (
            (product.dist(x[:4], y, curv, F * D, combine), lorentz.dist(x[:4], y, 0.7)),
            (product.pairwise_dist(x, y, curv, F * D, combine), lorentz.pairwise_dist(x, y, 0.7)),
            (product.radius(x, curv, F * D, combine), lorentz.radius(x, 0.7)),
        ):
            torch.testing.assert_close(got, want)


def test_factors_of_one_dimension_are_lines():
    # A hyperbolic line has no curvature: the tangent coordinates are the arc lengths.
    v, u = draw(4), draw(4)
    x, y = (product.exp_map0(t, torch.linspace(0.1, 4, F * D).double(), 1) for t in (v, u))
    got = product.dist(x, y, torch.linspace(0.1, 4, F * D).double(), 1, "l2")
    torch.testing.assert_close(got, (v - u).norm(dim=-1))


@each_curv
def test_exp_and_log_are_inverse(curv):
    for scale in (1e-6, 1e-3, 1.0, 5.0):
        v = draw(scale=scale)
        x = product.exp_map0(v, curv, D)
        torch.testing.assert_close(product.log_map0(x, curv, D), v, rtol=1e-13, atol=0.0)
        torch.testing.assert_close(product.exp_map0(product.log_map0(x, curv, D), curv, D), x, rtol=1e-12, atol=0.0)
        out = combined(torch.stack([v[:, p].norm(dim=-1) for p, _ in by_factor(curv)], -1), "l2")
        torch.testing.assert_close(out, v.norm(dim=-1))
        torch.testing.assert_close(product.radius(x, curv, D, "l2"), out, rtol=1e-12, atol=0.0)


@each_combine
def test_a_distance_is_symmetric_and_obeys_the_triangle_inequality(combine):
    curv = torch.tensor(EACH, dtype=torch.float64)
    x, y, z = draw(50), draw(50), draw(50)
    there = product.dist(x, z, curv, D, combine)
    assert torch.equal(there, product.dist(z, x, curv, D, combine))
    assert (there <= product.dist(x, y, curv, D, combine) + product.dist(y, z, curv, D, combine)).all()


def test_factors_come_apart_in_order():
    x = draw()
    parts = product.split(x, D)
    assert parts.shape == (5, F, D)
    assert torch.equal(parts[:, 1], x[:, D : 2 * D])
    assert product.split(x.view(5, 1, -1), 1).shape == (5, 1, F * D, 1)
    scaled, sqrt_c = product.unit_curvature(x, torch.tensor(EACH), D)
    torch.testing.assert_close(scaled, parts * torch.tensor(EACH).double().sqrt()[:, None])
    torch.testing.assert_close(sqrt_c, torch.tensor(EACH).double().sqrt())


def test_rows_may_have_any_number_of_batch_dimensions():
    x, y = draw(12).view(2, 3, 2, -1), draw(12).view(2, 3, 2, -1)
    curv = torch.tensor(EACH, dtype=torch.float64)
    for function in ROW_WISE.values():
        whole, rows = function(x, y, curv), function(x.view(12, -1), y.view(12, -1), curv)
        assert whole.shape[:3] == (2, 3, 2)
        assert torch.equal(whole.reshape(rows.shape), rows)
        assert function(x[0, 0, 0], y[0, 0, 0], curv).shape == whole.shape[3:]


# Against 50 digits ----------------------------------------------------------------------------------------------------


@each_combine
def test_dist_is_exact_for_near_pairs_far_out(combine):
    # Every factor draws its pairs from the same table, in another order, so that near and far ones meet.
    curv = torch.tensor(EACH)
    known = [known_pairs(torch.float32, c.item(), D, 4) for c in curv]
    rows = min(len(p.x) for p in known)
    order = [torch.randperm(rows, generator=torch.Generator().manual_seed(f)) for f in range(F)]
    x, y = (torch.cat([getattr(p, end)[o] for p, o in zip(known, order, strict=True)], -1) for end in ("x", "y"))
    each = [p.exact_dist[o.numpy()] for p, o in zip(known, order, strict=True)]
    want = {"l1": sum(each), "l1_mean": sum(each) / F, "l2": reference.sqrt(sum(d * d for d in each))}[combine]
    assert reference.relative(product.dist(x, y, curv, D, combine), want).max() <= 2e-7


@each_combine
def test_pairwise_dist_is_right_for_small_radii(combine):
    # Published products have factors of 8 dimensions and radii well below 1.
    curv = torch.tensor(EACH)
    for rho in (1e-3, 0.1, 1.0):
        x, y = (
            torch.cat([reference.points(c, D, (rho,), each=9, seed=s + f)[1:4] for f, c in enumerate(curv)], -1)
            for s in (0, 10)
        )
        each = [
            reference.dist(exact(x[:, p])[:, None], exact(y[:, p])[None], exact(curv[f]))
            for f, (p, _) in enumerate(by_factor(1.0))
        ]
        want = {"l1": sum(each), "l1_mean": sum(each) / F, "l2": reference.sqrt(sum(d * d for d in each))}[combine]
        assert reference.relative(product.pairwise_dist(x, y, curv, D, combine), want).max() <= 1e-6


def test_the_maps_at_the_origin_are_exact():
    curv = torch.tensor(EACH)
    v = torch.cat([reference.vectors((1e-6, 1e-3, 1.0, 5.0), D, torch.float32, seed=f) for f in range(F)], -1)
    x = product.exp_map0(v, curv, D)
    log = product.log_map0(x, curv, D)
    radius = product.radius(x, curv, D, "l1")
    outer = 0
    for f, (part, _) in enumerate(by_factor(1.0)):
        want = reference.exp_map0(exact(v[:, part]), exact(curv[f]))
        assert reference.relative_rows(x[:, part], want).max() <= 2e-6
        want = reference.log_map0(exact(x[:, part]), exact(curv[f]))
        assert reference.relative_rows(log[:, part], want).max() <= 8e-7
        outer = outer + rounded(reference.radius(exact(x[:, part]), exact(curv[f])))
    torch.testing.assert_close(radius.double(), outer, rtol=8e-7, atol=0.0)


# Gradients ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@each_function
@each_curv
def test_gradcheck(function, curv):
    curv = torch.as_tensor(curv, dtype=torch.float64).clone()
    leaves = [t.detach().requires_grad_() for t in (draw(3, scale=0.5), draw(3, scale=0.5), curv)]
    assert torch.autograd.gradcheck(function, leaves, rtol=1e-4)


def degenerate() -> dict[str, tuple[Tensor, Tensor]]:
    x = draw(4)
    one_same, one_zero = draw(4), x.clone()
    one_same[:, D : 2 * D] = x[:, D : 2 * D]
    one_zero[:, :D] = 0
    return {
        "origin twice": (0 * x, 0 * x),
        "origin and a point": (0 * x, x),
        "coincident": (x, x),
        "coincident in one factor": (x, one_same),
        "one factor at the origin": (one_zero, one_same),
        "opposite": (x, -x),
        "1 ulp apart": (x, x.nextafter(2 * x)),
        "far": (1e4 * x, -1e4 * one_same),
        "tiny": (1e-30 * x, -1e-30 * x),
    }


@each_function
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_and_gradients_are_finite_where_they_are_delicate(function, dtype):
    for case, (x, y) in degenerate().items():
        inputs = x.to(dtype), y.to(dtype), torch.tensor(EACH, dtype=dtype)
        if case != "far" or function is not FUNCTIONS["exp_map0"]:
            assert function(*inputs).isfinite().all(), case
            assert all(gradient.isfinite().all() for gradient in gradients(function, *inputs)), case


@each_combine
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_coincident_points_are_at_distance_0_with_gradient_0(combine, dtype):
    x = draw(4, dtype)
    inputs = (x, x, torch.tensor(EACH, dtype=dtype))
    assert torch.equal(product.dist(*inputs, D, combine), torch.zeros(4, dtype=dtype))
    for gradient in gradients(lambda *a: product.dist(*a, D, combine), *inputs):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@each_combine
def test_a_factor_in_which_points_coincide_gets_no_gradient(combine):
    x, y = degenerate()["coincident in one factor"]
    by_x, _, by_curv = gradients(lambda *a: product.dist(*a, D, combine), x, y, torch.tensor(EACH, dtype=torch.float64))
    same = by_x[:, D : 2 * D]
    assert torch.equal(same, torch.zeros_like(same))
    assert by_curv[1] == 0
    assert (by_x[:, :D].norm(dim=-1) > 0).all()
    assert (by_curv[[0, 2]] != 0).all()


def test_every_factor_learns_its_own_curvature():
    x, y, curv = draw(), draw(), torch.tensor(EACH, dtype=torch.float64)
    for f, (part, c) in enumerate(by_factor(curv)):
        _, _, got = gradients(lambda *a: product.pairwise_dist(*a, D, "l1"), x, y, curv)
        _, _, want = gradients(lorentz.pairwise_dist, x[:, part], y[:, part], c)
        torch.testing.assert_close(got[f], want)


# Precision and errors -------------------------------------------------------------------------------------------------


@each_function
def test_points_that_do_not_divide_are_refused(function):
    x = torch.randn(2, F * D + 1)
    with pytest.raises(InputError, match="13 components do not divide into factors of factor_dim 4"):
        function(x, x, 1.0)


@pytest.mark.parametrize("factor_dim", [0, -4, 5, 24])
def test_a_factor_dim_that_cannot_be_is_refused(factor_dim):
    with pytest.raises(InputError, match=f"12 components do not divide into factors of factor_dim {factor_dim}"):
        product.dist(draw(), draw(), 1.0, factor_dim, "l1")


@each_function
@pytest.mark.parametrize("shape", [(2,), (F + 1,), (1, F), (F, 1)])
def test_a_curv_of_another_shape_is_refused(function, shape):
    with pytest.raises(InputError, match=r"curv must be one number or one per factor \(3\), got shape"):
        function(draw(), draw(), torch.ones(shape))


@each_function
@pytest.mark.parametrize("curv", [0.0, -1.0, math.nan])
def test_curv_must_be_positive(function, curv):
    with pytest.raises(InputError, match="curv must be positive"):
        function(draw(), draw(), curv)


@each_function
def test_an_outer_autocast_changes_nothing(function):
    x, y = draw(dtype=torch.float32), draw(dtype=torch.float32)
    assert_autocast_changes_nothing(lambda x, y: function(x, y, torch.tensor(EACH)), x, y)


@each_function
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_points_are_refused(function, dtype):
    with pytest.raises(InputError, match="float32 or float64 points"):
        function(draw(dtype=dtype), draw(dtype=dtype), 1.0)


@each_function
@each_curv
def test_the_result_has_the_dtype_of_the_points(function, curv):
    for dtype in DTYPES:
        assert function(draw(dtype=dtype), draw(dtype=dtype), curv).dtype == dtype


@each_function
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_non_finite_point_gives_a_non_finite_result(function, bad):
    x, y = draw(1), draw(1)
    x[0, 5] = bad
    assert not function(x, y, 1.0).isfinite().all()
