"""Mean rank and MAP of a closure, against a count by hand and a plain reference."""

import numpy as np
import pytest
import torch

from hypclip.taxonomy import Pairs, Taxonomy
from hypclip.taxonomy.embedding import reconstruction


def drawn(n: int, seed: int) -> tuple[Pairs, torch.Tensor]:
    generator = np.random.default_rng(seed)
    taxonomy = Taxonomy(
        [(f"p{child:03}", f"p{generator.integers(child):03}") for child in range(1, n) for _ in range(2)]
    )
    return taxonomy.closure, torch.from_numpy(generator.normal(size=(n, 3)))


def reference(d: np.ndarray, pairs: Pairs, scored: set[tuple[int, int]]) -> tuple[float, float]:
    ranks, precisions = [], []
    for u in sorted({u for u, _ in scored}):
        ancestors = pairs.above[pairs.below == u]
        mine = [v for v in ancestors if (u, v) in scored]
        others = [w for w in range(len(d)) if w != u and w not in ancestors]
        ranks += [1 + sum(d[u, w] < d[u, v] for w in others) for v in mine]
        order = sorted([*mine, *others], key=lambda w: d[u, w])
        hits = [place for place, w in enumerate(order, 1) if w in mine]
        precisions.append(np.mean([found / place for found, place in enumerate(hits, 1)]))
    return float(np.mean(ranks)), float(np.mean(precisions))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_it_is_the_published_measure(seed, share):
    pairs, x = drawn(70, seed)
    d = torch.cdist(x, x)
    chosen = np.random.default_rng(seed).random(len(pairs)) < share
    held_out = Pairs(pairs.below[chosen], pairs.above[chosen])
    found = reconstruction(lambda rows: d[rows].clone(), pairs, len(x), held_out)
    wanted = reference(d.numpy(), pairs, set(zip(held_out.below.tolist(), held_out.above.tolist(), strict=True)))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_a_case_counted_by_hand():
    taxonomy = Taxonomy([("b", "a"), ("c", "b"), ("d", "a")])  # places: a 0, b 1, d 2, c 3
    x = torch.tensor([0.0, 1.0, 4.0, 3.0], dtype=torch.float64)
    found = reconstruction(lambda rows: (x[rows, None] - x).abs(), taxonomy.closure, 4)
    # b: a is nearest. d: c, b, then a. c: d (1), b (2), a (3).
    assert found.mean_rank == pytest.approx((1 + 3 + 2 + 2) / 4)
    assert found.map == pytest.approx((1 + 1 / 3 + (1 / 2 + 2 / 3) / 2) / 3)


def test_many_ancestors_and_ties():
    chain = Taxonomy([(f"p{i + 1:03}", f"p{i:03}") for i in range(80)])
    x = torch.arange(81, dtype=torch.float64)
    assert reconstruction(lambda rows: (x[rows, None] - x).abs(), chain.closure, 81).map < 1
    assert reconstruction(lambda rows: torch.zeros(len(rows), 81), chain.closure, 81) == (1.0, 1.0)
