"""What regions hold, where every number is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from hypclip.evaluation import regions
from hypclip.evaluation.regions import (
    containment,
    cosines,
    edge_measures,
    geodesic_against_cosine,
    half_spaces,
    radii,
    scores,
    transitivity,
)
from hypclip.geometry.entailment import Cone, Plane
from tests.support.data import KnownModel
from tests.support.hierarchy import PERFECT, Place, at, model_at

SPACES = {
    "lorentz": {},
    "euclidean": {"geometry": "euclidean"},
    "product": {"geometry": "product", "distance": "l1", "factor_dim": 2, "curv": [0.5, 2.0]},
}
each_geometry = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
each_rule = pytest.mark.parametrize("rule", [Plane(), Plane(0.3), Cone(), Cone(1.2, 0.4, strict=False)], ids=repr)


def points(*places: Place) -> torch.Tensor:
    return torch.tensor([at(place) for place in places])


def random_points(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))


def measures(model: KnownModel, general: torch.Tensor, specific: torch.Tensor, true: list[list[int]], **kw: bool):
    truth = torch.tensor(true, dtype=torch.bool)
    return dict(edge_measures(model, general, specific, truth, torch.ones_like(truth), **kw))


def test_every_measure_of_a_set_by_hand():
    # Two general points at a right angle. Below: one straight behind each, one halfway that both hold, one that none
    # does, and that is opposite to the one and at a right angle to the other.
    general = points((0.5, 1, 0), (0.5, 0, 1))
    specific = points((1, 1, 0), (1, 0, 1), (1, 1, 1), (1, -1, 0))
    found = measures(model_at(PERFECT), general, specific, [[1, 0, 1, 0], [0, 1, 0, 1]])
    # Ranked by the cosine, as radii are equal: 1 (2 of 2 true), 0.7 (1 of 2), 0 (1 of 3), −1 (0 of 1).
    precision, auc = 2 / 4 + 1 / 4 * 3 / 4 + 1 / 4 * 4 / 7, (2.5 + 2 * 3.5 + 4) / 16
    assert found == pytest.approx(
        {
            "pairs": 8, "base_rate": 0.5, "precision": 3 / 4, "recall": 3 / 4, "multiplicity": 4 / 4,
            "ap": precision, "ap-cosine": 0, "ap-radius": precision - 0.5,
            "auc": auc, "auc-cosine": 0, "auc-radius": auc - 0.5,
        },
        abs=1e-12,
    )  # fmt: skip
    assert isinstance(found["pairs"], int)


def test_radii_tell_apart_what_the_cosine_cannot():
    """Both lie straight behind both; only the one that is further out is an instance of the other."""
    line = points((0.5, 1, 0), (1.5, 1, 0))
    asked = ~torch.eye(2, dtype=torch.bool)
    found = dict(edge_measures(model_at(PERFECT), line, line, torch.tensor([[0, 1], [0, 0]]).bool(), asked))
    assert found == {
        "pairs": 2, "base_rate": 0.5, "precision": 1, "recall": 1, "multiplicity": 0.5,
        "ap": 1, "ap-cosine": 0.5, "ap-radius": 0, "auc": 1, "auc-cosine": 0.5, "auc-radius": 0,
    }  # fmt: skip


def test_of_a_collapsed_model_all_regions_hold_all():
    """The general ones are in one direction near the origin, and all else further out: cones are as good as none."""
    general = points((0.01, 1, 0), (0.02, 1, 0), (0.03, 1, 0))
    specific = points(*((1, 1, 0) for _ in range(4)))
    found = measures(model_at(PERFECT), general, specific, [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]])
    assert found["multiplicity"] == 3
    assert found["precision"] == found["base_rate"] == 1 / 3
    assert found["recall"] == 1


@pytest.mark.parametrize("strict", [True, False])
def test_points_at_one_place_are_tied_and_entail_each_other_unless_the_rule_is_strict(strict):
    same = points((1, 1, 0), (1, 1, 0))
    found = measures(model_at(PERFECT, entailment=Plane(strict=strict)), same, same, [[1, 0], [0, 1]])
    assert (found["ap"], found["auc"], found["ap-cosine"], found["ap-radius"]) == (0.5, 0.5, 0, 0)
    assert found["recall"] == found["multiplicity"] / 2 == (0 if strict else 1)
    assert found.get("precision") == (None if strict else 0.5)


def test_what_has_no_value_is_left_out():
    one, behind, beside = points((0.5, 1, 0)), points((1, 1, 0)), points((1, -1, 0))
    model = model_at(PERFECT)
    assert measures(model, one, behind, [[1]]) == {
        "pairs": 1, "base_rate": 1, "precision": 1, "recall": 1, "multiplicity": 1,
    }  # fmt: skip
    assert measures(model, one, beside, [[0]]) == {"pairs": 1, "base_rate": 0, "multiplicity": 0}
    assert "multiplicity" not in measures(model, one, behind, [[1]], of_one_level=False)


def test_the_sphere_has_cosines_alone():
    model = KnownModel({"x": (1.0, 0.0)}, {}, geometry="sphere")
    general, specific = torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([[1.0, 0.1], [0.2, 1], [1, 0.9]])
    found = measures(model, general, specific, [[1, 0, 0], [0, 1, 1]])
    assert found == {"pairs": 6, "base_rate": 0.5, "ap": pytest.approx(1 / 3 + 1 / 3 + 3 / 4 / 3), "auc": 8 / 9}


@each_geometry
@each_rule
def test_what_is_asserted_is_what_the_model_entails(space, rule, monkeypatch):
    model = KnownModel({"x": (1.0,) * 4}, {}, **space, entailment=rule)
    x = random_points(30, 1) * 0.3
    y = torch.cat([random_points(50, 2), x[:5], torch.zeros(1, 4)])
    whole, held = scores(model, x, y)
    assert torch.equal(held, model.entails(x, y))
    assert 0 < held.sum() < held.numel()
    monkeypatch.setattr(regions, "_BLOCK_PAIRS", 200)
    again, held_again = scores(model, x, y)
    torch.testing.assert_close(again, whole, rtol=1e-12, atol=1e-12)
    assert torch.equal(held_again, held)


@each_geometry
def test_a_point_lies_in_its_own_cone(space):
    rule = Cone(min_radius=0.05)
    model = KnownModel({"x": (1.0,) * 4}, {}, **space, entailment=rule)
    x = random_points(40, 3)
    assert (scores(model, x, x)[0].diagonal() > 0).all()
    assert model.entails(x, x, Cone(min_radius=0.05, strict=False)).diagonal().all()
    assert not model.entails(x, x, Cone(min_radius=0.05, strict=True)).diagonal().any()


@pytest.mark.parametrize("curv", [0.25, 1.0, 4.0])
def test_radii_are_those_that_geometry_sees(curv):
    model = model_at(PERFECT, curv=curv)
    x = torch.tensor([at((rho, 1, 2), curv) for rho in (0.1, 0.7, 3)])
    assert radii(model, x).tolist() == pytest.approx([0.1, 0.7, 3], rel=1e-6)


def test_radii_of_a_product_are_combined_at_each_ones_own_curvature():
    model = KnownModel({"x": (1.0,) * 4}, {}, **SPACES["product"])
    x = torch.tensor([[*at((0.7, 1, 0), 0.5), *at((0.2, 0, 1), 2.0)]])
    assert radii(model, x).tolist() == pytest.approx([0.9], rel=1e-6)
    assert half_spaces(model, x) == 0
    assert half_spaces(model, torch.tensor([[*at((0.7, 1, 0), 0.5), *at((0.19, 0, 1), 2.0)]])) == 0.5


def test_half_spaces_are_counted_up_to_the_radius_at_which_merus_cones_open():
    opened = math.asinh(0.2)
    assert half_spaces(model_at(PERFECT), points((opened - 1e-3, 1, 0), (opened + 1e-3, 0, 1), (0, 1, 0))) == 2 / 3
    flat = KnownModel({"x": (1.0, 0.0)}, {}, geometry="euclidean")
    assert half_spaces(flat, torch.tensor([[0.099, 0], [0.101, 0]])) == 0.5


def test_a_pair_and_its_reverse_have_one_cosine():
    x = torch.randn(60, 48, generator=torch.Generator().manual_seed(5))
    found = cosines(x, x[:31])
    assert torch.equal(found[:31], found[:31].T)
    torch.testing.assert_close(found, torch.cosine_similarity(x.double()[:, None], x.double()[:31], dim=-1))


# Transitivity ---------------------------------------------------------------------------------------------------------


def test_along_a_ray_all_is_transitive():
    assert transitivity(model_at(PERFECT), points((0.5, 1, 0), (1, 1, 0), (1.5, 1, 0), (2, 1, 0))) == 1


def test_half_spaces_that_turn_are_not_transitive():
    """The second is 40° from the first and the others 40° from that: 1 ⊐ 2, 2 ⊐ 3, 2 ⊐ 4, 3 ⊐ 4 make three triples."""
    ways = [(math.cos(i * math.radians(40)), math.sin(i * math.radians(40))) for i in (0, 1, 2)]
    turning = points((0.3, *ways[0]), (0.6, *ways[1]), (2, *ways[2]), (3, *ways[2]))
    model = model_at(PERFECT)
    assert model.entails(turning, turning).nonzero().tolist() == [[0, 1], [1, 2], [1, 3], [2, 3]]
    assert transitivity(model, turning) == 1 / 3


def test_without_a_triple_transitivity_is_no_number():
    assert math.isnan(transitivity(model_at(PERFECT), points((0.5, 1, 0), (1, 1, 0), (1, -1, 0))))


def test_a_point_is_no_middle_of_itself():
    """Two at one place entail each other where the rule is not strict; that makes no triple."""
    model = model_at(PERFECT, entailment=Plane(strict=False))
    assert math.isnan(transitivity(model, points((1, 1, 0), (1, 1, 0), (0.5, -1, 0))))


def test_of_many_phrases_a_fixed_sample_is_asked(monkeypatch):
    line = points(*((0.1 + 0.01 * i, 1, 0) for i in range(20)), *((3, -1, 0.1 * i) for i in range(20)))
    whole = transitivity(model_at(PERFECT), line)
    monkeypatch.setattr(regions, "_TRIPLE_PHRASES", 10)
    assert transitivity(model_at(PERFECT), line) == transitivity(model_at(PERFECT), line) == whole == 1


# Captions and their images --------------------------------------------------------------------------------------------


def test_captions_hold_their_own_images_and_others():
    """The half-spaces of the first two hold both images ahead; the third caption's image is behind it."""
    texts = points((0.5, 1, 0), (0.4, 1, 0), (0.5, 0, 1))
    images = points((1, 1, 0), (2, 1, 0), (1, 0, -1))
    picture = torch.tensor([0, 1, 2])
    model = model_at(PERFECT)
    assert containment(model, texts, images, picture, ["a", "b", "c"]) == pytest.approx((2 / 3, 2 / 6))
    # Said of both, the first caption is right of both.
    assert containment(model, texts, images, picture, ["a", " A", "c"]) == pytest.approx((2 / 3, 0 / 4))
    # Two captions of the first image: of the others' only the second holds the image of the first two.
    two = containment(model, texts, images[:2], torch.tensor([0, 1, 1]), ["a", "b", "c"])
    assert two == pytest.approx((2 / 3, 2 / 3))


