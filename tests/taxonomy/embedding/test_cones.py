"""Entailment cones of a tree: what is entailed, what a held-out pair needs, and the rule that comes out."""

import math

import pytest
import torch

from hypclip.errors import InputError
from hypclip.geometry import cones, entailment, lorentz
from hypclip.geometry.metric import Metric
from hypclip.taxonomy import Taxonomy, load
from hypclip.taxonomy.embedding import ConeTraining, cone_start, predict, split, train_cones
from hypclip.taxonomy.embedding.cones import depth
from hypclip.taxonomy.embedding.prediction import Corruption

TREE = Taxonomy([(f"p{child}", f"p{(child - 1) // 3}") for child in range(1, 121)])


def test_depth_is_that_of_the_geometry():
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = split(TREE, 0.5)
    pairs = Corruption(TREE.closure, len(TREE)).labelled(parts.test, 1, torch.Generator().manual_seed(0))
    pairs = pairs._replace(general=pairs.general % 9, specific=pairs.specific % 8)
    rule = entailment.Cone(eta=1.3, min_radius=0.2)
    wanted = entailment.pairwise_score(rule, x, x, Metric(), 1.0)[pairs.general, pairs.specific]
    torch.testing.assert_close(depth(rule, x, pairs), wanted)


def test_the_start_has_the_order_of_the_taxonomy_and_children_beyond_their_parents():
    taxonomy = Taxonomy([("c", "b"), ("b", "a"), ("d", "a"), ("c", "a")])  # the last follows from others
    x = dict(zip(taxonomy.phrases, cone_start(taxonomy, 3, 0.5), strict=True))
    assert lorentz.radius(x["a"], 1.0) == 0
    for child, parent in (("b", "a"), ("d", "a"), ("c", "b")):
        assert lorentz.dist(x[child], x[parent], 1.0) == pytest.approx(0.5)
        assert lorentz.radius(x[child], 1.0) > lorentz.radius(x[parent], 1.0)


def test_a_tree_lies_in_its_cones_and_what_was_held_out_too():
    parts = split(TREE, 0.5)
    start = cone_start(TREE, 5)
    x = train_cones(start, parts, ConeTraining(steps=100, rate=0.015))
    before, after = predict(start, TREE, parts), predict(x, TREE, parts)
    assert after.test.f1 > 0.9
    assert after.by_rule.f1 > before.by_rule.f1
    assert x[0].abs().max() == 0  # the root is the origin, which entails everything
    learned = torch.from_numpy(parts.learned.above), torch.from_numpy(parts.learned.below)
    angle = cones.oxy_angle(x[learned[0]], x[learned[1]], 1.0)
    rule = after.rule
    assert (angle <= rule.eta * cones.half_aperture(x[learned[0]], 1.0, rule.min_radius)).double().mean() > 0.85


def test_the_rule_finds_what_it_says():
    parts = split(TREE, 0.5)
    x = train_cones(cone_start(TREE, 5), parts, ConeTraining(steps=20))
    found = predict(x, TREE, parts, seed=1)
    corruption = Corruption(TREE.closure, len(TREE), parts.first)
    generator = torch.Generator().manual_seed(1)
    corruption.labelled(parts.valid, 5, generator)
    pairs = corruption.labelled(parts.test, 5, generator)
    inside = depth(found.rule, x, pairs) >= 0
    hits, taken = int(inside[: pairs.right].sum()), int(inside.sum())
    assert found.by_rule.f1 == pytest.approx(2 * hits / (taken + pairs.right))
    assert found.wrong == len(pairs.general) - pairs.right == 10 * len(parts.test)


def test_a_seed_and_batches():
    parts = split(TREE, 0.0)
    start = cone_start(TREE, 5)
    training = ConeTraining(steps=5, batch=50)
    x = train_cones(start, parts, training)
    assert torch.equal(x, train_cones(start, parts, training))
    assert not torch.equal(x, train_cones(start, parts, ConeTraining(steps=5, batch=50, seed=1)))
    assert bool(x.isfinite().all())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"rate": 0.0}, "rate must be positive, got 0.0"),
        ({"rate": math.inf}, "rate must be positive, got inf"),
        ({"margin": 4.0}, "margin must be positive and at most 3.142, got 4.0"),
        ({"min_radius": math.nan}, "min_radius must be positive, got nan"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, said):
    with pytest.raises(InputError, match=said):
        ConeTraining(**wrong)


@pytest.mark.slow
@pytest.mark.parametrize(("share", "bar"), [(0.5, 0.856), (0.0, 0.59)])
def test_mammals_are_told_as_well_as_published(share, bar):
    mammals = load("wordnet-mammals")
    parts = split(mammals, share)
    assert predict(train_cones(cone_start(mammals, 5), parts, ConeTraining()), mammals, parts).test.f1 >= bar
