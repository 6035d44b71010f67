import itertools
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypclip.geometry import lorentz
from hypclip.search import Space
from hypclip.search.table import Table


def table_of(vectors, curv=1.0, modality=None, metadata=None):
    n = len(vectors)
    table = Table(Space("m", curv, vectors.shape[1]))
    table.put(
        [f"{i:05}" for i in range(n)],
        vectors.numpy().astype(np.float32),
        np.asarray(modality or [0] * n, np.uint8),
        metadata or [{}] * n,
    )
    return table


def reference(vectors, query, curv):
    """Distances from the definition, in 80-bit floats."""
    x, q, c = vectors.numpy().astype(np.longdouble), query.numpy().astype(np.longdouble), np.longdouble(curv)
    time_difference = np.sqrt(1 / c + (x**2).sum(-1)) - np.sqrt(1 / c + (q**2).sum(-1))
    squared = ((x - q) ** 2).sum(-1) - time_difference**2
    return 2 / np.sqrt(c) * np.arcsinh(np.sqrt(c) / 2 * np.sqrt(np.maximum(squared, 0)))


def crowd(seed, dim, curv, radius, n=200):
    """A query with exact copies, near copies, far copies, and strangers at all radii."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(n, dim, generator=generator), dim=-1)
    tangent = direction * torch.rand(n, 1, generator=generator) * radius
    query = lorentz.exp_map0(tangent[0] / tangent[0].norm().clamp(min=1e-6) * radius, curv)
    steps = torch.logspace(-7, -1, n // 2).unsqueeze(1)
    near = query * (1 + steps * torch.randn(n // 2, dim, generator=generator))
    return torch.cat([lorentz.exp_map0(tangent, curv), near, query.expand(3, dim)]), query


@settings(max_examples=200)
@given(
    st.integers(0, 2**31),
    st.sampled_from([2, 3, 16, 128]),
    st.floats(0.1, 10),
    st.floats(0.01, 8),
    st.integers(1, 320),
)
def test_nearest_is_the_brute_force_order(seed, dim, curv, scaled_radius, k):
    vectors, query = crowd(seed, dim, curv, scaled_radius / curv**0.5)
    expected = reference(vectors, query, curv)
    order = sorted(range(len(vectors)), key=lambda i: (expected[i], i))[:k]
    hits = table_of(vectors, curv).nearest(query, k, None, None)
    np.testing.assert_allclose([h.distance for h in hits], expected[order].astype(float), rtol=1e-6, atol=1e-9)
    # Where the reference separates two points by more than its own rounding, the order is the same.
    got = expected[[int(h.id) for h in hits]]
    assert (np.diff(got) >= -1e-9).all()
    assert len({h.id for h in hits}) == min(k, len(vectors))


def test_the_float32_product_alone_would_rank_near_points_wrongly():
    vectors, query = crowd(1, 64, 1.0, 8.0)
    expected = reference(vectors, query, 1.0)
    naive = lorentz.pairwise_inner(query.unsqueeze(0), vectors, 1.0)[0].argsort(descending=True)[:50]
    hits = table_of(vectors).nearest(query, 50, None, None)
    assert (np.diff(expected[naive.numpy()]) < -1e-9).any()
    assert (np.diff(expected[[int(h.id) for h in hits]]) >= -1e-9).all()


@pytest.mark.parametrize("radius", [0.0, 1.0, 5.0, 12.0])
def test_a_point_is_at_distance_0_of_itself(radius):
    point = lorentz.exp_map0(radius * torch.nn.functional.normalize(torch.randn(1, 32), dim=-1), 1.0)
    others = lorentz.exp_map0(torch.randn(50, 32), 1.0)
    hits = table_of(torch.cat([others, point])).nearest(point[0], 1, None, None)
    assert [(h.id, h.distance) for h in hits] == [("00050", 0.0)]
    assert hits[0].radius == pytest.approx(radius, rel=1e-6)


def test_points_at_the_same_distance_come_by_id():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [2.0, 0.0]])
    table = Table(Space("m", 1.0, 2))
    table.put(["d", "b", "c", "a"], vectors.numpy(), np.zeros(4, np.uint8), [{}] * 4)
    assert [h.id for h in table.nearest(torch.zeros(2), 2, None, None)] == ["b", "c"]


def test_a_float64_query_is_not_rounded():
    table = table_of(torch.tensor([[1.0, 0.0]]))
    query = torch.tensor([1.0 + 1e-10, 0.0], dtype=torch.float64)
    assert table.nearest(query, 1, None, None)[0].distance == pytest.approx(1e-10 / 2**0.5, rel=1e-4)


def test_more_candidates_than_a_block_are_measured():
    table = table_of(torch.ones(9000, 2))
    assert [h.id for h in table.nearest(torch.ones(2), 3, None, None)] == ["00000", "00001", "00002"]


def test_modality_and_filter_select_before_counting():
    vectors = torch.arange(6.0).unsqueeze(1)
    table = table_of(vectors, modality=[0, 1, 0, 1, 0, 1], metadata=[{"half": i // 3} for i in range(6)])
    origin = torch.zeros(1)
    assert [h.id for h in table.nearest(origin, 2, "image", None)] == ["00001", "00003"]
    assert [h.id for h in table.nearest(origin, 9, None, {"half": 1})] == ["00003", "00004", "00005"]
    assert [h.id for h in table.nearest(origin, 9, "text", {"half": 1})] == ["00004"]
    assert table.nearest(origin, 9, "embedding", None) == []


@pytest.mark.parametrize(
    "filter, ids",
    [
        ({"v": 1}, ["00000", "00001"]),
        ({"v": True}, ["00002"]),
        ({"v": None}, ["00003"]),
        ({"v": "1"}, ["00004"]),
        ({"v": 1, "w": 2}, ["00001"]),
        ({"missing": None}, []),
        ({}, ["00000", "00001", "00002", "00003", "00004", "00005"]),
    ],
)
def test_filters_compare_as_json_does(filter, ids):
    metadata = [{"v": 1}, {"v": 1.0, "w": 2}, {"v": True}, {"v": None}, {"v": "1"}, {}]
    table = table_of(torch.arange(6.0).unsqueeze(1), metadata=metadata)
    assert [h.id for h in table.nearest(torch.zeros(1), 9, None, filter)] == ids


def test_replaced_and_removed_rows_are_gone_through_every_compaction():
    table, kept = Table(Space("m", 1.0, 1)), {}
    rng = np.random.default_rng(0)
    for step in range(60):
        ids = [str(i) for i in rng.choice(300, 100, replace=False)]
        values = rng.normal(size=(100, 1)).astype(np.float32)
        table.put(ids, values, np.zeros(100, np.uint8), [{"step": step}] * 100)
        kept.update({i: (float(v[0]), step) for i, v in zip(ids, values, strict=True)})
        gone = [str(i) for i in rng.choice(300, 60, replace=False)]
        assert table.remove(gone) == sum(kept.pop(i, None) is not None for i in gone)
        assert len(table) == len(kept)
    hits = table.nearest(torch.zeros(1), 1000, None, None)
    assert [h.id for h in hits] == sorted(kept, key=lambda i: (abs(kept[i][0]), i))
    assert {h.id: h.metadata["step"] for h in hits} == {i: step for i, (_, step) in kept.items()}
    vectors, _, metadata = table.get(list(kept))
    assert vectors[:, 0].tolist() == [value for value, _ in kept.values()]
    assert [m["step"] for m in metadata] == [step for _, step in kept.values()]


def test_searches_see_every_replacement_whole_while_a_writer_runs():
    table = table_of(torch.full((50, 1), 9.0))
    done = threading.Event()

    def put(version):
        value = np.asarray([[version % 7 / 10]], np.float32)
        table.put(["moving"], value, np.zeros(1, np.uint8), [{"value": float(value[0, 0]), "version": version}])

    def write():
        for version in itertools.takewhile(lambda _: not done.is_set(), itertools.count(1)):
            put(version)

    put(0)
    writer = threading.Thread(target=write)
    writer.start()
    versions: list[int] = [0]
    try:
        # 2,000 versions are more than a table holds before it is compacted, so that is seen too.
        while versions[-1] < 2000:
            first, second = table.nearest(torch.zeros(1), 2, None, None)
            assert (first.id, second.id) == ("moving", "00000")
            assert first.distance == pytest.approx(np.arcsinh(first.metadata["value"]))
            versions.append(first.metadata["version"])
    finally:
        done.set()
        writer.join()
    assert versions == sorted(versions)
