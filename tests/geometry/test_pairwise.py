"""The distance of all pairs by one matmul: its error, its effects, and the exact distance of near pairs."""

import functools
import math

import jaxtyping
import pytest
import torch
from torch import Tensor

from hypclip.geometry import _pairwise, lorentz
from tests.support import reference
from tests.support.checks import DTYPES, each_curvature, gradients
from tests.support.reference import exact, rounded

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
opcheck = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # it looks there
RADII = (1e-3, 1e-2, 0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 20.0)
"""√c · radius."""


@pytest.fixture
def unchecked(monkeypatch):
    """Switch the checks of signatures off: tracing calls functions with shapes that are symbols."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def separations(rho: float) -> tuple[float, ...]:
    """Return √c · distances: of near pairs, and of pairs at the distances of a batch."""
    return (rho * 1e-3, rho * 0.1, rho * 1.5) if rho < 0.1 else (1e-5, 0.1, 2.0)


def crowd(curv: Tensor, rho: float, dim: int = 8, each: int = 3) -> tuple[Tensor, Tensor]:
    """Draw points at a radius, and points near each of them."""
    return reference.pairs(curv, dim, (rho,), separations(rho), each=each, seed=int(rho * 1000))


def exact_dists(x: Tensor, y: Tensor, curv: Tensor) -> reference.Exact:
    return reference.dist(exact(x)[:, None], exact(y)[None], exact(curv))


# Against 50 digits ----------------------------------------------------------------------------------------------------


@each_curvature
@pytest.mark.parametrize("dim", [2, 64])
def test_pairwise_dist_keeps_to_its_bound_from_radius_a_thousandth_to_20(curv, dim):
    for rho in RADII:
        x, y = crowd(curv, rho, dim)
        exact_x, exact_y, c = exact(x)[:, None], exact(y)[None], exact(curv)
        half = (-c * reference.inner(exact_x, exact_y, c) - 1) / 2
        got = reference.sinh(reference.sqrt(c) * exact(lorentz.pairwise_dist(x, y, curv)) / 2) ** 2
        sinh_x, sinh_y = (rounded(reference.sqrt(c) * reference.norm(p)) for p in (exact_x, exact_y))
        unit = sinh_x * sinh_y + (1 + sinh_x.asinh() + sinh_y.asinh()) * rounded(half)
        bound = 1e-6 * torch.finfo(curv.dtype).eps / torch.finfo(torch.float32).eps
        assert (rounded(abs(got - half)) <= bound * unit).all(), rho


@pytest.mark.parametrize("curv", reference.CURVS)
@pytest.mark.parametrize("rho", [1e-4, 1e-3, 1e-2])
def test_small_radii_keep_the_digits_that_acosh_of_the_inner_product_loses(curv, rho):
    curv = torch.tensor(curv)
    x = reference.points(curv, 16, (rho,), each=16, seed=2)
    y = reference.points(curv, 16, (rho,), each=16, seed=3).roll(1, 0)
    want = exact_dists(x[1::2], y[1::2], curv)
    got = lorentz.pairwise_dist(x, y, curv)[1::2, 1::2]
    naive = torch.acosh(-curv * lorentz.pairwise_inner(x, y, curv))[1::2, 1::2] / curv.sqrt()
    assert reference.relative(got, want).max() <= 1e-6
    lost = (naive.double() / rounded(want) - 1).abs().nan_to_num(1.0).max()
    assert lost > {1e-4: 0.99, 1e-3: 0.03, 1e-2: 3e-4}[rho]


@each_dtype
def test_a_matmul_is_right_for_the_logits_of_a_batch(dtype):
    # Points at random, at the radii that models have: no near pairs, and so a relative error of a few roundings.
    for rho in (0.1, 1.0, 3.0, 10.0, 20.0):
        x, y = (reference.points(torch.tensor(1.0, dtype=dtype), 64, (rho,), each=9, seed=s)[1:4] for s in (4, 5))
        error = reference.relative(lorentz.pairwise_dist(x, y, 1.0), exact_dists(x, y, torch.tensor(1.0)))
        assert error.max() <= 16 * torch.finfo(dtype).eps


@each_curvature
def test_pairwise_dist_is_symmetric(curv):
    eps = torch.finfo(curv.dtype).eps
    for rho in RADII:
        x, y = crowd(curv, rho)
        for exact_within in (None, 0.1 * rho):
            there = lorentz.pairwise_dist(x, y, curv, exact_within=exact_within)
            back = lorentz.pairwise_dist(y, x, curv, exact_within=exact_within).T
            sinh = (rounded(lorentz.radius(p, curv) * curv.sqrt()).sinh() for p in (x, y))
            moved = 1e-6 * eps / torch.finfo(torch.float32).eps * torch.outer(*sinh)
            half_there, half_back = ((d.double() * curv.double().sqrt() / 2).sinh().square() for d in (there, back))
            assert ((half_there - half_back).abs() <= 2 * moved + 64 * eps * half_there).all(), rho


# Near pairs -----------------------------------------------------------------------------------------------------------


@each_curvature
def test_near_pairs_are_recomputed_to_the_error_of_dist(curv):
    single = curv.dtype == torch.float32
    for rho in (1e-3, 0.1, 1.0, 4.0, 8.0, 15.0, 20.0):
        x, y = crowd(curv, rho)
        within = 0.2 * rho / curv.sqrt().item()
        plain, got = (lorentz.pairwise_dist(x, y, curv, exact_within=w) for w in (None, within))
        want = exact_dists(x, y, curv)
        error, near = reference.relative(got, want), rounded(want) < within
        assert near.sum() >= len(x) // 3
        assert error[near].max() <= (1e-6 if single else 1e-6 * 2e-15 / 1e-7 * math.cosh(rho))
        # Of the rest, what the matmul may have got wrong by 1 % is recomputed, and what is far stays bit for bit.
        assert error.max() <= 0.01
        sinh_x, sinh_y = (rounded(reference.norm(exact(p))) for p in (x, y))
        w = rounded(reference.cosh(reference.sqrt(exact(curv)) * want) - 1)
        sure = w > 1000 * torch.finfo(curv.dtype).eps * curv.double() * torch.outer(sinh_x, sinh_y)
        far = sure & (rounded(want) > 1.01 * within)
        assert far.any()
        assert torch.equal(got[far], plain[far])


@pytest.mark.parametrize("rho", [1.0, 8.0, 20.0])
def test_without_it_the_nearest_pairs_are_noise(rho):
    x, y = crowd(torch.tensor(1.0), rho)
    want = exact_dists(x, y, torch.tensor(1.0))
    # Off by the whole distance or more: found as 0, or far too large, as the processor's products round.
    assert reference.relative(lorentz.pairwise_dist(x, y, 1.0), want).max() >= 1
    assert reference.relative(lorentz.pairwise_dist(x, y, 1.0, exact_within=0.0), want).max() <= 0.01


@each_curvature
def test_coincident_pairs_are_exactly_0_with_finite_gradient(curv):
    x = reference.points(curv, 8, (*RADII, 30.0, 43.0), each=2)
    d = lorentz.pairwise_dist(x, x, curv, exact_within=1e-3)
    assert torch.equal(d.diagonal(), torch.zeros(len(x), dtype=curv.dtype))
    off_diagonal = ~torch.eye(len(x), dtype=torch.bool)
    assert (d[off_diagonal] > 0).all()
    for gradient in gradients(lambda x, y, c: lorentz.pairwise_dist(x, y, c, exact_within=1e-3), x, x, curv):
        assert gradient.isfinite().all()
    same = x[-3:-2]
    for gradient in gradients(lambda x, y, c: lorentz.pairwise_dist(x, y, c, exact_within=1e-3), same, same, curv):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("rho", [1e-5, 1e-3, 1.0, 10.0, 22.0, 30.0, 40.0])
def test_far_pairs_are_left_to_the_matmul(monkeypatch, rho):
    recomputed = []
    dist = lorentz.dist
    monkeypatch.setattr(lorentz, "dist", lambda x, y, c: recomputed.append(len(x)) or dist(x, y, c))
    axes = torch.cat([torch.eye(4), -torch.eye(4)])
    x = lorentz.exp_map0(rho * axes, 1.0)
    d = lorentz.pairwise_dist(x, x, 1.0, exact_within=rho / 10)
    assert recomputed == [8]
    torch.testing.assert_close(d[0, 4], torch.tensor(2 * rho))


def test_the_gradient_of_recomputed_pairs_is_that_of_dist():
    x = reference.points(torch.tensor(1.0, dtype=torch.float64), 4, (0.5, 3.0), each=3)
    y = x + 1e-3 * torch.randn_like(x)

    def diagonal(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
        return lorentz.pairwise_dist(x, y, c, exact_within=0.1).diagonal()

    inputs = (x, y, torch.tensor(0.7, dtype=torch.float64))
    for got, want in zip(gradients(diagonal, *inputs), gradients(lorentz.dist, *inputs), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=0.0)


# Gradients ------------------------------------------------------------------------------------------------------------


@each_curvature
@pytest.mark.parametrize("exact_within", [None, 1e-3])
def test_gradients_are_finite_everywhere(curv, exact_within):
    x = reference.points(curv, 4, (1e-6, *RADII, 30.0, 43.0), each=2)
    x = torch.cat([x, torch.zeros_like(x[:1]), -x, x.nextafter(2 * x)])

    def squared_too(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
        d = lorentz.pairwise_dist(x, y, c, exact_within=exact_within)
        assert d.isfinite().all()
        return d + d.square()

    assert all(gradient.isfinite().all() for gradient in gradients(squared_too, x, x, curv))


@each_dtype
@pytest.mark.parametrize("rho", [1.0, 10.0, 20.0, 22.5, 30.0, 40.0])
def test_moving_apart_lengthens_the_distance_as_fast_at_every_radius(dtype, rho):
    v = torch.tensor([[rho, 0.0]], dtype=dtype)

    def apart(v: Tensor) -> Tensor:
        return lorentz.pairwise_dist(lorentz.exp_map0(v, 1.0), lorentz.exp_map0(-v.detach(), 1.0), 1.0)

    (gradient,) = gradients(apart, v)
    torch.testing.assert_close(gradient, torch.tensor([[1.0, 0.0]], dtype=dtype))


@pytest.mark.parametrize("exact_within", [None, 1.0])
def test_gradcheck(exact_within):
    inputs = *torch.randn(2, 3, 4, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    function = functools.partial(lorentz.pairwise_dist, exact_within=exact_within)
    assert torch.autograd.gradcheck(function, leaves)


def test_the_gradient_of_a_batch_in_float32_is_that_in_float64():
    curv = torch.tensor(0.7)
    for rho in (0.01, 0.3, 1.0, 3.0, 8.0):
        x, y = (reference.points(curv, 64, (rho,), each=64, seed=s) for s in (1, 2))
        x, y = (p[torch.arange(64) % 4 > 0] for p in (x, y))  # no near pairs: every fourth is on the axis
        inputs = (x, y, curv)
        got = gradients(lorentz.pairwise_dist, *inputs)
        want = gradients(lorentz.pairwise_dist, *(t.double() for t in inputs))
        # Where space is nearly flat the curvature makes little difference: its gradient is a small rest of d/2c.
        rest = lorentz.pairwise_dist(x, y, curv).sum() / (2 * curv)
        for found, expected, slack in zip(got, want, (0.0, 0.0, 1e-6 * rest), strict=True):
            assert (found - expected).norm() <= 1e-5 * expected.norm() + slack, rho


@opcheck
@each_dtype
@pytest.mark.usefixtures("unchecked")
def test_the_operators_say_truly_what_they_return(monkeypatch, dtype):
    seen = {}
    for name in ("pairwise_lorentz_dist", "_gradients"):
        operator = getattr(_pairwise, name)
        module = lorentz if name == "pairwise_lorentz_dist" else _pairwise
        monkeypatch.setattr(module, name, lambda *given, op=operator: seen.setdefault(op, given) and op(*given))
    x, y, curv = torch.randn(5, 3, dtype=dtype), torch.randn(4, 3, dtype=dtype), torch.tensor(0.7, dtype=dtype)
    gradients(lorentz.pairwise_dist, x, y, curv)
    assert len(seen) == 2
    forward, backward = seen.items()
    torch.library.opcheck(*forward)
    operator, given = backward
    torch.library.opcheck(operator, tuple(v.detach() if isinstance(v, Tensor) else v for v in given))


@pytest.mark.usefixtures("unchecked")
def test_pairwise_dist_compiles_whole():
    inputs = torch.randn(5, 3), torch.randn(4, 3), torch.tensor(0.7)
    compiled = torch.compile(lorentz.pairwise_dist, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), lorentz.pairwise_dist(*inputs), rtol=0.0, atol=0.0)
    for got, want in zip(gradients(compiled, *inputs), gradients(lorentz.pairwise_dist, *inputs), strict=True):
        torch.testing.assert_close(got, want, rtol=0.0, atol=0.0)
