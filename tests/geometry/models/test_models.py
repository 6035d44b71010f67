"""All models are one space: distances agree, maps between any two lose no digits, boosts are isometries."""

from itertools import permutations
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given

from hypclip.geometry import lorentz, poincare
from hypclip.geometry.models import half_space, hemisphere, klein
from tests.support import reference
from tests.support.checks import CURVS_DRAWN, DTYPES, tangents
from tests.support.reference import exact

NEAR = tangents(max_norm=5.0)
hyperboloid = SimpleNamespace(from_lorentz=lambda x, c: x, to_lorentz=lambda x, c: x, dist=lorentz.dist)
MODELS = {
    "hyperboloid": hyperboloid,
    "poincare": poincare,
    "klein": klein,
    "half_space": half_space,
    "hemisphere": hemisphere,
}
EXACT = {
    "hyperboloid": (hyperboloid.from_lorentz, hyperboloid.to_lorentz),
    "poincare": (reference.ball_from_lorentz, reference.ball_to_lorentz),
    "klein": (reference.klein_from_lorentz, reference.klein_to_lorentz),
    "half_space": (reference.half_space_from_lorentz, reference.half_space_to_lorentz),
    "hemisphere": (reference.hemisphere_from_lorentz, reference.hemisphere_to_lorentz),
}
each_model = pytest.mark.parametrize("model", [pytest.param(m, id=n) for n, m in MODELS.items()])


@given(NEAR, NEAR, CURVS_DRAWN)
def test_distances_agree_in_all_models(v, u, curv):
    x, y = (lorentz.exp_map0(p / curv**0.5, curv) for p in (v, u))
    want = lorentz.dist(x, y, curv)
    for model in MODELS.values():
        got = model.dist(model.from_lorentz(x, curv), model.from_lorentz(y, curv), curv)
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("source, target", list(permutations(MODELS, 2)))
def test_maps_between_any_two_models_lose_no_digits(source, target, dtype):
    curv = torch.tensor(0.7, dtype=dtype)
    a = MODELS[source].from_lorentz(reference.points(curv, 4, (1e-6, 1e-3, 0.1, 1.0, 5.0), each=4), curv)
    got = MODELS[target].from_lorentz(MODELS[source].to_lorentz(a, curv), curv)
    want = EXACT[target][0](EXACT[source][1](exact(a), exact(curv)), exact(curv))
    # In float64 it is the gap to the rim of a ball, and near the origin the height 1/√c of a half-space, that round.
    assert reference.relative_rows(got, want).max() <= (2e-7 if dtype == torch.float32 else 2e-10)
    back = MODELS[source].from_lorentz(MODELS[target].to_lorentz(got, curv), curv)
    lost = 1e4 if target == "klein" else 1e2 if target == "poincare" else 4
    assert ((back - a).norm(dim=-1) / a.norm(dim=-1).clamp(min=1)).max() <= lost * torch.finfo(dtype).eps


@each_model
@given(NEAR, NEAR, tangents(max_norm=2.0), CURVS_DRAWN)
def test_boosts_change_no_distance(model, v, u, w, curv):
    """A boost takes the origin to exp0(w)."""
    far = lorentz.exp_map0(w, 1.0)
    time = lorentz.time_component(far, 1.0)

    def boosted(point: torch.Tensor) -> torch.Tensor:
        x = model.to_lorentz(point, curv)
        moved = x + (lorentz.time_component(x, curv) + (x * far).sum(-1) / (1 + time)) * far
        return model.from_lorentz(moved, curv)

    p, q = (model.from_lorentz(lorentz.exp_map0(t / curv**0.5, curv), curv) for t in (v, u))
    torch.testing.assert_close(
        model.dist(boosted(p), boosted(q), curv), model.dist(p, q, curv), rtol=1e-6, atol=1e-6 / curv**0.5
    )


@each_model
@given(v=NEAR, u=NEAR, w=NEAR, curv=CURVS_DRAWN)
def test_dist_is_a_metric(model, v, u, w, curv):
    p, q, r = (model.from_lorentz(lorentz.exp_map0(t / curv**0.5, curv), curv) for t in (v, u, w))
    d = model.dist(p, q, curv)
    assert torch.equal(d, model.dist(q, p, curv))
    assert model.dist(p, r, curv) <= (d + model.dist(q, r, curv)) * (1 + 1e-10) + 1e-10
    origin = model.from_lorentz(torch.zeros_like(v), curv)
    torch.testing.assert_close(curv**0.5 * model.dist(origin, p, curv), v.norm(), rtol=1e-10, atol=1e-10)


@given(NEAR, CURVS_DRAWN)
def test_the_models_are_projections_of_one_another(v, curv):
    x = lorentz.exp_map0(v / curv**0.5, curv)
    p, k, h, j = (model.from_lorentz(x, curv) for model in (poincare, klein, half_space, hemisphere))
    unit = torch.tensor([0.0, 0.0, 0.0, curv**-0.5], dtype=torch.float64)
    close = {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(j[:-1], k)
    torch.testing.assert_close(2 * p / (1 + curv * p.square().sum()), k)
    # from the south pole of the hemisphere, onto its equator
    torch.testing.assert_close(j[:-1] / (1 + curv**0.5 * j[-1]), p)
    # the Cayley map: an inversion in the sphere of radius √2 about the top of the ball, then a reflection
    top = p - unit
    inverted = 2 / curv * top / top.square().sum()
    torch.testing.assert_close(h, torch.cat([inverted[:-1], -(inverted[-1:] + unit[-1])]), **close)
