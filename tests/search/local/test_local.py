"""The local store: every search against brute force, what is written comes back, and snapshots."""

import pathlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypclip.errors import InputError, StoreError
from hypclip.geometry import lorentz
from hypclip.search import Cone, LocalStore, Points, Route, Space, Where
from hypclip.search.local import table
from hypclip.search.where import MODALITIES, matches
from tests.support.search import ORIGIN, SPACE, cone_margins, crowd, distances, ids_of, points, stored

CURV, DIM = 0.7, 4


@pytest.fixture
def store(tmp_path):
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", SPACE)
        yield store


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A hard crowd in segments of 64 rows, some of it dead; what is alive, with its metadata, in the order of ids."""
    points, query = crowd(3, DIM, CURV, 2.0, 150)
    metadata = [{"i": i, "tags": ["even"] if i % 2 == 0 else ["odd", i], "half": i >= 200} for i in range(len(points))]
    with pytest.MonkeyPatch.context() as patch, LocalStore(tmp_path_factory.mktemp("shared"), create=True) as store:
        patch.setattr(table, "SEGMENT_ROWS", 64)
        store.create_collection("c", SPACE)
        ids = stored(store, points[::-1].copy(), [{"old": 1}] * len(points))
        for start in range(0, len(points), 50):
            part = slice(start, start + 50)
            kinds = [MODALITIES[i % 3] for i in range(start, min(start + 50, len(points)))]
            store.upsert("c", Points(ids[part], torch.from_numpy(points[part]), kinds, metadata[part]))
        gone = np.arange(30, len(points), 7)
        assert store.delete("c", [ids[i] for i in gone]) == len(gone)
        assert len(store._find("c").table.snapshot) > 5
        alive = np.ones(len(points), bool)
        alive[gone] = False
        yield store, points, query, ids, metadata, alive


WHERES = [
    Where(),
    Where(modality="image"),
    Where({"tags": "odd"}),
    Where({"i": {"gte": 100, "lt": 300}, "half": False}),
    Where({"i": [1, 2, 3, 4, 5, 400]}),
    Where(min_radius=1.0, max_radius=6.0),
    Where({"tags": ["even", 5]}, modality="text", max_radius=8.0),
    Where({"i": -1}),
]


def counted(shared, where):
    """Which rows a search may return, by the definitions."""
    _, points, _, _, metadata, alive = shared
    radius = distances(points, np.zeros(DIM), CURV)
    return np.array(
        [
            alive[i]
            and matches(metadata[i], where.conditions)
            and (where.modality is None or MODALITIES[i % 3] == where.modality)
            and where.min_radius <= radius[i] <= where.max_radius
            for i in range(len(points))
        ]
    )


# Nearest neighbours ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", WHERES)
@pytest.mark.parametrize("count, k", [(1, 10), (64, 10), (3, 1000)])
def test_knn_is_brute_force(shared, where, count, k):
    store, points, query, ids, metadata, _ = shared
    rows = counted(shared, where)
    queries = np.concatenate([query[None], points[: count - 1]])
    found = store.knn("c", torch.from_numpy(queries), k, where)
    assert len(found) == count
    for q, answer in zip(queries, found, strict=True):
        d = np.where(rows, distances(points, q, CURV), np.inf)
        expected = [i for i in sorted(range(len(d)), key=lambda i: (d[i], ids[i])) if rows[i]][:k]
        assert answer.exact
        np.testing.assert_allclose([h.distance for h in answer.hits], d[expected].astype(float), rtol=1e-9, atol=1e-300)
        keys = [(h.distance, h.id) for h in answer.hits]
        assert keys == sorted(keys)
        assert len(set(ids_of(answer))) == len(expected)
        for hit in answer.hits:
            row = int(hit.id[1:])
            assert rows[row]
            assert (hit.metadata, hit.modality) == (metadata[row], MODALITIES[row % 3])
            assert hit.distance == pytest.approx(float(d[row]), rel=1e-9)
            assert hit.radius == pytest.approx(float(distances(points[row], np.zeros(DIM), CURV)), rel=1e-9)
            assert hit.angle is hit.aperture is hit.margin is None


@pytest.mark.slow
@pytest.mark.parametrize("where", WHERES)
@pytest.mark.parametrize("page", [3, 64])
def test_pages_concatenate_to_the_whole(shared, where, page):
    store, points, query, *_ = shared
    queries = torch.from_numpy(np.stack([query, points[9]]))
    whole = store.knn("c", queries, 150, where)
    pages = [store.knn("c", queries, page, where, offset=offset) for offset in range(0, 150, page)]
    for i in range(2):
        assert [hit for answers in pages for hit in answers[i].hits][:150] == whole[i].hits
    beyond = store.knn("c", queries, page, where, offset=10_000)
    assert [answer.hits for answer in beyond] == [[], []]


def test_points_at_one_distance_come_by_id_on_every_page(store):
    names = [f"{i * 7919 % 500:03}" for i in range(300)]
    store.upsert("c", Points(names, torch.ones(300, 4), ["text"] * 300, [{}] * 300))
    for query in (torch.ones(1, 4), ORIGIN, torch.full((1, 4), -3.0)):
        assert ids_of(store.knn("c", query, 10)[0]) == sorted(names)[:10]
        assert ids_of(store.knn("c", query, 10, offset=137)[0]) == sorted(names)[137:147]
    found = store.within("c", torch.ones(4), 0.0, k=10, offset=20)
    assert (ids_of(found), found.total) == (sorted(names)[20:30], 300)


def test_points_of_one_margin_come_by_id_on_every_page(store):
    for seed, n in ((0, 2), (1, 17), (2, 65), (58, 17), (58, 33), (58, 65)):  # of 58 the margins differ in the last bit
        name, names = f"{seed}-{n}", [f"{i * 7919 % 500:03}" for i in range(n)]
        store.create_collection(name, SPACE)
        point = torch.randn(1, 4, generator=torch.Generator().manual_seed(seed))
        store.upsert(name, Points(names, point.expand(n, 4), ["text"] * n, [{}] * n))
        for of, side in ((3 * point[0] + 0.05, "ancestors"), (point[0] / 2, "descendants")):
            pages = [store.cone(name, of, side, Cone(2.0, 0.4), k=5, offset=i) for i in range(0, n, 5)]
            assert [point_id for found in pages for point_id in ids_of(found)] == sorted(names)


def test_a_point_is_at_distance_0_of_itself_at_any_radius(store):
    radii = torch.tensor([0.0, 1e-6, 1.0, 5.0, 12.0]) / CURV**0.5
    direction = torch.nn.functional.normalize(torch.randn(5, 4), dim=-1)
    vectors = lorentz.exp_map0(radii[:, None] * direction, CURV)
    names = stored(store, torch.cat([vectors, lorentz.exp_map0(torch.randn(500, 4), CURV)]))
    for row, found in enumerate(store.knn("c", vectors, 1)):
        assert [(hit.id, hit.distance) for hit in found.hits] == [(names[row], 0.0)]
        assert found.hits[0].radius == pytest.approx(radii[row].item(), rel=1e-6)


def test_a_float64_query_is_not_rounded(store):
    stored(store, torch.tensor([[1.0, 0, 0, 0]]))
    query = torch.tensor([[1.0 + 1e-10, 0, 0, 0]], dtype=torch.float64)
    assert store.knn("c", query, 1)[0].hits[0].distance == pytest.approx(1e-10 / 1.7**0.5, rel=1e-3)


# Ranges and cones -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", WHERES)
@pytest.mark.parametrize("reach", [0.0, 1e-3, 2.0, 8.0, float("inf")])
def test_within_is_brute_force(shared, where, reach):
    store, points, query, *_ = shared
    rows = counted(shared, where)
    d = distances(points, query, CURV)
    assert not (np.abs(d - reach) < 1e-9 * d)[rows].any()
    found = store.within("c", torch.from_numpy(query), reach, where)
    assert {int(i[1:]) for i in ids_of(found)} == set(np.flatnonzero(rows & (d <= reach)))
    assert (found.exact, found.total) == (True, len(found.hits))
    keys = [(hit.distance, hit.id) for hit in found.hits]
    assert keys == sorted(keys)
    assert store.within("c", torch.from_numpy(query), reach, where, k=5, offset=3).hits == found.hits[3:8]
    assert store.within("c", torch.from_numpy(query), reach, where, k=5, offset=3).total == found.total


@settings(max_examples=40)
@given(
    st.integers(0, 400),
    st.sampled_from(["ancestors", "descendants"]),
    st.floats(0.3, 2.5),
    st.floats(0.02, 0.5),
    st.booleans(),
    st.sampled_from(WHERES),
    st.sampled_from(["margin", "distance", "radius"]),
)
def test_cones_are_brute_force(shared, row, side, eta, min_radius, strict, where, order):
    store, points, *_ = shared
    rows, of = counted(shared, where), points[row]
    margins = np.full(len(points), np.inf)
    general, specific = (points[rows], of) if side == "ancestors" else (of, points[rows])
    if rows.any():
        margins[rows] = cone_margins(general, specific, CURV, eta, min_radius)
    inside = margins <= 0
    if strict:
        inside &= (points != of).any(1)
    unsure = np.abs(margins) < 1e-6
    found = store.cone("c", torch.from_numpy(of), side, Cone(eta, min_radius, strict), where, order_by=order)
    got = np.zeros(len(points), bool)
    got[[int(i[1:]) for i in ids_of(found)]] = True
    np.testing.assert_array_equal(got[~unsure], inside[~unsure])
    assert (found.exact, found.total) == (True, len(found.hits))
    keys = [(getattr(hit, order), hit.id) for hit in found.hits]
    assert keys == sorted(keys)
    for hit in found.hits:
        assert hit.margin <= 0
        assert hit.margin == hit.angle - eta * hit.aperture
        assert hit.margin == pytest.approx(margins[int(hit.id[1:])], abs=1e-6)
    again = store.cone(
        "c", torch.from_numpy(of), side, Cone(eta, min_radius, strict), where, order_by=order, k=3, offset=2
    )
    assert (again.hits, again.total) == (found.hits[2:5], found.total)


def test_a_window_at_the_radius_of_a_hit_holds_it(shared):
    store, *_ = shared
    for hit in store.knn("c", ORIGIN, 500)[0].hits[::3]:
        window = Where(min_radius=hit.radius, max_radius=hit.radius)
        assert hit.id in ids_of(store.knn("c", ORIGIN, 500, window)[0])


@pytest.mark.parametrize("where", WHERES)
@pytest.mark.parametrize("end, steps", [(None, None), (None, 20), (5, None), (5, 20)])
def test_the_nearest_along_a_route_are_candidates(shared, where, end, steps):
    store, points, _, ids, metadata, _ = shared
    rows = counted(shared, where)
    route = Route(torch.from_numpy(points[11]), CURV, None if end is None else torch.from_numpy(points[end]), steps)
    t = torch.linspace(0, 1, 50, dtype=torch.float64) if steps is None else route.fractions()
    if not rows.any():
        with np.errstate(invalid="ignore"):
            found, complete = store.route_candidates("c", route, None, where)
        assert (found.ids, complete) == ([], True)
        return
    (all_of_them, complete), (ancestors, also) = (store.route_candidates("c", route, c, where) for c in (None, Cone()))
    assert complete
    assert also
    for found in (all_of_them, ancestors):
        assert found.metadata == [metadata[int(i[1:])] for i in found.ids]
        np.testing.assert_array_equal(found.vectors, points[[int(i[1:]) for i in found.ids]])
        assert set(found.ids) <= {ids[i] for i in np.flatnonzero(rows)}
    for place in route.places(t).numpy():
        d = np.where(rows, distances(points, place, CURV), np.inf)
        assert ids[int(d.argmin())] in all_of_them.ids or d.min() == np.inf
    for place in route.places(t[::10]).numpy():
        above = np.flatnonzero(rows)[cone_margins(points[rows], place, CURV, 1.0, 0.1) <= 0]
        assert {ids[i] for i in above} <= set(ancestors.ids)


def test_a_path_of_another_curvature_is_refused(shared):
    store, points, *_ = shared
    with pytest.raises(InputError, match="curv"):
        store.route_candidates("c", Route(torch.from_numpy(points[3]), 2 * CURV))


# Reading and writing --------------------------------------------------------------------------------------------------


def test_points_come_back_as_they_went_in(store):
    metadata = [{"caption": "a dog\u0000", "n": 1, "deep": {"list": [1, None, "é"]}}, {}]
    written = points(["b", "a"], metadata=metadata, modality="image")
    store.upsert("c", written)
    read = store.get("c", ["a", "b"])
    assert read.ids == ["a", "b"]
    assert torch.equal(read.vectors, written.vectors[[1, 0]])
    assert (read.metadata, read.modality) == (metadata[::-1], ["image", "image"])
    metadata[0]["deep"]["list"].append(2)  # what the caller does with it later does not matter
    assert store.get("c", ["b"]).metadata[0]["deep"]["list"] == [1, None, "é"]


def test_upsert_replaces_all_of_a_point(store):
    store.upsert("c", points(["a"], 1, [{"old": 1}]))
    store.upsert("c", points(["a", "b"], 2, [{"new": 2}, {}], "image"))
    read = store.get("c", ["a"])
    assert (read.metadata, read.modality) == ([{"new": 2}], ["image"])
    assert torch.equal(read.vectors, points(["a", "b"], 2).vectors[:1])
    for where, count in ((Where(), 2), (Where(modality="text"), 0), (Where({"old": 1}), 0)):
        assert store.count("c", where) == count


@pytest.mark.parametrize("where", WHERES)
def test_count_and_scan_are_what_meets_the_conditions(shared, where):
    store, points, _, ids, metadata, _ = shared
    expected = [ids[i] for i in np.flatnonzero(counted(shared, where))]
    assert store.count("c", where) == len(expected)
    for rows in (1, 7, 4096):
        blocks = list(store.scan("c", where, rows))
        assert [i for block in blocks for i in block.ids] == expected
        assert all(0 < len(block.ids) <= rows for block in blocks)
    for block in store.scan("c", where):
        chosen = [int(i[1:]) for i in block.ids]
        np.testing.assert_array_equal(block.vectors, points[chosen])
        assert block.metadata == [metadata[i] for i in chosen]
        assert block.modality == [MODALITIES[i % 3] for i in chosen]


def test_everything_survives_a_restart(tmp_path):
    names = [f"p{i}" for i in range(5000)]
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", SPACE)
        store.create_collection("empty", Space("other", 3.0, 2, "rev"))
        store.upsert("c", points(names, 0, [{"i": i} for i in range(5000)]))
        store.upsert("c", points(names[:10], 1, [{"again": True}] * 10, "embedding"))
        assert store.delete("c", [*names[100:200], "unknown"]) == 100

        def answers(store):
            query = torch.ones(4)
            return (
                store.collections(),
                store.knn("c", query[None], 300),
                store.knn("c", query[None], 300, Where({"i": {"gte": 4000}}, "text", 0.5, 3.0)),
                store.within("c", query, 1.0),
                store.cone("c", query, "descendants", Cone()),
                store.cone("c", query, "ancestors", Cone(), order_by="radius"),
                store.route_candidates("c", Route(query, 0.7))[0].ids,
                [block.ids for block in store.scan("c")],
            )

        before = answers(store)
    with LocalStore(tmp_path) as store:
        assert answers(store) == before
        described = [(c.name, c.count, c.index) for c in store.collections()]
        assert described == [("c", 4900, None), ("empty", 0, None)]
        assert torch.equal(store.get("c", names[:10]).vectors, points(names[:10], 1).vectors)
        assert store.get("c", ["p0", "p4999"]).metadata == [{"again": True}, {"i": 4999}]


def test_empty_calls_and_empty_collections_are_fine(store):
    store.upsert("c", points([]))
    assert store.delete("c", []) == 0
    assert store.get("c", []).ids == []
    assert list(store.scan("c")) == []
    assert store.count("c", Where({"any": 1}, min_radius=1.0)) == 0
    assert store.knn("c", ORIGIN, 5, Where({"any": 1}))[0].hits == []
    assert store.knn("c", torch.zeros(0, 4), 5) == []
    assert (store.within("c", ORIGIN[0], 3.0).hits, store.within("c", ORIGIN[0], 3.0).total) == ([], 0)
    for side in ("ancestors", "descendants"):
        assert store.cone("c", ORIGIN[0], side, Cone()).hits == []
    assert store.route_candidates("c", Route(torch.ones(4), 0.7, None, 5), Cone()) is not None


# Snapshots ------------------------------------------------------------------------------------------------------------


def test_a_snapshot_opens_as_a_store_and_has_the_collection_as_it_was(store, tmp_path):
    store.upsert("c", points(["a", "b"], metadata=[{"k": 1}, {}]))
    store.create_collection("other", SPACE)
    store.upsert("other", points(["secret"]))
    answer = store.knn("c", torch.ones(1, 4), 9)
    first = store.snapshot("c")
    assert first.startswith(str(tmp_path / "snapshots" / "c-"))
    store.upsert("c", points(["a", "c"], 5))
    second = store.snapshot("c")
    assert first != second
    with LocalStore(first) as copy, LocalStore(second) as later:
        assert [(c.name, c.space, c.count) for c in copy.collections()] == [("c", SPACE, 2)]
        assert (copy.names(), copy.sizes()) == (["c"], {"c": 2})
        assert copy.knn("c", torch.ones(1, 4), 9) == answer
        assert copy.count("c", Where({"k": 1})) == 1
        assert later.count("c") == 3
        copy.upsert("c", points(["new"]))
        assert copy.count("c") == 3
    assert store.count("c") == 3


@pytest.mark.parametrize("name", ["../outside", "a/b", "{}/absolute", "..", "x" * 300, "a\0b"])
def test_no_name_of_a_collection_leads_out_of_the_directory(store, tmp_path, name):
    try:
        store.create_collection(name.format(tmp_path), SPACE)
        copy = store.snapshot(name.format(tmp_path))
    except (InputError, StoreError):
        return  # to refuse such names is fine
    assert (tmp_path / "snapshots").resolve() == pathlib.Path(copy).resolve().parent


@pytest.mark.slow
def test_any_number_of_ids_in_a_call(tmp_path):
    count = 40_000  # more than SQLite takes parameters
    ids = [str(i) for i in range(count)]
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", Space("m", 1.0, 1))
        for _ in range(2):
            store.upsert("c", Points(ids, torch.arange(count).unsqueeze(1) / count, ["text"] * count, [{}] * count))
        assert store.count("c") == count
        assert list(store.get("c", ids[::-1]).ids) == ids[::-1]
        assert store.delete("c", ids) == count
        assert store.count("c") == 0
