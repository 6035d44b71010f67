"""The approximate search: the recall it claims is the recall it has, and it never costs more than recall."""

import math
import sys

import numpy as np
import pytest
import torch

from hypclip.errors import InputError, MissingExtraError
from hypclip.search import Cone, LocalStore, Points, Route, Space, UnknownCollection, Where
from hypclip.search.local import ivf
from hypclip.search.where import MODALITIES
from tests.support.search import distances, snapshot_of

N, DIM, CURV = 3000, 16, 1.3
SPACE = Space("m", CURV, DIM)
IDS = [f"p{i:05}" for i in range(N)]


def clustered(n=N, seed=0):
    """Points around 60 directions at the radii of trained models; images further out than texts."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(60, DIM))
    direction = centres[rng.integers(60, size=n)] + 0.5 * rng.normal(size=(n, DIM))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    rho = np.where(np.arange(n) % 2, rng.uniform(0.5, 1.5, n), rng.uniform(1.0, 3.0, n))
    return (np.sinh(rho)[:, None] / math.sqrt(CURV) * direction).astype(np.float32)


def modalities(n):
    return [MODALITIES[(i + 1) % 2] for i in range(n)]


def put(store, vectors, ids):
    metadata = [{"i": int(i[1:]), "third": int(i[1:]) % 3} for i in ids]
    store.upsert("c", Points(ids, torch.from_numpy(vectors), modalities(len(ids)), metadata))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A store of 3,000 points in cells, few enough of which are searched that something is missed."""
    with LocalStore(tmp_path_factory.mktemp("cells"), create=True, approximate_above=None) as store:
        store.create_collection("c", SPACE)
        put(store, clustered(), IDS)
        index = store.optimize("c", 128, recall=0.9)
        yield store, clustered(), index


@pytest.fixture(autouse=True)
def _fewer_queries(monkeypatch):
    """Measure with fewer, but for the store that is built once."""
    monkeypatch.setattr(ivf, "_QUERIES", 40)


@pytest.fixture
def store(tmp_path):
    with LocalStore(tmp_path, create=True, approximate_above=None) as store:
        store.create_collection("c", SPACE)
        yield store


def truth(vectors, query, k, rows=None):
    """Ids of the k nearest, by brute force in 80-bit floats."""
    d = distances(vectors, query, CURV)
    if rows is not None:
        d = np.where(rows, d, np.inf)
    return [IDS[i] for i in np.argsort(d, kind="stable")[:k] if np.isfinite(d[i])]


def ids(found):
    return [hit.id for hit in found.hits]


# Recall ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_recall_claimed_is_the_recall_measured(built):
    store, vectors, index = built
    assert (index.cells, index.built_at) == (128, N)
    assert 0.9 <= index.recall < 1
    assert index.probes < 128
    measured = []
    image = np.array([m == "image" for m in modalities(N)])
    sample = np.random.default_rng(5).choice(N, 300, replace=False)
    for where, rows in ((Where(), None), (Where(modality="image"), image), (Where(modality="text"), ~image)):
        shared = total = 0
        found = store.knn("c", torch.from_numpy(vectors[sample]), 11, where)
        for row, answer in zip(sample, found, strict=True):
            others = np.ones(N, bool) if rows is None else rows.copy()
            others[row] = False
            expected = truth(vectors, vectors[row], 10, others)
            shared += len(set(expected) & set([i for i in ids(answer) if i != IDS[row]][:10]))
            total += len(expected)
            assert not answer.exact
        measured.append(shared / total)
    assert min(measured) == pytest.approx(index.recall, abs=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [0.5, 0.99, 1.0])
def test_the_recall_asked_for_is_reached(wanted):
    snapshot = snapshot_of(clustered(600), CURV, 500)
    found = ivf.index_of(ivf.build(snapshot, CURV, DIM, None, wanted).stored)
    assert found.recall >= wanted
    assert found.cells == 128  # 4 √600 = 98 to the nearest power of two
    assert math.log2(found.probes).is_integer()


def test_all_cells_are_everything(store):
    put(store, clustered(500), IDS[:500])
    index = store.optimize("c", 8, recall=1.0)
    vectors = clustered(500)
    if index.probes == 8:
        assert index.recall == 1.0
    (found,) = store.knn("c", torch.from_numpy(vectors[:1]), 20)
    assert len(found.hits) == 20


@pytest.mark.parametrize("distinct, copies", [(1, 50), (50, 20)])
def test_copies_are_no_reason_to_claim_less(store, distinct, copies):
    vectors = np.random.default_rng(0).permutation(clustered(distinct).repeat(copies, 0))
    put(store, vectors, IDS[: len(vectors)])
    assert store.optimize("c", 4, recall=0.9).recall >= 0.9


