"""Contracts of every function of two points, in every model: gradients, precision, dtypes, batches and refusals."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from hypclip.errors import InputError
from hypclip.geometry import cones, lorentz, poincare
from hypclip.geometry.models import half_space, hemisphere, klein
from tests.support.checks import DTYPES, assert_autocast_changes_nothing, gradients


def unchanged(x: Tensor, curv: float | Tensor) -> Tensor:
    return x


class Case(NamedTuple):
    """A function of two rows and curv, and how points of the hyperboloid become its arguments."""

    function: Callable[..., Tensor]
    place: Callable[..., Tensor] = unchanged

    def points(self, x: Tensor, y: Tensor, curv: float | Tensor = 0.7) -> tuple[Tensor, Tensor]:
        return self.place(x, curv), self.place(y, curv)


def two(mean: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make a weighted mean of n points a function of two."""
    return lambda x, y, c: mean(torch.stack([x, y], -2), c, torch.tensor([0.4, 0.6]).to(x).expand(*x.shape[:-1], 2))


def first(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make a function of one point a function of two."""
    return lambda x, y, c: function(x, c)


def transported(transport: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, y, c: transport(x, y, x.flip(-1) - 0.5 * y, c)


BALL, KLEIN, HALF_SPACE, HEMISPHERE = (m.from_lorentz for m in (poincare, klein, half_space, hemisphere))
ROW_WISE = {
    "lorentz.time_component": Case(first(lorentz.time_component)),
    "lorentz.inner": Case(lorentz.inner),
    "lorentz.dist": Case(lorentz.dist),
    "lorentz.exp_map0": Case(first(lorentz.exp_map0)),
    "lorentz.log_map0": Case(first(lorentz.log_map0)),
    "lorentz.tangent_norm": Case(lorentz.tangent_norm),
    "lorentz.exp_map": Case(lorentz.exp_map),
    "lorentz.log_map": Case(lorentz.log_map),
    "lorentz.parallel_transport": Case(transported(lorentz.parallel_transport)),
    "lorentz.radius": Case(first(lorentz.radius)),
    "lorentz.geodesic": Case(lambda x, y, c: lorentz.geodesic(x, y, 0.3, c)),
    "lorentz.centroid": Case(two(lorentz.centroid)),
    "lorentz.polar": Case(lambda x, y, c: torch.cat(lorentz.polar(x, c), -1)),
    "cones.half_aperture": Case(first(cones.half_aperture)),
    "cones.oxy_angle": Case(cones.oxy_angle),
    "poincare.from_lorentz": Case(first(poincare.from_lorentz)),
    "poincare.to_lorentz": Case(first(poincare.to_lorentz), BALL),
    "poincare.mobius_add": Case(poincare.mobius_add, BALL),
    "poincare.exp_map0": Case(first(poincare.exp_map0)),
    "poincare.log_map0": Case(first(poincare.log_map0), BALL),
    "poincare.exp_map": Case(poincare.exp_map, BALL),
    "poincare.log_map": Case(poincare.log_map, BALL),
    "poincare.geodesic": Case(lambda p, q, c: poincare.geodesic(p, q, 0.3, c), BALL),
    "poincare.parallel_transport": Case(transported(poincare.parallel_transport), BALL),
    "poincare.dist": Case(poincare.dist, BALL),
    "klein.from_lorentz": Case(first(klein.from_lorentz)),
    "klein.to_lorentz": Case(first(klein.to_lorentz), KLEIN),
    "klein.dist": Case(klein.dist, KLEIN),
    "klein.einstein_midpoint": Case(two(klein.einstein_midpoint), KLEIN),
    "half_space.from_lorentz": Case(first(half_space.from_lorentz)),
    "half_space.to_lorentz": Case(first(half_space.to_lorentz), HALF_SPACE),
    "half_space.dist": Case(half_space.dist, HALF_SPACE),
    "hemisphere.from_lorentz": Case(first(hemisphere.from_lorentz)),
    "hemisphere.to_lorentz": Case(first(hemisphere.to_lorentz), HEMISPHERE),
    "hemisphere.dist": Case(hemisphere.dist, HEMISPHERE),
}
PAIRWISE = {
    "lorentz.pairwise_inner": Case(lorentz.pairwise_inner),
    "lorentz.pairwise_dist": Case(lorentz.pairwise_dist),
    "cones.pairwise_oxy_angle": Case(cones.pairwise_oxy_angle),
}
each_function = pytest.mark.parametrize("case", [pytest.param(c, id=n) for n, c in (ROW_WISE | PAIRWISE).items()])
each_row_wise = pytest.mark.parametrize("case", [pytest.param(c, id=n) for n, c in ROW_WISE.items()])


# Gradients ------------------------------------------------------------------------------------------------------------


@each_function
@pytest.mark.parametrize("scale", [1e-3, 0.5, 5.0])
def test_gradcheck(case, scale):
    c = torch.tensor(0.7, dtype=torch.float64)
    leaves = [t.detach().requires_grad_() for t in (*case.points(*scale * torch.randn(2, 3, 4).double(), c), c)]
    assert torch.autograd.gradcheck(case.function, leaves, eps=1e-6 * min(scale, 1.0), rtol=1e-4)


DELICATE = {
    "origin and a point": (torch.zeros(3, 4), torch.ones(3, 4)),
    "a point and the origin": (torch.ones(3, 4), torch.zeros(3, 4)),
    "origin twice": (torch.zeros(3, 4), torch.zeros(3, 4)),
    "coincident": (torch.tensor([[0.3, -0.1, 0.7, 0.2]]) * torch.tensor([[1e-6], [1.0], [9.0]]),) * 2,
    "opposite": (torch.ones(3, 4), -torch.ones(3, 4)),
    "same ray": (torch.ones(3, 4), 2 * torch.ones(3, 4)),
    "1 ulp apart": (torch.ones(3, 4), torch.nextafter(torch.ones(3, 4), torch.tensor(2.0))),
    "tiny": (torch.full((3, 4), 1e-30), torch.full((3, 4), 2e-30)),
    "tiny, across": (torch.tensor([[1e-30, 0.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0, 1e-30]])),
    "along the last axis": (
        torch.tensor([[0.0, 0.0, 0.0, 3.0], [0.0, 0.0, 0.0, -3.0]]),
        torch.tensor([[0.0, 0.0, 0.0, 1.0]]).expand(2, 4),
    ),
}


@each_function
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_and_gradients_are_finite_where_they_are_delicate(case, dtype):
    curv = torch.tensor(0.7, dtype=dtype)
    for name, (x, y) in DELICATE.items():
        x, y = case.points(x.to(dtype), y.to(dtype), curv)
        assert case.function(x, y, curv).isfinite().all(), name
        assert all(gradient.isfinite().all() for gradient in gradients(case.function, x, y, curv)), name


# Precision, shapes and errors -----------------------------------------------------------------------------------------


@each_function
def test_an_outer_autocast_changes_nothing(case):
    assert_autocast_changes_nothing(lambda x, y: case.function(x, y, 0.7), *case.points(*torch.randn(2, 5, 16)))


@each_function
def test_half_precision_points_are_refused(case):
    for dtype in (torch.float16, torch.bfloat16):
        x, y = (point.to(dtype) for point in case.points(*torch.randn(2, 5, 16)))
        with pytest.raises(InputError, match="float32 or float64 points"):
            case.function(x, y, 1.0)


@each_function
def test_curv_must_be_positive(case):
    for curv in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="curv must be positive"):
            case.function(*case.points(*torch.randn(2, 5, 16)), curv)


@each_function
def test_the_result_has_the_dtype_of_the_points(case):
    for dtype in DTYPES:
        x, y = case.points(*torch.randn(2, 5, 16, dtype=dtype))
        assert case.function(x, y, 0.7).dtype == case.function(x, y, torch.tensor(0.7)).dtype == dtype


@each_row_wise
def test_rows_are_independent_of_the_batch_they_come_in(case):
    x, y = case.points(*torch.randn(2, 2, 3, 4))
    batched = case.function(x, y, 0.7)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(case.function(x[i, j], y[i, j], 0.7), batched[i, j])


@each_function
def test_a_non_finite_point_gives_a_non_finite_result(case):
    x, y = case.points(*torch.randn(2, 1, 3))
    for bad in (torch.nan, torch.inf):
        if bad == torch.inf and case is ROW_WISE["cones.half_aperture"]:
            continue  # cones narrow to 0 at infinity
        assert not case.function(x.index_fill(-1, torch.tensor(0), bad), y, 1.0).isfinite().all()
