"""Browsing, the same of both stores: every point once, in order, whatever is written meanwhile."""

import base64
import json

import numpy as np
import pytest
import torch

from hypclip.errors import InputError
from hypclip.geometry import lorentz
from hypclip.search import LocalStore, Points, UnknownCollection, UnknownField, Where
from hypclip.search.browse import FieldCounter, of_cursor, to_cursor
from hypclip.search.local import browse
from hypclip.search.qdrant.store import QdrantStore
from tests.support.search import SPACE, points, unchecked

HOSTILE = [
    "../../x",
    "a/b",
    "a%2Fb",
    "a\nb",
    "\u202eabc",
    "x" * 512,
    "'; DROP TABLE points; --",
    "é",
    "名",
    "😀",
    "a",
    "A",
]


def filled(count: int) -> Points:
    vectors = torch.randn(count, SPACE.dim, generator=torch.Generator().manual_seed(3))
    vectors[::7] = vectors[0]  # many at one radius
    ids = [f"{i * 7919 % count:04}/{'image' if i % 3 else 'text'}" for i in range(count)]
    metadata = [{"i": i, "third": i % 3, "list": [i % 2, "x"]} for i in range(count)]
    return Points(ids, vectors, ["text" if i % 3 else "image" for i in range(count)], metadata)


@pytest.fixture(params=["local", "qdrant"])
def store(request, tmp_path):
    made = LocalStore(tmp_path, create=True) if request.param == "local" else QdrantStore.connect(":memory:")
    with made as store:
        store.create_collection("c", SPACE)
        store.create_collection("other", SPACE)
        store.upsert("other", points(["a stranger"]))
        yield store


def walked(browser, k=7, **asked):
    """Return all points of all pages, which are full but for the last."""
    found, after = [], None
    while True:
        page = browser.page(k=k, after=after, **asked)
        found += page.points
        if page.next is None:
            assert page.total == len(found)
            return found
        assert len(page.points) == k
        after = page.next


WHERES = [
    Where(),
    Where(modality="image"),
    Where({"third": 2}),
    Where({"i": {"lt": 40}}, modality="text"),
    Where(min_radius=1.0, max_radius=1.9),
    Where({"i": 5}),
]


@pytest.mark.parametrize("few", [0, 10**6], ids=["walked", "sorted"])
@pytest.mark.parametrize("order", ["id", "radius"])
def test_the_pages_hold_every_point_once_in_order(store, order, few, monkeypatch):
    monkeypatch.setattr(browse, "_FEW", few)
    monkeypatch.setattr(browse, "_STEPS", (8, 32))
    pool = filled(120)
    store.upsert("c", pool)
    radii = dict(zip(pool.ids, lorentz.radius(pool.vectors.double(), SPACE.curv).tolist(), strict=True))
    browser = store.browse("c")
    for where in WHERES:
        found = walked(browser, order=order, where=where)
        ids = [point.id for point in found]
        expected = {point_id for block in store.scan("c", where) for point_id in block.ids}
        assert len(ids) == len(set(ids))
        assert set(ids) == expected
        if order == "radius":
            assert ids == sorted(ids, key=lambda point_id: (round(radii[point_id], 9), point_id))
        elif isinstance(store, LocalStore):
            assert ids == sorted(ids)
        for point in found:
            row = pool.ids.index(point.id)
            assert point.radius == pytest.approx(radii[point.id], rel=1e-12)
            assert (point.modality, point.metadata) == (pool.modality[row], pool.metadata[row])


@pytest.mark.parametrize("order", ["id", "radius"])
def test_points_that_stay_come_once_though_others_come_and_go(store, order):
    pool = filled(60)
    store.upsert("c", pool)
    browser = store.browse("c")
    first = browser.page(order, k=20)
    gone = [point.id for point in first.points[-3:]]  # the point of the cursor too
    store.delete("c", gone)
    store.upsert("c", points(["0000", "zzzz"], seed=5))
    rest, after = [], first.next
    while after is not None:
        page = browser.page(order, after, k=20)
        rest += [point.id for point in page.points]
        after = page.next
    stayed = set(pool.ids) - {point.id for point in first.points}
    assert len(rest) == len(set(rest))
    assert stayed <= set(rest) <= stayed | {"0000", "zzzz"}


def test_hostile_ids_are_found_by_id(store):
    store.upsert("c", points(HOSTILE))
    browser = store.browse("c")
    assert {point.id for point in browser.by_ids([*HOSTILE, "absent", "a"])} == set(HOSTILE)
    assert browser.known([*HOSTILE, "absent", "a"]) == set(HOSTILE)
    assert {point.id for point in walked(browser, k=1)} == set(HOSTILE)
    assert {point.id for point in walked(browser, k=5, order="radius")} == set(HOSTILE)


def test_points_are_found_by_the_keys_that_they_are_listed_with(tmp_path):
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", SPACE)
        store.create_collection("other", SPACE)
        store.upsert("other", points(["a stranger"]))
        store.upsert("c", points(["a", "b", "c"]))
        browser = store.browse("c")
        keys = {point.id: point.key for point in walked(browser)}
        assert len(set(keys.values())) == 3
        (stranger,) = walked(store.browse("other"))
        found = browser.by_keys([keys["c"], keys["a"], keys["a"], stranger.key, 10**9, 0])
        assert [point.id for point in found] == ["a", "c"]
        store.upsert("c", points(["a"], seed=2))
        assert [point.id for point in browser.by_keys([keys["a"], keys["c"]])] == ["c"]


