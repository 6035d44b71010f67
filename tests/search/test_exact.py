"""Distances, radii and angles of stored points against 50 digits."""

import contextlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypclip.search import Cone, Plane
from hypclip.search import exact as searched
from hypclip.search.exact import measure, measure_cone, one_thread
from tests.support import reference
from tests.support.reference import exact, relative, rounded
from tests.support.search import CURVS, DIMS, ETAS, MIN_RADII, RADII, SEEDS, cone_margins, crowd


@settings(max_examples=25)
@given(SEEDS, DIMS, CURVS, RADII)
def test_distances_and_radii_are_those_of_50_digits_at_any_separation(seed, dim, curv, rho):
    x, query = (torch.from_numpy(a) for a in crowd(seed, dim, curv, rho, n=8))
    found = measure(x, query, curv)
    same = (x == query).all(1)
    assert (found.distance[same] == 0).all()
    ex, eq, c = exact(x), exact(query), reference.mpf(curv)
    apart, away = ~same, x.any(1)
    assert relative(found.distance[apart], reference.dist(ex, eq, c)[apart.numpy()]).max() <= 1e-9
    assert relative(found.radius[away], reference.radius(ex, c)[away.numpy()]).max() <= 1e-12
    assert (found.radius[~away] == 0).all()


@pytest.mark.parametrize("rho", [0.0, 1e-6, 1.0, 5.0, 12.0, 16.8])
@pytest.mark.parametrize("curv", [0.05, 1.0, 10.0])
def test_a_point_is_at_distance_0_of_itself_and_of_nothing_else(rho, curv):
    x = math.sinh(rho) / math.sqrt(curv) * torch.nn.functional.normalize(torch.randn(4, 32), dim=-1)
    beside = x.clone()
    beside[:, 0] = torch.nextafter(beside[:, 0], torch.tensor(math.inf))
    for query, neighbour in zip(x, beside, strict=True):
        found = measure(torch.stack([query, neighbour]), query, curv)
        assert found.distance[0] == 0
        assert found.distance[1] > 0


@pytest.mark.parametrize("dim", [2, 3, 127, 512])
@pytest.mark.parametrize("form", [Cone(), Plane()])
def test_a_copy_of_the_query_is_at_angle_0_of_it(dim, form):
    x = torch.randn(37, dim, generator=torch.Generator().manual_seed(dim))
    for row in range(len(x)):
        for side in ("ancestors", "descendants"):
            found, _ = measure_cone(x, x[row], side, form, 1.0)
            assert (found.angle[row], found.distance[row]) == (0, 0)


def test_a_float64_query_is_not_rounded():
    query = torch.tensor([1.0 + 1e-10, 0.0], dtype=torch.float64)
    found = measure(torch.tensor([[1.0, 0.0]]), query, 1.0)
    assert found.distance.item() == pytest.approx(1e-10 / 2**0.5, rel=1e-4)


@settings(max_examples=25)
@given(SEEDS, DIMS, CURVS, RADII, ETAS, MIN_RADII, st.sampled_from(["ancestors", "descendants"]))
def test_margins_are_those_of_50_digits(seed, dim, curv, rho, eta, min_radius, side):
    points, query = crowd(seed, dim, curv, rho, n=8, eta=eta)
    x, q = torch.from_numpy(points), torch.from_numpy(query)
    found, inside = measure_cone(x, q, side, Cone(eta, min_radius, strict=False), curv)
    pair = (points, query) if side == "ancestors" else (query, points)
    want = cone_margins(*pair, curv, eta, min_radius)
    # The angle of pairs that are near for their radius is worth fewer digits: see cones.oxy_angle.
    slack = 1e-7 + 2e-14 * math.cosh(12) / np.tanh(np.maximum(math.sqrt(curv) * found.distance.numpy(), 1e-9))
    assert (abs(found.margin.numpy() - want) <= slack).all()
    sure = abs(want) > slack
    np.testing.assert_array_equal(inside.numpy()[sure], want[sure] <= 0)
    np.testing.assert_array_equal(found.margin, found.angle - eta * found.aperture)
    # By another formula than `measure`: what far pairs agree on, near ones far out do to fewer digits.
    same = (x == q).all(1)
    assert (found.distance[same] == 0).all()
    assert relative(found.distance[~same], exact(measure(x, q, curv).distance[~same])).max() <= 1e-7
    general = reference.exact(torch.from_numpy(np.broadcast_to(pair[0], points.shape).copy()))
    away = np.asarray(reference.norm(general) > 0, bool)
    aperture = rounded(reference.half_aperture(general[away], reference.mpf(curv), min_radius))
    assert not away.any() or (found.aperture[torch.from_numpy(away)] - aperture).abs().max() <= 1e-7


