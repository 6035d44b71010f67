"""acosh(1 + w), its slope and its second slope, from where 1 + w rounds to 1 to where w² overflows."""

import numpy as np
import pytest
import reference
import torch
from helpers import DTYPES
from mpmath import mp
from reference import exact

from hypclip.geometry.acosh import acosh1p, acosh1p_

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
BOUND = {torch.float32: 4e-7, torch.float64: 1e-15}
NOT_POSITIVE = (0.0, -0.0, -1e-7, -2.0, -5.0)

value_of = np.frompyfunc(lambda w: mp.log1p(w + mp.sqrt(w * (w + 2))), 1, 1)
slope_of = np.frompyfunc(lambda w: 1 / mp.sqrt(w * (w + 2)), 1, 1)
bend_of = np.frompyfunc(lambda w: -(w + 1) / mp.sqrt(w * (w + 2)) ** 3, 1, 1)


def draw(low: float, high: float, dtype: torch.dtype, count: int = 1500) -> torch.Tensor:
    """Draw numbers of every size between two powers of ten."""
    return (10 ** (low + (high - low) * torch.rand(count, dtype=torch.float64))).to(dtype)


def in_place(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    slope, work, spare = (torch.full_like(w, torch.nan) for _ in range(3))
    return acosh1p_(w.clone(), slope, work, spare), slope


# Against 50 digits ----------------------------------------------------------------------------------------------------


@each_dtype
def test_value_and_slope_are_exact(dtype):
    w = draw(-12, 19, dtype, 4000)
    value, slope = in_place(w)
    assert reference.relative(value, value_of(exact(w))).max() <= BOUND[dtype]
    assert reference.relative(slope, slope_of(exact(w))).max() <= BOUND[dtype]


@each_dtype
def test_value_and_slope_are_exact_where_the_square_of_w_overflows(dtype):
    w = torch.cat([draw(19, 37, dtype), torch.tensor([1e37]).to(dtype)])
    value, slope = in_place(w)
    assert reference.relative(value, value_of(exact(w))).max() <= BOUND[dtype]
    assert reference.relative(slope, slope_of(exact(w))).max() <= BOUND[dtype]


@each_dtype
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("reach", [(-12, 19), (19, 37)], ids=["to 1e19", "to 1e37"])
def test_the_gradient_is_exact(dtype, create_graph, reach):
    w = draw(*reach, dtype).requires_grad_()
    upstream = 1 + torch.rand_like(w)
    (gradient,) = torch.autograd.grad(acosh1p(w), w, upstream, create_graph=create_graph)
    assert reference.relative(gradient, slope_of(exact(w)) * exact(upstream)).max() <= BOUND[dtype]


@each_dtype
def test_the_second_gradient_is_exact(dtype):
    w = draw(-12, 6, dtype).requires_grad_()
    (slope,) = torch.autograd.grad(acosh1p(w).sum(), w, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), w)
    assert reference.relative(bend, bend_of(exact(w))).max() <= 2 * BOUND[dtype]


def test_the_plain_form_loses_what_this_one_keeps():
    w = draw(-12, -8, torch.float32)
    assert (torch.acosh(1 + w) == 0).all()
    assert (acosh1p(w) > 0).all()


# Gradients ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_gradcheck(scale):
    w = (scale * (0.5 + torch.rand(2, 3, dtype=torch.float64))).requires_grad_()
    assert torch.autograd.gradcheck(acosh1p, w, eps=1e-6 * scale)
    assert torch.autograd.gradgradcheck(acosh1p, w, eps=1e-6 * scale)


@each_dtype
@pytest.mark.parametrize("bad", NOT_POSITIVE)
def test_value_and_gradient_are_0_where_w_is_a_rounding_error(dtype, bad):
    w = torch.tensor([bad, 1.0], dtype=dtype, requires_grad=True)
    value, slope = in_place(w.detach())
    assert value[0] == slope[0] == 0
    assert acosh1p(w)[0] == 0
    (gradient,) = torch.autograd.grad(acosh1p(w).sum(), w)
    assert gradient[0] == 0
    assert gradient[1] > 0


@each_dtype
@pytest.mark.parametrize("bad", NOT_POSITIVE)
def test_so_are_the_gradients_of_the_gradient(dtype, bad):
    w = torch.tensor([bad, 1.0], dtype=dtype, requires_grad=True)
    upstream = torch.ones(2, dtype=dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(acosh1p(w), w, upstream, create_graph=True)
    assert gradient[0] == 0
    by_w, by_upstream = torch.autograd.grad(gradient.sum(), (w, upstream))
    assert by_w[0] == by_upstream[0] == 0
    assert by_w[1] < 0 < by_upstream[1]


@each_dtype
def test_the_gradient_at_the_smallest_numbers_is_finite(dtype):
    info = torch.finfo(dtype)
    w = torch.tensor([info.smallest_normal, info.smallest_normal * info.eps], dtype=dtype, requires_grad=True)
    value = acosh1p(w)
    (gradient,) = torch.autograd.grad(value.sum(), w)
    assert (value > 0).all()
    assert gradient.isfinite().all()


# In place -------------------------------------------------------------------------------------------------------------


@each_dtype
def test_the_value_takes_the_place_of_w(dtype):
    w = torch.rand(3, 5, 2, dtype=dtype).mT
    expected = torch.acosh(1 + w)
    slope, work, spare = (torch.empty_like(w) for _ in range(3))
    assert acosh1p_(w, slope, work, spare) is w
    torch.testing.assert_close(w, expected)
    torch.testing.assert_close(slope, 1 / expected.sinh())


def test_the_differentiable_form_leaves_w_as_it_was():
    w = torch.rand(4)
    before = w.clone()
    acosh1p(w)
    assert torch.equal(w, before)
    assert acosh1p(torch.empty(0, 3)).shape == (0, 3)
    assert acosh1p(torch.tensor(1.0)).shape == ()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so(bad):
    assert not acosh1p(torch.tensor([bad])).isfinite().any()
