"""Prototypes of a tree as targets: what is learned of seen classes places unseen ones."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from hypclip.errors import DataError, InputError
from hypclip.geometry import lorentz
from hypclip.taxonomy import Taxonomy
from hypclip.taxonomy.prototypes import (
    HeadTraining,
    PrototypeHead,
    Prototypes,
    place_prototypes,
    read_prototypes,
    train_head,
)

KINDS = 9
LEAVES = [f"leaf {kind}.{leaf}" for kind in range(KINDS) for leaf in range(3)]
TREE = Taxonomy(
    [(leaf, f"kind {i // 3}") for i, leaf in enumerate(LEAVES)]
    + [(f"kind {kind}", f"family {kind // 3}") for kind in range(KINDS)]
    + [(f"family {family}", "root") for family in range(3)]
)
SEEN = [i for i in range(len(LEAVES)) if i % 3]
"""Of each kind the first is unseen."""
QUICK = HeadTraining(steps=150, batch=64, rate=0.02, dropout=0.0)


def features(labels: list[int], seed: int = 0) -> torch.Tensor:
    """Return what tells the kind and the leaf, in coordinates that know no tree, and noise."""
    generator = torch.Generator().manual_seed(seed)
    kinds, leaves = (
        torch.randn(n, 24, generator=torch.Generator().manual_seed(9)) for n in (KINDS, KINDS + len(LEAVES))
    )
    rows = torch.tensor(labels)
    return kinds[rows // 3] + 0.5 * leaves[KINDS + rows] + 0.1 * torch.randn(len(rows), 24, generator=generator)


def recognised(prototypes: Prototypes, training: HeadTraining = QUICK) -> float:
    """Return how often an unseen leaf is found among all unseen ones, by a head that was trained on the others."""
    labels = [i for i in SEEN for _ in range(6)]
    points = prototypes.of(LEAVES)
    head = train_head(features(labels), [SEEN.index(i) for i in labels], points[SEEN], training)
    unseen = [i for i in range(len(LEAVES)) if i not in SEEN]
    asked = [i for i in unseen for _ in range(6)]
    d = lorentz.pairwise_dist(head(features(asked, seed=1)), points[unseen], 1.0)
    return (torch.tensor(unseen)[d.argmin(1)] == torch.tensor(asked)).double().mean().item()


def test_an_unseen_class_is_found_where_the_tree_has_it_and_not_elsewhere() -> None:
    placed = place_prototypes(TREE, dim=10)
    assert recognised(placed) > 0.8
    assert recognised(placed.without_tree(0)) < 0.5


def test_a_hidden_layer_learns_too() -> None:
    assert recognised(place_prototypes(TREE, 10), HeadTraining(150, 64, 0.01, hidden=32, dropout=0.1)) > 0.8


def test_without_a_tree_radii_stay_and_directions_are_random() -> None:
    placed = place_prototypes(TREE, 10)
    other, again = placed.without_tree(0), placed.without_tree(0)
    torch.testing.assert_close(other.points.norm(dim=1), placed.points.norm(dim=1))
    torch.testing.assert_close(other.points, again.points)
    assert not torch.allclose(other.points, placed.without_tree(1).points)
    same_kind = torch.nn.functional.cosine_similarity(placed.of(LEAVES[:1]), placed.of(LEAVES[1:2]))
    assert same_kind > 0.5
    pairs = torch.nn.functional.normalize(other.of(LEAVES), dim=1)
    assert (pairs[0::3] * pairs[1::3]).sum(1).mean().abs() < 0.4


def test_a_phrase_without_a_point_is_named() -> None:
    placed = place_prototypes(TREE, 10)
    assert placed.of(["ROOT"]).tolist() == [[0.0] * 10]
    with pytest.raises(DataError, match=r"no prototypes of 'leaf 10\.1'"):
        placed.of(["root", "leaf 10.1"])


def test_a_seed_gives_the_same_head_and_leaves_other_random_numbers_alone() -> None:
    points = place_prototypes(TREE, 10).of(LEAVES)
    x, y = features(list(range(27))), list(range(27))
    short = HeadTraining(steps=3, batch=8)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one = train_head(x, y, points, short)
    assert torch.rand(1) == expected
    torch.testing.assert_close(train_head(x, y, points, short)(x), one(x), rtol=0, atol=0)
    assert not torch.equal(train_head(x, y, points, HeadTraining(steps=3, batch=8, seed=1))(x), one(x))


@pytest.mark.parametrize("hidden", [0, 7])
def test_a_head_comes_back_from_its_file(tmp_path, hidden: int) -> None:
    x = features(list(range(27)))
    training = HeadTraining(steps=3, batch=8, hidden=hidden)
    head = train_head(x, list(range(27)), place_prototypes(TREE, 10).of(LEAVES), training)
    head.save(tmp_path / "head.safetensors")
    back = PrototypeHead.load(tmp_path / "head.safetensors")
    torch.testing.assert_close(back(x), head(x), rtol=0, atol=0)
    assert back.log_inverse_temperature == head.log_inverse_temperature
    (tmp_path / "head.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot read a head from"):
        PrototypeHead.load(tmp_path / "head.safetensors")


def test_logits_are_minus_distances_over_the_temperature() -> None:
    head = PrototypeHead(2, 2)
    head.log_inverse_temperature.data.fill_(torch.tensor(3.0).log())
    origin, point = torch.zeros(1, 2), lorentz.exp_map0(torch.tensor([[1.5, 0.0]]), 1.0)
    torch.testing.assert_close(head.logits(origin, point), torch.tensor([[-4.5]]))


def test_constant_features_do_no_harm() -> None:
    x = torch.cat([features(list(range(27))), torch.full((27, 1), 3.0)], 1)
    head = train_head(x, list(range(27)), place_prototypes(TREE, 10).of(LEAVES), HeadTraining(steps=3, batch=8))
    assert head(x).isfinite().all()


@pytest.mark.parametrize(
    ("x", "labels", "said"),
    [
        (torch.zeros(0, 3), [], "needs features and as many labels, got 0 and 0"),
        (torch.zeros(2, 3), [0], "got 2 and 1"),
        (torch.full((1, 3), torch.nan), [0], "must be finite"),
        (torch.zeros(1, 3), [27], r"rows of the 27 prototypes, got 27\.\.27"),
    ],
)
def test_what_cannot_be_learned_is_refused(x: torch.Tensor, labels: list[int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        train_head(x, labels, place_prototypes(TREE, 10).of(LEAVES))


@pytest.mark.parametrize(
    ("setting", "said"),
    [({"steps": 0}, "steps must be at least 1"), ({"rate": 0.0}, "rate"), ({"dropout": 1.0}, "dropout")],
)
def test_bad_settings_are_named(setting: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        HeadTraining(**setting)


def test_trained_embeddings_are_read(tmp_path) -> None:
    save_file({"points": torch.arange(4.0).view(2, 2)}, tmp_path / "points.safetensors")
    (tmp_path / "phrases.json").write_text(json.dumps(["a", "b"]))
    assert read_prototypes(tmp_path).of(["b"]).tolist() == [[2, 3]]
    (tmp_path / "phrases.json").write_text(json.dumps(["a"]))
    with pytest.raises(DataError, match="1 phrases and 2 points"):
        read_prototypes(tmp_path)
    with pytest.raises(DataError, match="no output of train/embed_taxonomy"):
        read_prototypes(tmp_path / "nowhere")