def test_a_strict_cone_leaves_out_copies_and_nothing_else():
    x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    for side, reflexive in (("ancestors", [True, False, True, True]), ("descendants", [True, True, True, False])):
        _, inside = measure_cone(x, x[0], side, Cone(strict=False), 1.0)
        assert inside.tolist() == reflexive
        _, inside = measure_cone(x, x[0], side, Cone(strict=True), 1.0)
        assert inside.tolist() == [a and i not in (0, 2) for i, a in enumerate(reflexive)]


def test_the_root_entails_everything():
    x = torch.cat([torch.randn(20, 3), torch.zeros(1, 3)])
    found, inside = measure_cone(x, torch.zeros(3), "descendants", Cone(0.5), 2.0)
    assert inside.tolist() == [True] * 20 + [False]
    assert (found.angle == 0).all()
    np.testing.assert_allclose(found.margin, -0.5 * math.pi / 2)
    _, inside = measure_cone(x, torch.zeros(3), "ancestors", Cone(0.5, strict=False), 2.0)
    assert inside.tolist() == [False] * 20 + [True]


def test_blocks_are_put_together_in_order(monkeypatch):
    x, query = torch.randn(50, 3), torch.randn(3)
    whole, inside = measure_cone(x, query, "ancestors", Cone(), 1.0)
    monkeypatch.setattr(searched, "_BLOCK", 1)  # the smallest blocks: 16 rows
    parts, also = measure_cone(x, query, "ancestors", Cone(), 1.0)
    for name, column in vars(whole).items():
        torch.testing.assert_close(getattr(parts, name), column, rtol=1e-14, atol=0)
    assert torch.equal(inside, also)
    for name in ("distance", "radius"):
        column = getattr(measure(x, query, 1.0), name)
        torch.testing.assert_close(column, getattr(parts, name), rtol=1e-12, atol=1e-12)


def test_nothing_measures_as_nothing():
    found = measure(torch.zeros(0, 3), torch.ones(3), 1.0)
    assert found.columns([]) == {"distance": [], "radius": []}
    found, inside = measure_cone(torch.zeros(0, 3), torch.ones(3), "descendants", Cone(), 1.0)
    assert inside.shape == (0,)
    assert set(found.columns([])) == {"distance", "radius", "angle", "aperture", "margin"}


@pytest.mark.parametrize("order", ["distance", "radius", "margin"])
def test_what_is_sorted_by(order):
    found, _ = measure_cone(torch.randn(5, 3), torch.ones(3), "ancestors", Cone(), 1.0)
    assert torch.equal(found.by(order), getattr(found, order))
    assert found.columns([3, 1])[order] == getattr(found, order)[[3, 1]].tolist()


def test_copies_measure_the_same_wherever_they_stand():
    for seed in range(60):
        torch.manual_seed(seed)
        dim, n = int(torch.randint(2, 9, ())), int(torch.randint(2, 70, ()))
        x, query = torch.randn(1, dim).expand(n, dim).contiguous(), torch.randn(dim)
        for side in ("ancestors", "descendants"):
            found, _ = measure_cone(x, query, side, Cone(), 0.7)
            for name, column in vars(found).items():
                assert float(column.max() - column.min()) <= 1e-14, name  # the store lets ids decide within 1e-12


def test_one_thread_is_given_back():
    before = torch.get_num_threads()
    with contextlib.suppress(KeyError), one_thread():
        assert torch.get_num_threads() == 1
        {}["an error"]
    assert torch.get_num_threads() == before