# Never more than recall -----------------------------------------------------------------------------------------------


def test_exact_is_exact_with_cells_there(built):
    store, vectors, _ = built
    queries = clustered(40, seed=9)
    image = np.array([m == "image" for m in modalities(N)])
    third = np.arange(N) % 3 == 1
    for where, rows in (
        (Where(), None),
        (Where(modality="image"), image),
        (Where({"third": 1}), third),
        (Where({"third": 1}, modality="text"), third & ~image),
    ):
        for query, found in zip(queries, store.knn("c", torch.from_numpy(queries), 25, where, exact=True), strict=True):
            assert found.exact
            assert ids(found) == truth(vectors, query, 25, rows)


def test_what_is_found_by_cells_is_measured_and_sorted_like_anything_else(built):
    store, vectors, _ = built
    query = torch.from_numpy(clustered(1, seed=9))
    (approximate,), (exact,) = (store.knn("c", query, 30, exact=e) for e in (None, True))
    by_id = {hit.id: hit for hit in store.knn("c", query, N, exact=True)[0].hits}
    assert approximate.hits == [by_id[hit.id] for hit in approximate.hits]
    assert [hit.distance for hit in approximate.hits] == sorted(hit.distance for hit in approximate.hits)
    assert all(a.distance >= e.distance for a, e in zip(approximate.hits, exact.hits, strict=True))
    pages = [hit for offset in (0, 10, 20) for hit in store.knn("c", query, 10, offset=offset)[0].hits]
    assert pages == approximate.hits
    np.testing.assert_allclose(
        [hit.distance for hit in exact.hits], np.sort(distances(vectors, query[0].numpy(), CURV))[:30].astype(float)
    )


@pytest.mark.parametrize("share", [0.07, 0.25])
def test_the_nearest_that_match_are_found_also_where_they_lie_elsewhere_than_the_query(built, share):
    store, vectors, _ = built
    far = distances(vectors, vectors[0], CURV) >= np.quantile(distances(vectors, vectors[0], CURV), 1 - share)
    metadata = [{"far": bool(f)} for f in far]
    store.create_collection("far", SPACE)
    store.upsert("far", Points(IDS, torch.from_numpy(vectors), modalities(N), metadata))
    store.optimize("far", 128, recall=0.9)
    queries = torch.from_numpy(vectors[:1])
    for where in (Where({"far": True}), Where({"far": True}, modality="image")):
        (found,), (exact,) = (store.knn("far", queries, 10, where, exact=e) for e in (None, True))
        assert len(found.hits) == len(exact.hits) == 10
        # Far less than the recall that is claimed, and yet far more than none.
        assert len(set(ids(found)) & set(ids(exact))) >= 5


def test_other_searches_do_not_use_cells(built):
    store, vectors, _ = built
    query = torch.from_numpy(vectors[7])
    d = distances(vectors, vectors[7], CURV)
    reach = float(np.sort(d)[100] + 1e-9)
    found = store.within("c", query, reach)
    assert (found.exact, found.total) == (True, 101)
    assert ids(found) == truth(vectors, vectors[7], 101)
    assert store.cone("c", query, "ancestors", Cone()).exact
    assert store.route_candidates("c", Route(query, CURV))[1]


# Life of an index -----------------------------------------------------------------------------------------------------


def test_points_written_after_the_build_are_found(store):
    vectors = clustered()
    put(store, vectors[:1000], IDS[:1000])
    store.optimize("c", 32, recall=0.5)
    put(store, vectors[1000:1500], IDS[1000:1500])
    for row in (1000, 1234, 1499):
        (found,) = store.knn("c", torch.from_numpy(vectors[row : row + 1]), 1)
        assert ids(found) == [IDS[row]]
    # Replaced ones are found where they are now, and nowhere else; deleted ones are not found.
    put(store, vectors[2000:2100], IDS[:100])
    store.delete("c", IDS[100:200])
    for row in (0, 50, 99):
        (found,) = store.knn("c", torch.from_numpy(vectors[2000 + row : 2001 + row]), 1)
        assert (ids(found), found.hits[0].distance) == ([IDS[row]], 0.0)
    everything = store.knn("c", torch.from_numpy(vectors[:1]), 2000)[0]
    assert set(ids(everything)) == set(IDS[:1500]) - set(IDS[100:200])
    assert len(everything.hits) == 1400