def test_containment_in_blocks_and_of_a_sample(monkeypatch):
    x = random_points(40, 3)[:, :2] * 0.4
    y = random_points(30, 4)[:, :2] * 2
    model, picture = model_at(PERFECT), torch.arange(40) % 30
    captions = [str(i) for i in range(40)]
    whole = containment(model, x, y, picture, captions)
    held = model.entails(x, y)
    own = held[torch.arange(40), picture].double().mean().item()
    other = held.double().sum().item() - own * 40
    assert whole == pytest.approx((own, other / (40 * 29)))
    monkeypatch.setattr(regions, "_OWN_ROWS", 7)
    monkeypatch.setattr(regions, "MOST_PAIRS", 40 * 10)
    sampled = containment(model, x, y, picture, captions)
    assert sampled == containment(model, x, y, picture, captions)
    assert sampled[0] == whole[0]
    assert sampled[1] != whole[1]
    assert sampled[1] == pytest.approx(whole[1], abs=0.2)


def test_without_another_image_there_is_no_number():
    own, other = containment(model_at(PERFECT), points((0.5, 1, 0)), points((1, 1, 0)), torch.tensor([0]), ["a"])
    assert own == 1
    assert math.isnan(other)


# Geodesic against cosine ----------------------------------------------------------------------------------------------


