"""acosh(1 + w) and its slope, from where 1 + w rounds to 1 to where w² overflows."""

import numpy as np
import pytest
import torch
from mpmath import mp

from hypclip.geometry.acosh import acosh1p_
from tests.support import reference
from tests.support.checks import DTYPES
from tests.support.reference import exact

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
BOUND = {torch.float32: 4e-7, torch.float64: 1e-15}
NOT_POSITIVE = (0.0, -0.0, -1e-7, -2.0, -5.0)

value_of = np.frompyfunc(lambda w: mp.log1p(w + mp.sqrt(w * (w + 2))), 1, 1)
slope_of = np.frompyfunc(lambda w: 1 / mp.sqrt(w * (w + 2)), 1, 1)


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


def test_the_plain_form_loses_what_this_one_keeps():
    w = draw(-12, -8, torch.float32)
    assert (torch.acosh(1 + w) == 0).all()
    assert (in_place(w)[0] > 0).all()


@each_dtype
@pytest.mark.parametrize("bad", NOT_POSITIVE)
def test_value_and_slope_are_0_where_w_is_a_rounding_error(dtype, bad):
    value, slope = in_place(torch.tensor([bad, 1.0], dtype=dtype))
    assert value[0] == slope[0] == 0
    assert value[1] > 0 < slope[1]


@each_dtype
def test_the_slope_at_the_smallest_numbers_is_finite(dtype):
    info = torch.finfo(dtype)
    value, slope = in_place(torch.tensor([info.smallest_normal, info.smallest_normal * info.eps], dtype=dtype))
    assert (value > 0).all()
    assert slope.isfinite().all()


# In place -------------------------------------------------------------------------------------------------------------


@each_dtype
def test_the_value_takes_the_place_of_w(dtype):
    w = torch.rand(3, 5, 2, dtype=dtype).mT
    expected = torch.acosh(1 + w)
    slope, work, spare = (torch.empty_like(w) for _ in range(3))
    assert acosh1p_(w, slope, work, spare) is w
    torch.testing.assert_close(w, expected)
    torch.testing.assert_close(slope, 1 / expected.sinh())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so(bad):
    assert not in_place(torch.tensor([bad]))[0].isfinite().any()