def test_the_keys_are_those_of_the_contents(store):
    pool = filled(40)
    store.upsert("c", pool)
    block = store.contents("c").read()[0]
    browser = store.browse("c")
    at = dict(zip(block.keys.tolist(), block.vectors, strict=True))
    for point in walked(browser):
        assert at[point.key] == pytest.approx(pool.vectors[pool.ids.index(point.id)].numpy())
    keys = block.keys[:5].tolist()
    assert sorted(point.key for point in browser.by_keys([*keys, 2**40, keys[0]])) == sorted(keys)


def test_modalities_are_counted_as_they_are_now(store):
    pool = filled(30)
    store.upsert("c", pool)
    browser = store.browse("c")
    assert browser.modalities() == {"text": 20, "image": 10, "embedding": 0}
    store.delete("c", [pool.ids[0]])
    store.upsert("c", points([pool.ids[1]], modality="embedding"))
    assert browser.modalities() == {"text": 19, "image": 9, "embedding": 1}


def test_fields_are_those_of_this_collection_with_frequent_values_and_ranges(store):
    assert store.browse("c").fields().fields == []
    store.upsert("c", filled(30))
    found = (
        {field.name: field for field in store.browse("c").fields().fields} if isinstance(store, LocalStore) else None
    )
    if found is None:  # what was described a minute ago is remembered
        assert store.browse("c").fields().fields == []
        store._described.latest.clear()
        found = {field.name: field for field in store.browse("c").fields().fields}
    assert found.keys() == {"i", "third", "list"}
    assert (found["i"].count, found["i"].distinct, found["i"].min, found["i"].max) == (30, 30, 0, 29)
    assert found["third"].values == [(0, 10), (1, 10), (2, 10)]
    assert found["list"].values == [("x", 30), (0, 15), (1, 15)]


def test_fields_of_the_local_store_follow_every_write(tmp_path):
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", SPACE)
        browser = store.browse("c")
        for count in (1, 2):
            store.upsert("c", points([f"p{count}"], metadata=[{"n": count}]))
            assert browser.fields().fields[0].max == count
        store.delete("c", ["p2"])
        assert browser.fields().fields[0].max == 1


def test_a_counter_tells_truth_values_from_numbers_and_leaves_out_what_no_menu_can_hold():
    counter = FieldCounter()
    for value in (True, 1, 1.0, "1", None, [1, 1.0, [2]], {"a": 1}, "x" * 201):
        counter.add([{"v": value}])
    (found,) = counter.summaries()
    assert [(value, type(value), times) for value, times in found.values if times > 1] == [(1, int, 3)]
    assert {(type(value), value) for value, _ in found.values} == {
        (int, 1),
        (bool, True),
        (str, "1"),
        (type(None), None),
    }
    assert (found.count, found.distinct, found.min, found.max) == (8, 5, 1, 1)
    for start in (0, 5_000):
        counter.add({"many": f"{start + i}"} for i in range(5_001))
    many = next(field for field in counter.summaries() if field.name == "many")
    assert (many.count, many.values, many.distinct) == (10_002, [], None)


def _packed(*values):
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "é", "ab\n", "[", _packed("id"), _packed("id", 1), _packed("id", "\ud800"), _packed("radius", 1.0, "a"),
     _packed({}), base64.urlsafe_b64encode(b"[" * 5000).decode()],
)  # fmt: skip
def test_what_is_no_cursor_is_refused(store, cursor):
    store.upsert("c", points(["a"]))
    with pytest.raises(InputError, match="after"):
        store.browse("c").page("id", cursor)


@pytest.mark.parametrize("radius", [-1e308, 1e308, float("inf"), float("nan")])
def test_a_cursor_at_a_radius_that_no_point_has_ends_or_begins(tmp_path, radius):
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", SPACE)
        store.upsert("c", points(["a"]))
        found = store.browse("c").page("radius", to_cursor("radius", radius, "a"))
        assert [point.id for point in found.points] == (["a"] if radius < 0 else [])


def test_a_cursor_comes_back():
    assert of_cursor("radius", to_cursor("radius", 0.1, "é/\n"), float, str) == [0.1, "é/\n"]


def test_what_cannot_be_listed_is_refused(store):
    store.upsert("c", points(["a"], metadata=[{"year": 1}]))
    with pytest.raises(UnknownCollection):
        store.browse("nope")
    with unchecked(), pytest.raises(InputError, match="order must be one of id, radius"):
        store.browse("c").page("name")
    with pytest.raises(InputError, match="k must be at least 1"):
        store.browse("c").page(k=0)
    with pytest.raises(UnknownField):
        store.browse("c").page(where=Where({"yaer": 1}))


def test_a_sample_of_a_large_collection_is_said_to_be_one(tmp_path, monkeypatch):
    monkeypatch.setattr(browse, "MAX_SAMPLE", 10)
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", SPACE)
        store.upsert("c", filled(10))
        assert store.browse("c").fields().sampled is None
        store.upsert("c", points([f"more {i}" for i in range(15)], metadata=[{"n": i} for i in range(15)]))
        found = store.browse("c").fields()
        assert found.sampled == 9
        assert sum(field.count for field in found.fields if field.name in ("i", "n")) == 9


def test_pages_of_an_index_with_cells_are_the_same(tmp_path):
    pytest.importorskip("faiss")
    with LocalStore(tmp_path, create=True, approximate_above=None) as store:
        store.create_collection("c", SPACE)
        store.upsert("c", filled(400))
        before = [[p.id for p in walked(store.browse("c"), order=order)] for order in ("id", "radius")]
        keys = np.array([p.key for p in walked(store.browse("c"))])
        store.optimize("c", cell_count=8)
        assert [[p.id for p in walked(store.browse("c"), order=order)] for order in ("id", "radius")] == before
        assert len(store.browse("c").by_keys(keys.tolist())) == 400
