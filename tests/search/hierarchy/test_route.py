"""Places of a route against 50 digits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hypclip.errors import InputError
from hypclip.geometry import lorentz
from hypclip.search import Route
from tests.support import reference
from tests.support.reference import exact, mpf, number, relative_rows, rounded
from tests.support.search import CURVS, RADII, SEEDS

KINDS = st.sampled_from(["apart", "near", "opposite", "one line", "same"])
FRACTIONS = torch.tensor([0.0, 1e-3, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)


def ends(seed, dim, curv, rho, kind):
    """Two points in float64."""
    generator = torch.Generator().manual_seed(seed)
    u, v = torch.nn.functional.normalize(torch.randn(2, dim, generator=generator, dtype=torch.float64), dim=-1)
    start = math.sinh(rho) * u / math.sqrt(curv)
    end = {
        "apart": math.sinh(rho / 2) * v / math.sqrt(curv),
        "near": start * 1.001 + 1e-3 * v,
        "opposite": -start,
        "one line": start / 3,
        "same": start,
    }[kind]
    return start, end


def lerp_exactly(start, end, t, curv):
    """exp_0 of the straight line between the tangent vectors, at 50 digits."""
    x, c = exact(torch.stack([start, end])), mpf(curv)
    v = np.stack([reference.log_map0(row[None], c)[0] if row.any() else row for row in x])
    line = [(1 - mpf(f)) * v[0] + mpf(f) * v[1] for f in t.tolist()]
    return np.stack([reference.exp_map0(row[None], c)[0] if row.any() else row for row in line])


@settings(max_examples=30)
@given(SEEDS, st.sampled_from([2, 3, 16]), CURVS, RADII, KINDS, st.integers(2, 9))
def test_steps_are_the_published_interpolation(seed, dim, curv, rho, kind, steps):
    start, end = ends(seed, dim, curv, rho, kind)
    route = Route(start, curv, end, steps)
    t = route.fractions()
    np.testing.assert_allclose(t, [i / (steps - 1) for i in range(steps)], rtol=1e-15)
    want, got = lerp_exactly(start, end, t, curv), route.places(t)
    scale = 1e-12 * (1 / math.sqrt(curv) + start.norm() + end.norm())
    assert rounded(reference.norm(exact(got) - want)).max() <= scale


@settings(max_examples=30)
@given(SEEDS, st.sampled_from([2, 3, 16]), CURVS, RADII, st.sampled_from(["apart", "near", "opposite", "one line"]))
def test_without_steps_places_lie_on_the_geodesic(seed, dim, curv, rho, kind):
    start, end = ends(seed, dim, curv, rho, kind)
    route = Route(start, curv, end)
    got = route.places(FRACTIONS)
    x, y = (number(p.numpy())[None].repeat(len(FRACTIONS), 0) for p in (start, end))
    want = reference.geodesic(x, y, number(FRACTIONS.numpy())[:, None], mpf(curv))
    error = rounded(reference.norm(exact(got) - want))
    assert (error <= 1e-10 * (1 / math.sqrt(curv) + start.norm() + end.norm())).all()


@settings(max_examples=30)
@given(SEEDS, st.sampled_from([2, 3, 16]), CURVS, RADII, st.one_of(st.none(), st.integers(2, 9)))
def test_towards_the_root_steps_and_geodesic_are_one(seed, dim, curv, rho, steps):
    start, _ = ends(seed, dim, curv, rho, "apart")
    route = Route(start, curv, None, steps)
    assert route.straight
    assert route.target.tolist() == [0.0] * dim
    radii = lorentz.radius(route.places(FRACTIONS), curv)
    np.testing.assert_allclose(radii, (1 - FRACTIONS) * rho / math.sqrt(curv), rtol=1e-10, atol=1e-12)
    directions = route.places(FRACTIONS[:-1])
    assert relative_rows(directions / directions.norm(dim=-1, keepdim=True), exact(start / start.norm())).max() <= 1e-10


@settings(max_examples=60)
@given(SEEDS, st.sampled_from([2, 3, 16]), CURVS, RADII, KINDS, st.one_of(st.none(), st.integers(2, 9)), st.booleans())
def test_three_numbers_of_a_point_give_its_product_with_every_place(seed, dim, curv, rho, kind, steps, to_root):
    start, end = ends(seed, dim, curv, rho, kind)
    route = Route(start, curv, None if to_root else end, steps)
    t = FRACTIONS if steps is None else route.fractions()
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(7, dim))) * 3
    z, c = route.places(t), mpf(curv)
    features = torch.stack([lorentz.time_component(x, curv)[:, 0], x @ route.start, x @ route.target], 1)
    a, b, z_t = route.coefficients(t).T.unsqueeze(-1)
    got = z_t * features[:, 0] - a * features[:, 1] - b * features[:, 2]
    ez, ex = exact(z), exact(x)
    want = np.stack([-reference.inner(ex, place[None], c) for place in ez])
    size = z_t * features[:, 0] + (a * features[:, 1]).abs() + (b * features[:, 2]).abs()
    assert (rounded(abs(exact(got) - want)) <= 1e-11 * size).all()
    # They are no larger than the place needs: what a scan rounds is a part of their size.
    reach = a.abs()[:, 0] * start.norm() + b.abs()[:, 0] * route.target.norm()
    assert (reach <= 20 * (z_t[:, 0] + 1e-9 * start.norm())).all()


@settings(max_examples=60)
@given(SEEDS, CURVS, RADII, st.sampled_from(["apart", "near", "opposite", "one line"]), st.floats(0, 1), st.booleans())
@example(0, 1.0, 10.0, "opposite", 1.0, False)
@example(0, 1.0, 11.0, "opposite", 1 - 1e-9, False)
@example(0, 1.0, 11.0, "opposite", 1e-9, False)
@example(0, 1.0, 12.0, "apart", 1.0, True)
def test_a_place_between_the_ends_in_the_ambient_space_has_a_fraction(seed, curv, rho, kind, r, to_root):
    start, end = ends(seed, 3, curv, rho, kind)
    route = Route(start, curv, None if to_root else end)
    fraction = route.fraction_of(r)
    assert 0 <= fraction <= 1 + 1e-12
    x, y, c = exact(start), exact(route.target), mpf(curv)
    ambient = (1 - mpf(r)) * x + mpf(r) * y
    time = (1 - mpf(r)) * reference.time_component(x, c) + mpf(r) * reference.time_component(y, c)
    scale = 1 / reference.mp.sqrt(c * (time**2 - (ambient**2).sum()))
    got = exact(route.places(torch.tensor([fraction], dtype=torch.float64)))
    assert reference.dist(got[0], ambient * scale, c) * reference.mp.sqrt(c) <= 1e-6


def test_fractions_run_from_0_to_1_in_order():
    route = Route(torch.tensor([1e4, 0.0]), 1.0, torch.tensor([-3.0, 5.0]))
    found = [route.fraction_of(r) for r in np.linspace(0, 1, 101)]
    assert found[0] == 0
    assert found[-1] == pytest.approx(1)
    assert found == sorted(found)
    same = Route(torch.ones(2), 1.0, torch.ones(2))
    assert same.fraction_of(0.3) == pytest.approx(0.3)


def test_ends_are_kept_in_float64_and_free_of_gradients():
    start = torch.ones(3, requires_grad=True)
    route = Route(start, 1.0, torch.zeros(3, dtype=torch.float64), 3)
    assert (route.start.dtype, route.target.dtype) == (torch.float64, torch.float64)
    assert not route.start.requires_grad
    assert not route.straight
    assert Route(start, 1.0, torch.zeros(3)).straight


@pytest.mark.parametrize(
    "start, end, message",
    [
        (torch.ones(1, 3), None, r"one shape \(D,\), got \(1, 3\)"),
        (torch.ones(3), torch.ones(4), r"got \(3,\) and \(4,\)"),
        (torch.ones(3), torch.ones(1, 3), r"got \(3,\) and \(1, 3\)"),
    ],
)
def test_ends_have_one_shape(start, end, message):
    with pytest.raises(InputError, match=message):
        Route(start, 1.0, end)


@pytest.mark.parametrize("steps", [1, 0, -3, 10_001])
def test_there_are_some_steps_but_not_too_many(steps):
    with pytest.raises(InputError, match=f"2 to 10000 steps, or None to go without, got {steps}"):
        Route(torch.ones(3), 1.0, None, steps)


def test_a_path_without_steps_has_no_fractions():
    with pytest.raises(InputError, match="without steps"):
        Route(torch.ones(3), 1.0).fractions()
