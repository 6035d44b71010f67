"""Small things that several test files share."""

from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.support import reference

DTYPES = (torch.float32, torch.float64)
each_curvature = pytest.mark.parametrize(
    "curv",
    [
        pytest.param(torch.tensor(c, dtype=dtype), id=f"{str(dtype).removeprefix('torch.')}-c={c}")
        for dtype in DTYPES
        for c in reference.CURVS
    ],
)
CURVS_DRAWN = st.sampled_from([0.1, 0.7, 1.0, 10.0])
DIM = 4


@st.composite
def tangents(draw: st.DrawFn, max_norm: float = 15.0, dim: int = DIM) -> Tensor:
    """Draw a float64 vector of norm 1e-6…max_norm, any direction."""
    direction = draw(st.lists(st.floats(-1, 1), min_size=dim, max_size=dim).filter(lambda v: max(map(abs, v)) > 1e-3))
    fraction = draw(st.floats(0, 1))
    unit = torch.nn.functional.normalize(torch.tensor(direction, dtype=torch.float64), dim=0)
    return unit * 1e-6 * (max_norm / 1e-6) ** fraction


@st.composite
def rotations(draw: st.DrawFn, dim: int = DIM) -> Tensor:
    """Draw an orthogonal matrix in float64."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    return torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))[0]


def gradients(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    """Return the gradient of the sum of the output with respect to every input, 0 for an input that plays no part."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    return torch.autograd.grad(function(*leaves).sum(), leaves, allow_unused=True, materialize_grads=True)


def assert_autocast_changes_nothing(function: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Compare values and gradients with those of a forward pass under bfloat16 autocast, bit for bit."""

    def autocast(*leaves: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
            return function(*leaves)

    torch.testing.assert_close(autocast(*inputs), function(*inputs), rtol=0.0, atol=0.0)
    for got, expected in zip(gradients(autocast, *inputs), gradients(function, *inputs), strict=True):
        torch.testing.assert_close(got, expected, rtol=0.0, atol=0.0)


def rows(*tensors: Tensor) -> Iterator[Tensor]:
    """Make a row of each vector."""
    return (tensor.unsqueeze(0) for tensor in tensors)


def is_fused(x: Tensor) -> bool:
    """Return whether torch's fused attention is among the operators that a tensor is computed by."""
    nodes, seen = [x.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [before for before, _ in node.next_functions]
    return any("ScaledDotProduct" in node.name() for node in seen)
