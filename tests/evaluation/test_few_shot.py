"""Few-shot prototypes: that they are what they say, their limit in flat space, and what is refused."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from hypclip.errors import InputError, MissingExtraError
from hypclip.evaluation import few_shot as module
from hypclip.evaluation.few_shot import Accuracy, few_shot, tangent
from hypclip.geometry import lorentz
from tests.support.models import tiny_encoder
from tests.support.real_features import of_drawings

FEW = {"ways": 3, "queries": 4, "episodes": 20}


def clusters(spread: float, classes: int = 6, each: int = 12, dim: int = 8) -> tuple[torch.Tensor, list[int]]:
    """Return points around a centre for each class, and their labels."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    noise = torch.randn(classes, each, dim, generator=generator, dtype=torch.float64)
    labels = [label for label in range(classes) for _ in range(each)]
    return (centres[:, None] + spread * noise).flatten(0, 1), labels


def test_every_method_is_right_of_classes_that_are_apart_and_by_chance_of_noise():
    near, labels = clusters(0.01)
    found = few_shot(near, labels, shots=2, curvs=(0.1, 1.0), **FEW)
    assert list(found) == ["lorentz c=0.1", "lorentz c=1", "euclid", "cosine", "probe"]
    assert set(found.values()) == {Accuracy(1.0, 0.0)}
    noise = torch.randn(72, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for accuracy in few_shot(noise, labels, shots=2, **FEW | {"episodes": 200}).values():
        assert accuracy.mean == pytest.approx(1 / 3, abs=0.04)


@pytest.mark.parametrize("shots", [1, 5])
def test_towards_no_curvature_prototypes_are_the_euclidean_ones(shots):
    features, labels = clusters(1.0)
    found = few_shot(features, labels, shots=shots, curvs=(1e-10, 4.0), probe=False, **FEW | {"episodes": 300})
    assert found["lorentz c=1e-10"] == found["euclid"]
    assert found["lorentz c=4"] != found["euclid"]


def test_a_prediction_is_the_nearest_centroid():
    features, _ = clusters(1.0)
    examples, queries = features[:30].view(3, 10, 8), features[30:70]
    curv = 0.7
    x, y = lorentz.exp_map0(examples, curv), lorentz.exp_map0(queries, curv)
    prototypes = torch.stack([lorentz.centroid(rows, curv) for rows in x])
    want = [min(range(3), key=lambda c: lorentz.dist(query, prototypes[c], curv).item()) for query in y]
    assert module._by_lorentz(examples, queries, curv).tolist() == want
    flat = [min(range(3), key=lambda c: (query - examples[c].mean(0)).norm().item()) for query in queries]
    assert module._by_euclid(examples, queries).tolist() == flat
    unit = torch.nn.functional.normalize(examples, dim=-1).mean(1)
    want = [max(range(3), key=lambda c: torch.cosine_similarity(q, unit[c], 0).item()) for q in queries]
    assert module._by_cosine(examples, queries).tolist() == want


def test_episodes_share_no_example_with_their_queries_and_follow_the_seed():
    labels = [0] * 5 + [1] * 4 + [2] * 3 + [3] * 9
    found = list(module._episodes(labels, 3, 2, 2, 50, seed=0))
    for rows in found:
        assert rows.shape == (3, 4)
        assert len(set(rows.flatten().tolist())) == 12
        classes = [{labels[row] for row in own} for own in rows.tolist()]
        assert sorted(map(len, classes)) == [1, 1, 1]
        assert set().union(*classes) == {0, 1, 3}  # of class 2 there are too few
    again = list(module._episodes(labels, 3, 2, 2, 50, seed=0))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(found, module._episodes(labels, 3, 2, 2, 50, 1), strict=True))


def test_the_interval_is_that_of_the_mean_of_the_episodes():
    found = module._accuracy([0.5, 0.7, 0.9])
    assert found.mean == pytest.approx(0.7)
    assert found.half_width == pytest.approx(1.96 * 0.2 / math.sqrt(3))
    assert str(found) == "70.0 ± 22.6 %"
    assert math.isnan(module._accuracy([0.5]).half_width)


@pytest.mark.parametrize(
    ("space", "curvs"),
    [
        ({}, 1),
        ({"geometry": "euclidean"}, 0),
        ({"geometry": "sphere"}, 0),
        ({"geometry": "product", "distance": "l1", "factor_dim": 4}, 0),
    ],
)
def test_points_of_a_model_become_tangent_vectors(space, curvs):
    model = tiny_encoder(**space)
    x = model.embed_text(["a dog", "a cat"])
    features, found = tangent(model, x)
    assert features.shape == x.shape
    assert len(found) == curvs
    if curvs:
        torch.testing.assert_close(lorentz.exp_map0(features, found[0]), x)


@pytest.mark.slow
def test_on_real_features_hyperbolic_prototypes_are_no_better_and_the_cosine_is_at_one_shot():
    """Figures of docs/evaluation.md: 66 kinds of drawings, of which 37 have ten or more."""
    features, kinds = of_drawings()
    features = features / features.norm(dim=1).mean()
    names = sorted(set(kinds))
    labels = [names.index(kind) for kind in kinds]
    one, five = (
        few_shot(features, labels, shots=shots, queries=5, curvs=(1e-6, 1.0, 4.0), probe=False) for shots in (1, 5)
    )
    for found, euclid, cosine in ((one, 0.461, 0.490), (five, 0.644, 0.639)):
        assert found["euclid"].mean == pytest.approx(euclid, abs=0.01)
        assert found["cosine"].mean == pytest.approx(cosine, abs=0.01)
        assert found["lorentz c=1e-06"].mean == pytest.approx(found["euclid"].mean, abs=0.001)
        assert found["lorentz c=4"].mean < found["euclid"].mean
    assert one["cosine"].mean > max(one[name].mean for name in one if name != "cosine") + 0.02


def test_nothing_is_drawn_from_the_global_generator():
    features, labels = clusters(1.0)
    state = torch.get_rng_state()
    few_shot(features, labels, shots=1, **FEW)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shots": 0}, "shots must be at least 1, got 0"),
        ({"ways": 1}, "ways must be at least 2, got 1"),
        ({"queries": 0}, "queries must be at least 1"),
        ({"episodes": 0}, "episodes must be at least 1"),
        ({"ways": 7}, "6 of 6 classes have 5; ask for fewer ways or queries"),
        ({"queries": 12}, "0 of 6 classes have 13"),
        ({"curvs": (0.0,)}, "curv"),
        ({"labels": [0]}, "as many, got 72 and 1"),
        ({"features": torch.full((72, 8), torch.nan)}, "must be finite"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, said):
    features, labels = clusters(1.0)
    given = {"features": features, "labels": labels, "shots": 1, **FEW, **change}
    with pytest.raises(InputError, match=said):
        few_shot(given.pop("features"), given.pop("labels"), **given)


def test_without_its_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    features, labels = clusters(1.0)
    with pytest.raises(MissingExtraError, match=r"pip install 'hypclip\[few-shot\]'"):
        few_shot(features, labels, shots=1, **FEW)
    assert "probe" not in few_shot(features, labels, shots=1, probe=False, **FEW)
