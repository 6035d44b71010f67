"""The local store while it is written to: every write seen at once, whole, and by everybody."""

import itertools
import threading

import numpy as np
import pytest
import torch

from hypclip.search import Cone, LocalStore, Points, Route, Where
from tests.support.search import ORIGIN, SPACE, ids_of, points, run_together


@pytest.fixture
def store(tmp_path):
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", SPACE)
        yield store


# At the same time -----------------------------------------------------------------------------------------------------


def test_a_filter_asked_before_sees_what_was_written_since(store):
    where = Where({"k": 1})
    store.upsert("c", points(["a", "b"], metadata=[{"k": 1}, {"k": 2}]))
    assert store.count("c", where) == 1
    store.upsert("c", points(["c"], metadata=[{"k": 1}]))
    assert ids_of(store.knn("c", ORIGIN, 9, where, offset=0)[0]) in (["a", "c"], ["c", "a"])
    store.upsert("c", points(["a", "b"], metadata=[{"k": 2}, {"k": [3, 1]}]))  # they change places
    assert sorted(ids_of(store.knn("c", ORIGIN, 9, where)[0])) == ["b", "c"]
    store.delete("c", ["c"])
    assert ids_of(store.knn("c", ORIGIN, 9, where)[0]) == ["b"]
    store.upsert("c", points(["d"]))
    store.delete("c", ["d"])
    store.upsert("c", points(["e"], metadata=[{"k": 1.0}]))
    assert sorted(ids_of(store.knn("c", ORIGIN, 9, where)[0])) == ["b", "e"]
    # Filters that look alike are not one.
    for wanted, count in ((1, 2), (1.0, 2), (True, 0), ("1", 0), ([1, True], 2), ({"gte": 1}, 3), ([2], 1)):
        assert store.count("c", Where({"k": wanted})) == count
    for value in range(100, 120):  # more of them than are remembered
        assert store.count("c", Where({"k": value})) == 0
    assert store.count("c", where) == 2


def interrupted(store, monkeypatch, method, meanwhile):
    """Let something happen once, just before the store asks the file."""
    database = store._database
    original = getattr(database, method)
    calls = itertools.count()

    def slow(*arguments):
        if next(calls) == 0:
            meanwhile()
        return original(*arguments)

    monkeypatch.setattr(database, method, slow)


@pytest.mark.parametrize("method", ["matching", "labels", "by_key"])
def test_a_point_replaced_during_a_search_is_found_once(store, monkeypatch, method):
    where = Where({"k": 1})
    store.upsert("c", points(["a", "b"], metadata=[{"k": 1}, {"k": 1}]))
    calls = {
        "knn": lambda: ids_of(store.knn("c", ORIGIN, 9, where)[0]),
        "within": lambda: ids_of(store.within("c", ORIGIN[0], 99.0, where)),
        "cone": lambda: ids_of(store.cone("c", ORIGIN[0], "descendants", Cone(), where)),
        "route_candidates": lambda: (
            store.route_candidates("c", Route(torch.ones(4), 0.7, None, 5), Cone(9.0, 9.0), where)[0].ids
        ),
        "count": lambda: ["a", "b"][: store.count("c", where)],
    }
    for name, call in calls.items():
        with monkeypatch.context() as patch:
            # Another vector in the same place of the collection, which meets the filter just the same.
            again = points(["a"], hash(name) % 97, [{"k": 1}])
            interrupted(store, patch, method, lambda again=again: store.upsert("c", again))
            assert sorted(call()) == ["a", "b"], name
            store.upsert("c", points(["new"], metadata=[{"k": 2}]))  # so that the filter is asked of the file again


@pytest.mark.slow
def test_a_hit_is_never_half_old_and_half_new(store):
    """Every point says in its metadata where it lies; a writer moves them, deletes some and writes them again."""
    n, done = 40, threading.Event()
    names = [f"p{i}" for i in range(n)]
    where = Where({"version": {"gte": 0}})

    def move(version):
        values = torch.full((n, 4), 0.1) * (1 + torch.arange(n)[:, None] / n + version % 7)
        metadata = [{"version": version, "x": x} for x in values[:, 0].tolist()]
        store.upsert("c", Points(names, values, ["text" if version % 2 else "image"] * n, metadata))

    def write():
        try:
            for version in range(1, 120):
                move(version)
                if version % 10 == 0:
                    store.delete("c", names[:10])
                    store.upsert("c", points([f"extra-{version}"], version, [{"version": -1}]))
        finally:
            done.set()

    def check(hits, all_of_them=False):
        moved = [hit for hit in hits if hit.id.startswith("p")]
        assert len({hit.metadata["version"] for hit in moved}) <= 1  # one state of the collection
        assert not all_of_them or len(moved) in (n, n - 10)
        for hit in moved:
            assert hit.modality == ("text" if hit.metadata["version"] % 2 else "image")
            assert hit.distance == pytest.approx(np.arcsinh((4 * 0.7) ** 0.5 * hit.metadata["x"]) / 0.7**0.5)

    def read(ask):
        while not done.is_set():
            ask()

    move(0)
    run_together(
        write,
        lambda: read(lambda: check(store.knn("c", ORIGIN, 200)[0].hits, all_of_them=True)),
        lambda: read(lambda: check(store.knn("c", ORIGIN, 200, where)[0].hits, all_of_them=True)),
        lambda: read(lambda: check(store.within("c", ORIGIN[0], 0.5, where).hits)),
        lambda: read(lambda: check(store.cone("c", ORIGIN[0], "descendants", Cone(), k=3).hits)),
        lambda: read(lambda: [list(store.scan("c", where, 10)), store.collections(), store.count("c", where)]),
        lambda: read(lambda: store.route_candidates("c", Route(torch.ones(4), 0.7), Cone(), where)),
    )


def test_threads_share_a_store(store):
    def work(worker):
        for i in range(20):
            store.upsert("c", points([f"{worker}-{i}-{j}" for j in range(10)], worker))
            store.delete("c", [f"{worker}-{i}-0"])
            assert len(store.knn("c", ORIGIN, 5)[0].hits) == 5
            store.create_collection(f"c{i}", SPACE)

    run_together(*(lambda w=w: work(w) for w in range(4)))
    assert store.count("c") == 4 * 20 * 9
    assert sum(len(block.ids) for block in store.scan("c", rows=100)) == 720
    assert len(store.collections()) == 21
