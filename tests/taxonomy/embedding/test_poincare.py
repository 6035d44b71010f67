"""Poincaré embeddings: gradients against autograd, what is trained, and that mammals find their places."""

import math

import pytest
import torch

from hypclip.errors import InputError
from hypclip.geometry import lorentz, poincare
from hypclip.taxonomy import Taxonomy, load
from hypclip.taxonomy.embedding import Training, reconstruction, train
from hypclip.taxonomy.embedding.manifolds import Ball, Lorentz

BINARY = Taxonomy([(f"p{child:03}", f"p{(child - 1) // 2:03}") for child in range(1, 63)])


def by_distance(x):
    t = (1 + x.square().sum(1)).sqrt()
    return lambda rows: torch.outer(t[rows], t) - x[rows] @ x.T


@pytest.mark.parametrize("manifold", [Lorentz(), Ball()])
def test_cosh_and_its_gradients(manifold):
    generator = torch.Generator().manual_seed(0)
    space = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    points = manifold.descend(
        manifold.start(space * 0), torch.nn.functional.pad(space, (manifold.width(4) - 4, 0)), 1.0, 5.0
    )
    x, y = points[:4].requires_grad_(), points[4:].requires_grad_()
    cosh = manifold.measure(x, y)
    distances = torch.cosh(lorentz.pairwise_dist(manifold.space(x), manifold.space(y), 1.0))
    torch.testing.assert_close(cosh, distances, rtol=1e-9, atol=0)
    by = torch.randn(cosh.shape, generator=generator, dtype=torch.float64)
    wanted = torch.autograd.grad((cosh * by).sum(), [x, y])
    torch.testing.assert_close(manifold.gradients(x.detach(), y.detach(), by), wanted)
    wanted = torch.autograd.grad((manifold.paired(x, y[:4]) * by[:, 0]).sum(), [x, y])
    found = manifold.paired_gradients(x.detach(), y.detach()[:4], by[:, 0])
    torch.testing.assert_close(found, (wanted[0], wanted[1][:4]))


def test_the_ball_holds_the_same_points():
    space = torch.tensor([[0.3, -2.0], [0.0, 0.1]], dtype=torch.float64)
    torch.testing.assert_close(Ball().space(poincare.from_lorentz(space, 1.0)), space)


@pytest.mark.parametrize("manifold", [Lorentz(), Ball()])
def test_a_step_is_at_most_1_long_and_stays_within_the_radius(manifold):
    x = manifold.start(torch.zeros(1, 3, dtype=torch.float64))
    for _ in range(9):
        gradient = torch.zeros_like(x)
        gradient[:, -1] = -1e6
        before, x = x, manifold.descend(x, gradient, 1.0, 2.5)
        assert lorentz.dist(manifold.space(before), manifold.space(x), 1.0) <= 1 + 1e-9
    assert math.isclose(lorentz.radius(manifold.space(x), 1.0), 2.5, rel_tol=1e-9)


@pytest.mark.parametrize("method", ["lorentz", "poincare"])
def test_a_small_tree_is_given_back(method):
    told = []
    training = Training(method=method, dim=5, epochs=200, rate=0.05, batch=8)
    x = train(BINARY.closure, len(BINARY), training, report=told.append)
    found = reconstruction(by_distance(x), BINARY.closure, len(BINARY))
    assert found.map > 0.97
    assert found.mean_rank < 1.1
    assert told[-1].epoch == 200
    assert told[-1].loss < told[0].loss / 5
    assert lorentz.radius(x, 1.0)[0] == lorentz.radius(x, 1.0).min()  # the root has the least radius


def test_candidates_are_sampled_where_there_are_more_phrases_and_a_seed_gives_the_same():
    training = Training(dim=5, epochs=150, rate=0.05, batch=8, candidates=30, negatives=20.0)
    x = train(BINARY.closure, len(BINARY), training)
    assert reconstruction(by_distance(x), BINARY.closure, len(BINARY)).map > 0.9
    assert torch.equal(x, train(BINARY.closure, len(BINARY), training))


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"epochs": 0}, {"rate": 0.0}, {"burn_in": 1.0}, {"max_radius": 20.0}])
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(InputError):
        Training(**wrong)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lorentz", "poincare"])
def test_mammals_are_given_back_as_well_as_published(method):
    mammals = load("wordnet-mammals")
    x = train(mammals.closure, len(mammals), Training(method=method, dim=10))
    found = reconstruction(by_distance(x), mammals.closure, len(mammals))
    assert found.mean_rank <= 1.12
    assert found.map >= 0.965