def test_an_index_survives_a_restart(tmp_path):
    vectors = clustered()
    with LocalStore(tmp_path, create=True, approximate_above=None) as store:
        store.create_collection("c", SPACE)
        put(store, vectors[:1000], IDS[:1000])
        store.optimize("c", 32, recall=0.7)
        put(store, vectors[1000:1300], IDS[1000:1300])
        put(store, vectors[2000:2100], IDS[:100])
        store.delete("c", IDS[100:200])
        queries = torch.from_numpy(clustered(20, seed=3))
        before = store.collections(), store.knn("c", queries, 10), store.knn("c", queries, 10, Where(modality="image"))
        first = store._find("c").table.snapshot[0]
    with LocalStore(tmp_path, approximate_above=None) as store:
        after = store.collections(), store.knn("c", queries, 10), store.knn("c", queries, 10, Where(modality="image"))
        assert after == before
        again = store._find("c").table.snapshot[0]
        np.testing.assert_array_equal(again.columns.keys, first.columns.keys)
        np.testing.assert_array_equal(again.alive, first.alive)
        np.testing.assert_array_equal(again.columns.vectors[again.alive], first.columns.vectors[first.alive])


@pytest.mark.slow
def test_an_index_is_made_in_the_background_and_again_after_growth(tmp_path):
    vectors = clustered()
    with LocalStore(tmp_path, create=True, approximate_above=500) as store:
        store.create_collection("c", SPACE)
        put(store, vectors[:499], IDS[:499])
        assert store._building is None
        put(store, vectors[499:600], IDS[499:600])
        store._building.join()
        assert store.describe("c").index.built_at == 600
        put(store, vectors[600:700], IDS[600:700])
        store._building.join()
        assert store.describe("c").index.built_at == 600
        put(store, vectors[700:800], IDS[700:800])
        store._building.join()
        assert store.describe("c").index.built_at == 800


def test_writes_during_a_build_are_kept(store, monkeypatch):
    vectors = clustered()
    put(store, vectors[:1000], IDS[:1000])
    build = ivf.build

    def slow(*arguments):
        built = build(*arguments)
        put(store, vectors[1000:1100], IDS[1000:1100])
        put(store, vectors[2000:2010], IDS[:10])
        store.delete("c", IDS[500:600])
        return built

    monkeypatch.setattr(ivf, "build", slow)
    store.optimize("c", 16)
    expected = set(IDS[:1100]) - set(IDS[500:600])
    assert set(ids(store.knn("c", torch.from_numpy(vectors[:1]), 2000, exact=True)[0])) == expected
    for row in (0, 9):
        (found,) = store.knn("c", torch.from_numpy(vectors[2000 + row : 2001 + row]), 1, exact=True)
        assert (ids(found), found.hits[0].distance) == ([IDS[row]], 0.0)


def test_without_faiss_searches_stay_exact(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "faiss", None)
    vectors = clustered(600)
    with LocalStore(tmp_path, create=True, approximate_above=500) as store:
        store.create_collection("c", SPACE)
        put(store, vectors, IDS[:600])
        store._building.join()
        assert "stays without an index, its searches exact" in caplog.text
        with pytest.raises(MissingExtraError, match=r"needs faiss: pip install 'hypclip\[search\]'"):
            store.optimize("c")
        assert store.describe("c").index is None
        (found,) = store.knn("c", torch.from_numpy(vectors[:1]), 5)
        assert found.exact
        put(store, clustered(600, 4), IDS[600:1200])  # and nobody tries again


@pytest.mark.parametrize(
    "count, cell_count, recall, message",
    [
        (0, None, 0.9, "more than 10 points into cells, got 1 cells for 0 points"),
        (10, 2, 0.9, "more than 10 points into cells, got 2 cells for 10 points"),
        (50, 51, 0.9, "got 51 cells for 50 points"),
        (50, -1, 0.9, "got -1 cells for 50 points"),
        (50, 4, 0.0, "recall must be above 0 and at most 1, got 0.0"),
        (50, 4, 1.1, "recall must be above 0 and at most 1, got 1.1"),
        (50, 4, math.nan, "recall must be above 0 and at most 1, got nan"),
    ],
)
def test_what_cannot_be_divided_is_refused(store, count, cell_count, recall, message):
    put(store, clustered(count), IDS[:count])
    with pytest.raises(InputError, match=message):
        store.optimize("c", cell_count, recall)
    assert store.describe("c").index is None


@pytest.mark.parametrize("count", [11, 13, 15, 16, 40])
def test_any_number_of_points_above_ten_may_be_divided(store, count):
    put(store, clustered(count), IDS[:count])
    assert store.optimize("c").built_at == count
    assert len(store.knn("c", torch.zeros(1, DIM), count)[0].hits) == count


def test_an_unknown_collection_cannot_be_divided(store):
    with pytest.raises(UnknownCollection):
        store.optimize("nope")
