"""Lengths and gaps against their definitions, and what follows from them against 50 digits."""

import math
from collections.abc import Callable

import jaxtyping
import numpy as np
import pytest
import torch
from mpmath import mp, mpf
from torch import Tensor

from hypclip.geometry import polar
from hypclip.objective import Objective, blockwise
from tests.support import objective as objective_helpers
from tests.support import reference
from tests.support.checks import DTYPES, gradients
from tests.support.reference import exact, rounded

F, B, N, D = 2, 4, 3, 5
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
opcheck = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # it looks there

# Boxes of each role, pairs, and the local part.
CASES = {
    "two": ((1, 1), [(0, 1)], None),
    "one role with itself": ((1,), [(0, 0)], None),
    "a box role and a whole one": ((N, 1), [(0, 1), (1, 0)], None),
    "two box roles": ((N, N), [(0, 1)], slice(1, 3)),
    "four roles, six pairs": ((1, 1, N, N), [(0, 1), (2, 3), (0, 2), (3, 1), (2, 1), (1, 2)], None),
    "one pair of whole roles among boxes": ((1, N, 1), [(0, 2)], slice(2, None)),
    "the same pair twice": ((1, N), [(0, 1), (0, 1)], slice(0, 1)),
    "a role in no pair": ((1, 1, N), [(0, 1)], slice(-2, None)),
    "nothing local": ((1, N), [(0, 1)], slice(2, 2)),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture
def unchecked(monkeypatch):
    """Switch the checks of signatures off: tracing calls functions with shapes that are symbols."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def draw(boxes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(F, B, n, D, dtype=dtype) for n in boxes]


def by_definition(rows: list[Tensor], pairs: list[tuple[int, int]], local: slice | None) -> tuple[Tensor, Tensor]:
    size = (F, B, max(x.shape[2] for x in rows), D)
    rows = [x.double().expand(size) for x in rows]
    units = [(x / x.norm(dim=-1, keepdim=True))[:, local or slice(None)] for x in rows]
    return torch.stack([x.norm(dim=-1) for x in rows]), torch.stack(
        [(units[a] - units[b]).norm(dim=-1) for a, b in pairs]
    )


# Lengths and gaps -----------------------------------------------------------------------------------------------------


@each_case
@each_dtype
def test_lengths_and_gaps_are_what_they_are_called(case, dtype):
    boxes, pairs, local = case
    rows = draw(boxes, dtype)
    norms, gaps = polar.norms_and_gaps(rows, pairs, local)
    want_norms, want_gaps = by_definition(rows, pairs, local)
    assert norms.dtype == gaps.dtype == torch.float64
    assert norms.shape == (len(rows), F, B, max(boxes))
    assert gaps.shape == want_gaps.shape
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(norms, want_norms, rtol=2 * eps, atol=0.0)
    torch.testing.assert_close(gaps, want_gaps, rtol=2 * eps, atol=2 * eps)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("nothing local", "one role with itself")])
def test_gradcheck(name):
    boxes, pairs, local = CASES[name]
    rows = [x.requires_grad_() for x in draw(boxes)]
    assert torch.autograd.gradcheck(lambda *rows: polar.norms_and_gaps(list(rows), pairs, local), rows)


@each_case
@each_dtype
def test_the_gradient_is_that_of_the_definition(case, dtype):
    boxes, pairs, local = case
    rows = draw(boxes, dtype)
    norms, gaps = by_definition(rows, pairs, local)
    weights = torch.randn_like(norms), torch.randn_like(gaps)

    def weighted(function: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Tensor]:
        return lambda *rows: sum(
            torch.vdot(w.flatten(), out.flatten())
            for w, out in zip(weights, function([*rows], pairs, local), strict=True)
        )

    got = gradients(weighted(polar.norms_and_gaps), *rows)
    want = gradients(weighted(by_definition), *(x.double() for x in rows))
    for found, expected in zip(got, want, strict=True):
        if pairs == [(0, 0)]:  # by the definition the gradient there is the one of a norm at 0
            continue
        assert found.dtype == dtype
        assert (found - expected).abs().max() <= 32 * torch.finfo(dtype).eps * (1 + expected.abs().max())


def test_roles_need_not_all_be_differentiated():
    rows = draw((1, N, 1))
    rows[1].requires_grad_()
    norms, gaps = polar.norms_and_gaps(rows, [(0, 1), (1, 2)])
    (norms.sum() + gaps.sum()).backward()
    assert [x.grad is not None for x in rows] == [False, True, False]
    norms, gaps = polar.norms_and_gaps(draw((1, N)), [(0, 1)])
    assert not norms.requires_grad
    assert not gaps.requires_grad


def test_lengths_alone_and_gaps_alone_have_gradients():
    rows = draw((1, N))
    by_norm = gradients(lambda *r: polar.norms_and_gaps(list(r), [(0, 1)])[0], *rows)
    torch.testing.assert_close(by_norm[0], N * torch.nn.functional.normalize(rows[0], dim=-1))
    torch.testing.assert_close(by_norm[1], torch.nn.functional.normalize(rows[1], dim=-1))
    by_gap = gradients(lambda *r: polar.norms_and_gaps(list(r), [(0, 1)])[1], *rows)
    for gradient, x in zip(by_gap, rows, strict=True):  # a gap does not change along the rows
        torch.testing.assert_close((gradient * x).sum(-1), torch.zeros(x.shape[:-1], dtype=torch.float64))


def test_rows_laid_out_in_any_way_will_do():
    rows = draw((1, N))
    strided = [x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0) for x in rows]
    for got, want in zip(
        (
            *polar.norms_and_gaps(strided, [(0, 1)]),
            *gradients(lambda *r: polar.norms_and_gaps(list(r), [(0, 1)])[1], *strided),
        ),
        (
            *polar.norms_and_gaps(rows, [(0, 1)]),
            *gradients(lambda *r: polar.norms_and_gaps(list(r), [(0, 1)])[1], *rows),
        ),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


@each_dtype
def test_a_gap_of_0_has_gradient_0(dtype):
    x = torch.randn(F, B, 1, D, dtype=dtype)
    for y, slack in ((x, 0.0), (2 * x, 0.0), (3 * x, 4.0)):  # times 3 is not exact
        norms, gaps = polar.norms_and_gaps([x, y], [(0, 1)])
        assert gaps.max() <= slack * torch.finfo(dtype).eps
        for gradient in gradients(lambda *r: polar.norms_and_gaps(list(r), [(0, 1)])[1], x, y):
            assert gradient.isfinite().all()
            assert slack or torch.equal(gradient, torch.zeros_like(gradient))
        torch.testing.assert_close(norms[1] / norms[0], (y[..., 0] / x[..., 0]).double().expand(norms[0].shape))


@each_dtype
def test_a_row_of_length_0_has_no_direction_and_gradient_0(dtype):
    x, zero = torch.randn(F, B, N, D, dtype=dtype), torch.zeros(F, B, 1, D, dtype=dtype)
    norms, gaps = polar.norms_and_gaps([x, zero], [(0, 1), (1, 1)])
    assert torch.equal(norms[1], torch.zeros(F, B, N).double())
    torch.testing.assert_close(gaps[0], torch.ones(F, B, N).double(), rtol=4 * torch.finfo(dtype).eps, atol=0.0)
    assert torch.equal(gaps[1], torch.zeros(F, B, N).double())
    for out in (0, 1):
        found = gradients(lambda *r, out=out: polar.norms_and_gaps(list(r), [(0, 1), (1, 1)])[out], x, zero)
        assert all(gradient.isfinite().all() for gradient in found)
        assert torch.equal(found[1], torch.zeros_like(zero))


@each_dtype
@pytest.mark.parametrize("dim", [2, 64])
def test_a_gap_is_wrong_by_no_more_than_the_rounding_of_unit_vectors(dtype, dim):
    eps = torch.finfo(dtype).eps
    unit = reference.directions(12, dim, torch.Generator().manual_seed(0))
    aside = torch.randn(12, dim, dtype=torch.float64)
    aside = torch.nn.functional.normalize(aside - (aside * unit).sum(-1, keepdim=True) * unit, dim=-1)
    for angle in (1e-7, 1e-4, 0.1, 1.0, 3.0, math.pi - 1e-4):
        for length in (1e-6, 1.0, 1e6):
            x = (length * unit).to(dtype)
            y = (1.7 * (math.cos(angle) * unit + math.sin(angle) * aside)).to(dtype)
            norms, gaps = (
                out.flatten(1) for out in polar.norms_and_gaps([x[None, :, None], y[None, :, None]], [(0, 1)])
            )
            unit_x, unit_y = (exact(p) / reference.norm(exact(p))[:, None] for p in (x, y))
            error = reference.absolute(gaps[0], reference.norm(unit_x - unit_y))
            assert (error <= eps * (2 + 2.5 * gaps[0])).all(), (angle, length)
            assert reference.relative(norms[0], reference.norm(exact(x))).max() <= 2 * eps


def test_near_directions_keep_digits_that_the_cosine_loses():
    x = torch.nn.functional.normalize(torch.randn(1, B, 1, 64), dim=-1)
    y = x + 1e-5 * torch.randn(x.shape)
    _, gaps = polar.norms_and_gaps([x, y], [(0, 1)])
    _, want = polar.norms_and_gaps([x.double(), y.double()], [(0, 1)])
    torch.testing.assert_close(gaps, want, rtol=5e-3, atol=0.0)
    cosine = (x * torch.nn.functional.normalize(y, dim=-1)).sum(-1)
    assert ((2 * (1 - cosine)).clamp(min=0).sqrt() / want[0] - 1).abs().max() > 0.5


# Operators ------------------------------------------------------------------------------------------------------------


@opcheck
@each_dtype
@pytest.mark.parametrize("bounds", [(0, B), (1, 3)], ids=["whole", "local"])
@pytest.mark.usefixtures("unchecked")
def test_the_operators_say_truly_what_they_return(dtype, bounds):
    ops = torch.ops.hypclip
    rows, first, second = draw((1, N, 1), dtype), [0, 1, 0], [1, 2, 2]
    torch.library.opcheck(ops.norms_and_gaps, ([x.clone().requires_grad_() for x in rows], first, second, *bounds))
    norms, gaps = ops.norms_and_gaps(rows, first, second, *bounds)
    upstream = torch.randn_like(norms), torch.randn_like(gaps)
    torch.library.opcheck(ops.norms_and_gaps_backward, (rows, norms, gaps, *upstream, first, second, bounds[0]))


@opcheck
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("recipe", ["clip", "euclip", "euclip-geodesic", "hycoclip", "phyclip", "phyclip-l2", "uncha"])
def test_the_operators_of_an_objective_say_truly_what_they_return(monkeypatch, recipe):
    seen, operator = [], blockwise._contrast
    monkeypatch.setattr(blockwise, "_contrast", lambda *arguments: seen.append(arguments) or operator(*arguments))
    objective = Objective.from_recipe(objective_helpers.SETTINGS[recipe])
    objective_helpers.apply(objective, objective_helpers.leaves(objective_helpers.samples(4)))

    def leaf(value: object) -> object:
        if isinstance(value, Tensor):
            return value.detach().clone().requires_grad_(value.requires_grad)
        return [leaf(part) for part in value] if isinstance(value, list | tuple) else value

    assert seen
    for arguments in seen[:2]:
        # Its backward looks at the incoming gradient when it is not compiled; test_objective compiles it.
        known = ("test_schema", "test_autograd_registration", "test_faketensor")
        torch.library.opcheck(operator, tuple(map(leaf, arguments)), test_utils=known)


@pytest.mark.usefixtures("unchecked")
def test_it_all_compiles_whole():
    def everything(*rows: Tensor) -> Tensor:
        norms, gaps = polar.norms_and_gaps(list(rows), [(0, 1), (1, 2)], slice(1, 3))
        here, om = norms[:, :, 1:3], gaps.square() / 2
        return (
            polar.distance(here[0], here[1], gaps[0])
            + polar.exterior_angle(here[1], here[2], om[1], 2 - om[1])
            + polar.euclidean_distance(here[0], here[1], gaps[0])
            + polar.euclidean_angle(here[1], here[2], om[1], 2 - om[1])
            + polar.half_aperture(here[0], 0.1)
            + polar.cosh_minus_one(here[0])
        )

    rows = draw((1, N, 1))
    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*rows), everything(*rows), rtol=1e-14, atol=0.0)
    for got, want in zip(gradients(compiled, *rows), gradients(everything, *rows), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-14, atol=1e-14)


# What follows from them -----------------------------------------------------------------------------------------------

EPS = torch.finfo(torch.float64).eps
REACH = {"tiny": (-6, -3), "small": (-3, 0), "middling": (0, 2), "to radius 15": (2, 6.5), "to radius 44": (6.5, 18.8)}
each_reach = pytest.mark.parametrize("reach", REACH.values(), ids=REACH)
atan2 = np.frompyfunc(mp.atan2, 2, 1)


def numbers(reach: tuple[float, float], count: int = 800) -> tuple[Tensor, Tensor, Tensor]:
    """Draw lengths and gaps, near pairs among them."""
    low, high = reach
    size = 10 ** (low + (high - low) * torch.rand(2, count, dtype=torch.float64))
    near = size[0] * (1 + 10 ** (-9 + 9 * torch.rand(count, dtype=torch.float64)))
    gap = torch.where(
        torch.rand(count) < 0.3, 10 ** (-12 * torch.rand(count).double()), 2 * torch.rand(count, dtype=torch.float64)
    )
    return size[0], torch.where(torch.rand(count) < 0.5, near, size[1]), gap


def exact_distance(x: reference.Exact, y: reference.Exact, gap: reference.Exact) -> reference.Exact:
    """Return the distance by the law of cosines."""
    return reference.acosh(reference.sqrt(1 + x * x) * reference.sqrt(1 + y * y) - x * y * (1 - gap * gap / 2))


@each_reach
def test_distance_is_exact(reach):
    x, y, gap = numbers(reach)
    want = exact_distance(exact(x), exact(y), exact(gap))
    error = reference.absolute(polar.distance(x, y, gap), want)
    assert (error <= 2 * EPS * (rounded(want) + x.asinh() + y.asinh())).all()


@each_reach
def test_exterior_angle_is_exact(reach):
    x, y, gap = numbers(reach)
    om = gap.square() / 2
    s_x, s_y, o = exact(x), exact(y), exact(om)
    # The law of cosines for the triangle origin–x–y: the angle at x is π − φ.
    c_x, c_y = reference.sqrt(1 + s_x * s_x), reference.sqrt(1 + s_y * s_y)
    d = c_x * c_y - s_x * s_y * (1 - o)
    along = (c_y - c_x * d) / s_x
    want = atan2(s_y * reference.sqrt(o * (2 - o)), along)
    error = reference.absolute(polar.exterior_angle(x, y, om, 2 - om), want)
    unit = 1 + y * (1 + x.asinh() + y.asinh()) / rounded(reference.sqrt(d * d - 1))
    assert (error <= 4 * EPS * unit).all()


@each_reach
def test_the_flat_forms_are_exact(reach):
    x, y, gap = numbers(reach)
    om = gap.square() / 2
    n_x, n_y, g, o = exact(x), exact(y), exact(gap), exact(om)
    want = reference.sqrt(n_x * n_x + n_y * n_y - 2 * n_x * n_y * (1 - g * g / 2))
    assert reference.relative(polar.euclidean_distance(x, y, gap), want).max() <= 4 * EPS
    angle = atan2(n_y * reference.sqrt(o * (2 - o)), n_y * (1 - o) - n_x)
    error = reference.absolute(polar.euclidean_angle(x, y, om, 2 - om), angle)
    assert (error <= 4 * EPS * (1 + y / rounded(want))).all()


@each_reach
def test_height_and_aperture_are_exact(reach):
    s, _, _ = numbers(reach)
    height = reference.sqrt(1 + exact(s) ** 2) - 1
    assert reference.relative(polar.cosh_minus_one(s), height).max() <= 4 * EPS
    for min_radius in (0.05, 0.1, 1.0):
        s = torch.cat([s, 2 * min_radius * (1 + torch.tensor([-0.1, -1e-9, 0.0, 1e-9, 0.1], dtype=torch.float64))])
        want = reference.asin(np.minimum(mpf(1), 2 * mpf(min_radius) / exact(s)))
        assert reference.absolute(polar.half_aperture(s, min_radius), want).max() <= 1e-8
        clear = (s / (2 * min_radius) - 1).abs() > 1e-3
        assert reference.absolute(polar.half_aperture(s, min_radius), want)[clear].max() <= 32 * EPS


def test_small_radii_are_flat():
    x, y, gap = numbers((-6, -5))
    om = gap.square() / 2
    torch.testing.assert_close(polar.distance(x, y, gap), polar.euclidean_distance(x, y, gap), rtol=1e-5, atol=0.0)
    clear = gap > 1e-3
    torch.testing.assert_close(
        polar.exterior_angle(x, y, om, 2 - om)[clear],
        polar.euclidean_angle(x, y, om, 2 - om)[clear],
        rtol=0.0,
        atol=1e-5,
    )


def test_the_distances_of_points_are_those_of_the_hyperboloid():
    one = torch.tensor(1.0, dtype=torch.float64)
    x, y = reference.pairs(one, 6, (1e-3, 1.0, 5.0, 15.0), (1e-3, 0.1, 3.0), each=4)
    norms, gaps = polar.norms_and_gaps([x[None, :, None], y[None, :, None]], [(0, 1)])
    om = gaps[0] / 2 * gaps[0]
    s_x, s_y, c = exact(x), exact(y), mpf(1)
    distance = reference.absolute(polar.distance(*norms, gaps[0]).flatten(), reference.dist(s_x, s_y, c))
    want = rounded(reference.dist(s_x, s_y, c))
    cosh = (1 + x.square().sum(-1)).sqrt()
    assert (distance <= 8 * EPS * cosh * (1 + want)).all()
    angle = reference.absolute(polar.exterior_angle(*norms, om, 2 - om).flatten(), reference.oxy_angle(s_x, s_y, c))
    assert (angle <= 1e-7 + 16 * EPS * cosh * y.norm(dim=-1) / want.sinh()).all()


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


DEGENERATE = {
    # name: (length of x, of y, gap, distance, angle)
    "coincident": (2.0, 2.0, 0.0, 0.0, 0.0),
    "both at the origin": (0.0, 0.0, 0.0, 0.0, 0.0),
    "from the origin": (0.0, math.sinh(2), 1.0, 2.0, 0.0),
    "to the origin": (math.sinh(2), 0.0, 1.0, 2.0, math.pi),
    "outwards": (math.sinh(1), math.sinh(3), 0.0, 2.0, 0.0),
    "inwards": (math.sinh(3), math.sinh(1), 0.0, 2.0, math.pi),
    "antipodal": (math.sinh(3), math.sinh(1), 2.0, 4.0, math.pi),
    "antipodal, far": (math.sinh(40), math.sinh(40), 2.0, 80.0, math.pi),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_pairs_have_a_value_and_finite_gradients(case):
    x, y, gap, distance, angle = map(column, DEGENERATE[case])
    om = gap.square() / 2
    torch.testing.assert_close(polar.distance(x, y, gap), distance)
    torch.testing.assert_close(polar.exterior_angle(x, y, om, 2 - om), angle)
    for function, inputs in (
        (polar.distance, (x, y, gap)),
        (polar.euclidean_distance, (x, y, gap)),
        (polar.exterior_angle, (x, y, om, 2 - om)),
        (polar.euclidean_angle, (x, y, om, 2 - om)),
        (lambda s, g: polar.half_aperture(s, 0.1) + g, (x, gap)),
    ):
        found = gradients(function, *inputs)
        assert all(gradient.isfinite().all() for gradient in found)
        if case in ("coincident", "both at the origin") and len(inputs) > 2:
            assert all(gradient.item() == 0 for gradient in found)


@pytest.mark.parametrize("lengths", [(0.0, 0.0), (0.0, 2.0), (2.0, 0.0), (2.0, 5.0), (5.0, 2.0), (2.0, 2.0)])
@pytest.mark.parametrize("gap", [0.0, 2.0])
def test_the_flat_forms_of_degenerate_pairs(lengths, gap):
    x, y = lengths
    g = gap if min(lengths) > 0 else 1.0
    on_a_line = y if g == 0 else -y
    torch.testing.assert_close(
        polar.euclidean_distance(*map(column, (x, y, g))), column(abs(x - on_a_line) if g != 1 else x + y)
    )
    om = g * g / 2
    want = 0.0 if x == 0 or (g == 0 and y >= x) else math.pi
    torch.testing.assert_close(polar.euclidean_angle(*map(column, (x, y, om, 2 - om))), column(want))


def test_gradcheck_of_what_follows():
    x, y = (0.3 + torch.rand(6, dtype=torch.float64) for _ in range(2))
    gap = 0.2 + 1.5 * torch.rand(6, dtype=torch.float64)
    om = gap.square() / 2
    for function, inputs in (
        (polar.distance, (x, y, gap)),
        (polar.euclidean_distance, (x, y, gap)),
        (polar.exterior_angle, (x, y, om, 2 - om)),
        (polar.euclidean_angle, (x, y, om, 2 - om)),
        (lambda s: polar.half_aperture(s, 0.1), (x,)),
        (polar.cosh_minus_one, (x,)),
    ):
        leaves = [t.clone().requires_grad_() for t in inputs]
        assert torch.autograd.gradcheck(function, leaves)
        assert torch.autograd.gradgradcheck(function, leaves)


@pytest.mark.parametrize("s", [0.0, 0.1, 0.2 - 1e-12, 0.2])
def test_a_cone_that_is_a_half_space_has_gradient_0(s):
    s = column(s)
    torch.testing.assert_close(polar.half_aperture(s, 0.1), column(math.pi / 2), rtol=0.0, atol=0.0)
    assert gradients(lambda s: polar.half_aperture(s, 0.1), s)[0].item() == 0.0