def test_at_one_radius_geodesic_and_cosine_rank_alike():
    ring = points(*((0.8, math.cos(i * i), math.sin(i * i)) for i in range(12)))
    assert geodesic_against_cosine(model_at(PERFECT), ring, torch.arange(12)) == pytest.approx(1)


def test_the_correlation_by_hand():
    """Of the first, the far one is nearer by angle (−1); of the other two both agree (1)."""
    third = math.radians(60)
    pool = points((0.05, 1, 0), (0.05, math.cos(third), math.sin(third)), (3, 1, -0.1))
    model = model_at(PERFECT)
    assert [geodesic_against_cosine(model, pool, torch.tensor([i])) for i in range(3)] == pytest.approx([-1, 1, 1])
    assert geodesic_against_cosine(model, pool, torch.arange(3)) == pytest.approx(1 / 3)


def test_queries_that_rank_nothing_do_not_count():
    """Of the first of three in a line the other two have one cosine."""
    pool = points((0.5, 1, 0), (1, 1, 0), (2, 1, 0), (1, 0, 1))
    model = model_at(PERFECT)
    assert math.isnan(geodesic_against_cosine(model, pool[:3], torch.arange(3)))
    alone = geodesic_against_cosine(model, pool, torch.tensor([0]))
    assert alone == pytest.approx(geodesic_against_cosine(model, pool, torch.tensor([0, 3])))


def test_of_a_large_pool_a_fixed_sample_is_ranked(monkeypatch):
    pool = random_points(60, 6)[:, :2]
    model, queries = model_at(PERFECT), torch.arange(20, 60)
    whole = geodesic_against_cosine(model, pool, queries)
    monkeypatch.setattr(regions, "_QUERIES", 10)
    monkeypatch.setattr(regions, "_POOL", 30)
    sampled = geodesic_against_cosine(model, pool, queries)
    assert sampled == geodesic_against_cosine(model, pool, queries) != whole
    assert sampled == pytest.approx(whole, abs=0.2)
