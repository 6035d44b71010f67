import gc
import math
import threading
import warnings

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from qdrant_client import models

from hypclip.errors import InputError, StoreError
from hypclip.geometry import cones, lorentz
from hypclip.search import (
    Cone,
    ModelMismatch,
    Route,
    Space,
    UnknownCollection,
    UnknownField,
    UnknownPoint,
    Where,
)
from hypclip.search.qdrant import codec
from hypclip.search.qdrant.codec import to_structs
from hypclip.search.qdrant.filters import conditions, is_decisive
from hypclip.search.qdrant.searches import least_score, lorentz_query
from hypclip.search.qdrant.store import QdrantStore
from hypclip.search.where import matches
from tests.support.qdrant import CURVS, DIM, cloud, found, points, queries


@pytest.fixture
def store():
    with QdrantStore.connect(":memory:") as store:
        yield store


@pytest.fixture(scope="module", params=CURVS)
def filled(request):
    """A store with 120 points, and these."""
    curv = request.param
    x = cloud(curv)
    metadata = [{"third": i // 40, "even": i % 2 == 0} for i in range(len(x))]
    pool = points(x, metadata=metadata, modality=["text" if i % 3 else "image" for i in range(len(x))])
    with QdrantStore.connect(":memory:") as store:
        store.create_collection("c", Space("m", curv, DIM))
        store.upsert("c", pool)
        yield store, curv, pool


def selected(pool, where):
    modality = where.modality or ""
    return [
        i
        for i in range(len(pool.ids))
        if pool.modality[i].startswith(modality) and matches(pool.metadata[i], where.conditions)
    ]


def by_distance(pool, query, curv, where):
    x = pool.vectors.double()
    distance = lorentz.dist(x, query.double().expand_as(x), curv).tolist()
    radius = lorentz.radius(x, curv).tolist()
    rows = [i for i in selected(pool, where) if where.min_radius <= radius[i] <= where.max_radius]
    return sorted((distance[i], pool.ids[i]) for i in rows)


WHERES = [
    Where(),
    Where({"third": 1}),
    Where({"even": True}, modality="image"),
    Where({"third": {"gte": 1}}, min_radius=0.3, max_radius=4.0),
]


@pytest.mark.parametrize("where", WHERES)
def test_exact_neighbours_are_those_of_brute_force(filled, where):
    store, curv, pool = filled
    q = queries(pool, curv)
    for k, offset in ((1, 0), (7, 5), (1000, 0), (5, 112)):
        results = store.knn("c", q, k, where, offset=offset, exact=True)
        for query, result in zip(q, results, strict=True):
            assert result.exact
            assert result.total is None
            assert found(result) == by_distance(pool, query, curv, where)[offset : offset + k]
    assert store.knn("c", q, 3, where) == store.knn("c", q, 3, where, exact=True)


@pytest.mark.parametrize("curv", CURVS)
def test_exact_neighbours_far_out_where_float32_products_say_nothing(curv):
    pool = points(cloud(curv, 120, far=12.0, seed=2))
    space = Space("m", curv, DIM)
    with QdrantStore.connect(":memory:") as store:
        store.create_collection("c", space)
        store.upsert("c", pool)
        for result, query in zip(store.knn("c", pool.vectors[:45:4], 4), pool.vectors[:45:4], strict=True):
            assert found(result) == by_distance(pool, query, curv, Where())[:4]


@pytest.mark.parametrize("curv", CURVS)
def test_no_float32_score_of_a_point_within_a_distance_is_below_the_bound(curv):
    space = Space("m", curv, DIM)
    x = cloud(curv, 300, far=14.0, seed=3)
    structs = to_structs(space, points(x), ["{}"] * len(x), 0, len(x))
    stored = torch.tensor([struct.vector["lorentz"] for struct in structs])
    assert torch.equal(stored[:, :DIM], x)
    for query in x[:200:6].double():
        distances = lorentz.dist(x.double(), query.expand(len(x), -1), curv)
        scores = stored @ torch.tensor(lorentz_query(space, query))
        for distance, score in zip(distances.tolist(), scores.tolist(), strict=True):
            assert score > least_score(space, query, distance)
    assert least_score(space, x[10].double(), 40 / math.sqrt(curv)) == -math.inf


def test_approximate_neighbours_are_rescored_and_say_that_they_are(filled):
    store, curv, pool = filled
    q = queries(pool, curv)
    for query, result in zip(q, store.knn("c", q, 5, offset=2, exact=False), strict=True):
        assert not result.exact
        # Local mode looks at all tangents: 100 candidates of 120 hold the nearest here.
        assert found(result) == by_distance(pool, query, curv, Where())[2:7]
    coarse = QdrantStore(store._client, exact_up_to=10)
    assert not coarse.knn("c", q[:1], 1)[0].exact
    assert coarse.knn("c", q[:1], 1, exact=True)[0].exact


def test_many_neighbours_are_fetched_in_pieces(filled, monkeypatch):
    store, curv, pool = filled
    monkeypatch.setattr(codec, "REQUEST_BYTES", 16 * (DIM + 1) * 40)
    result = store.knn("c", pool.vectors[:2], 20, exact=True)[1]
    assert found(result) == by_distance(pool, pool.vectors[1], curv, Where())[:20]


@pytest.mark.parametrize("where", WHERES)
def test_points_within_a_distance(filled, where):
    store, curv, pool = filled
    for query in queries(pool, curv):
        everything = by_distance(pool, query, curv, where)
        for distance in (0.0, everything[0][0], everything[len(everything) // 2][0], 100.0 / math.sqrt(curv), math.inf):
            wanted = [one for one in everything if one[0] <= distance]
            result = store.within("c", query, distance, where, k=10, offset=3)
            assert (found(result), result.total, result.exact) == (wanted[3:13], len(wanted), True)


@pytest.mark.slow
@pytest.mark.parametrize("min_radius", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("eta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("side", ["ancestors", "descendants"])
def test_cones_hold_what_brute_force_says(filled, side, eta, min_radius):
    store, curv, pool = filled
    x = pool.vectors.double()
    cone = Cone(eta, min_radius, strict=eta != 1.0)
    where = Where({"third": [0, 2]}) if eta == 0.5 else Where()
    rows = selected(pool, where)
    seen = 0
    for query in queries(pool, curv):
        q = query.expand_as(x)
        general, specific = (x, q) if side == "ancestors" else (q, x)
        angle, aperture = cones.oxy_angle(general, specific, curv), cones.half_aperture(general, curv, min_radius)
        margin, distance, radius = angle - eta * aperture, lorentz.dist(x, q, curv), lorentz.radius(x, curv)
        inside = [i for i in rows if margin[i] <= 0 and (distance[i] > 0 or not cone.strict)]
        seen += len(inside)
        orders = {"margin": margin, "distance": distance, "radius": radius}
        for order, key in orders.items() if min_radius == 0.2 else [("margin", margin)]:
            result = store.cone("c", query, side, cone, where, order_by=order, k=9, offset=1)
            wanted = sorted((float(key[i]), pool.ids[i], i) for i in inside)[1:10]
            assert [hit.id for hit in result.hits] == [one[1] for one in wanted]
            assert (result.total, result.exact) == (len(inside), True)
            for hit, (_, _, i) in zip(result.hits, wanted, strict=True):
                have = (hit.distance, hit.radius, hit.angle, hit.aperture, hit.margin)
                assert have == pytest.approx([float(c[i]) for c in (distance, radius, angle, aperture, margin)])
                assert (hit.modality, hit.metadata) == (pool.modality[i], pool.metadata[i])
    assert seen


def test_a_cone_of_everything(filled):
    store, _, pool = filled
    assert store.cone("c", torch.zeros(DIM), "descendants", Cone(strict=False)).total == len(pool.ids)
    wide = Cone(eta=2.0, min_radius=1e7, strict=False)
    assert store.cone("c", pool.vectors[30], "descendants", wide).total == len(pool.ids)
    assert store.cone("c", pool.vectors[30], "ancestors", wide).total == len(pool.ids)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [None, 50])
@pytest.mark.parametrize("target", [None, 119])
@pytest.mark.parametrize("eta", [None, 0.7, 1.5])
def test_candidates_contain_the_nearest_of_every_place(filled, eta, target, steps):
    store, curv, pool = filled
    end = None if target is None else pool.vectors[target]
    where = Where({"even": True})
    rows = torch.tensor(selected(pool, where))
    for start in (0, 100):
        path = Route(pool.vectors[start], curv, end, steps)
        cone = None if eta is None else Cone(eta)
        route_candidates, exact = store.route_candidates("c", path, cone, where)
        assert exact == (steps is not None or (eta is not None and target is None))
        assert len(set(route_candidates.ids)) == len(route_candidates.ids)
        assert all(metadata["even"] for metadata in route_candidates.metadata)
        if not exact:
            continue
        x = pool.vectors[rows].double()
        for place in path.places(torch.linspace(0, 1, 50, dtype=torch.float64)):
            distance = lorentz.dist(x, place.expand_as(x), curv)
            if cone is not None:
                z = place.expand_as(x)
                inside = cones.oxy_angle(x, z, curv) <= eta * cones.half_aperture(x, curv)
                distance = torch.where(inside, distance, math.inf)
            if distance.min() < math.inf:
                assert pool.ids[int(rows[distance.argmin()])] in route_candidates.ids


def test_candidates_for_thousands_of_places_take_few_searches(filled, monkeypatch):
    store, curv, pool = filled
    sent = []
    search = store._search
    monkeypatch.setattr(store, "_search", lambda name, searches: sent.extend(searches) or search(name, searches))
    store.route_candidates("c", Route(pool.vectors[100], curv, pool.vectors[119], 5000), Cone())
    assert 0 < len(sent) < 500


SCALARS = st.sampled_from([None, True, False, 0, 1, 1.0, -1, 0.5, 2**53, 2**53 + 1, -(2**53), 10**30, "", "1", "x"])
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.lists(st.lists(SCALARS, max_size=2), max_size=2),
    st.dictionaries(st.sampled_from(["a", "b"]), SCALARS, max_size=2),
)
FIELDS = st.sampled_from(["a", "a.b", "x y", "é[0]", "[]", "名-1", "b"])
WANTED = st.sampled_from([None, True, False, 0, 1, 1.0, -1, 0.5, 2**53, -(2**53), "", "1", "x"])
BOUND = st.sampled_from([-(2**53), -1, 0, 0.5, 1, 1.0, 2**53])
CONDITIONS = st.one_of(
    WANTED,
    st.lists(WANTED, min_size=1, max_size=4),
    st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), BOUND, min_size=1, max_size=2),
)


@settings(max_examples=60)
@given(
    st.lists(st.dictionaries(FIELDS, VALUES, max_size=4), min_size=1, max_size=8),
    st.dictionaries(FIELDS, CONDITIONS, min_size=1, max_size=2),
)
@example([{"a": {"b": 1}}, {"a.b": 1}], {"a.b": 1})
@example([{"a": []}], {"a": None})
@example([{"a": 2**53 + 1}, {"a": 2**53}], {"a": {"gt": 2**53}})
@example([{"a": -(2**53) - 1}], {"a": {"lt": -(2**53)}})
def test_filters_mean_what_they_mean_everywhere(metadata, wanted_fields):
    where = Where(wanted_fields)
    wanted = sorted(f"p{i}" for i, m in enumerate(metadata) if matches(m, where.conditions))
    missing = [field for field in wanted_fields if not any(field in m for m in metadata)]
    with QdrantStore.connect(":memory:") as store:
        store.create_collection("c", Space("m", 1.0, 1))
        store.upsert("c", points(torch.ones(len(metadata), 1), metadata=metadata))
        if missing:
            for search in (store.count, lambda *a: list(store.scan(*a)), lambda *a: store.within(a[0], ONE, 1.0, a[1])):
                with pytest.raises(UnknownField, match="no point of collection 'c' has a metadata field"):
                    search("c", where)
            return
        assert store.count("c", where) == len(wanted)
        assert sorted(i for block in store.scan("c", where) for i in block.ids) == wanted
        assert [hit.id for hit in store.knn("c", ONE[None], 20, where, exact=True)[0].hits] == wanted
        assert [hit.id for hit in store.knn("c", ONE[None], 20, where, exact=False)[0].hits] == wanted


ONE = torch.ones(1)


def test_the_engine_decides_but_at_the_edge_of_float64():
    assert is_decisive(Where({"a": [1, "x", None, True], "b": {"gt": -1e15}}))
    assert not is_decisive(Where({"a": ["x", 2**53]}))
    assert not is_decisive(Where({"b": {"lt": -(2**53)}}))
    # The engine takes 2^53 + 1 for 2^53: the bound lets both through.
    (condition,) = conditions(Where({"b": {"gt": 2**53, "lt": 1e6}}))
    assert condition.range == models.Range(gte=2.0**53, lt=1e6)


def test_a_field_is_unknown_in_every_search_but_not_in_an_empty_collection(filled, store):
    full, curv, pool = filled
    where, q = Where({"nobody": 1}), pool.vectors[5]
    store.create_collection("c", Space("m", curv, DIM))
    path = Route(q, curv)
    for search in (
        lambda s: s.knn("c", q[None], 1, where)[0].hits,
        lambda s: s.within("c", q, 1.0, where).hits,
        lambda s: s.cone("c", q, "ancestors", Cone(), where).hits,
        lambda s: s.route_candidates("c", path, None, where)[0].ids,
        lambda s: s.route_candidates("c", path, Cone(), where)[0].ids,
        lambda s: s.count("c", where),
    ):
        assert not search(store)
        with pytest.raises(UnknownField, match="'nobody'"):
            search(full)
    assert full.count("c", Where({"third": 99})) == 0
    assert full.knn("c", q[None], 1, Where({"third": 99}))[0].hits == []


def test_points_come_back_as_they_went_in(store):
    x = torch.cat([torch.randn(50, 3) * 1e3, torch.randn(50, 3) * 1e-30, torch.zeros(1, 3), -torch.zeros(1, 3)])
    metadata = [
        {"n": 10**30, "tiny": 0.1 + 1e-17, "deep": {"l": [1, None, "é"]}, "nul\0": "a\0", '"': "\\"},
        *[{}] * 101,
    ]
    modality = [["text", "image", "embedding"][i % 3] for i in range(102)]
    store.create_collection("c", Space("m", 0.7, 3))
    written = points(x, metadata=metadata, modality=modality)
    store.upsert("c", written)
    order = [*range(101, -1, -1)]
    read = store.get("c", [written.ids[i] for i in order])
    assert read.ids == [written.ids[i] for i in order]
    assert torch.equal(read.vectors.view(torch.int32), x[order].view(torch.int32))
    assert read.modality == modality[::-1]
    assert read.metadata == metadata[::-1]
    scanned = list(store.scan("c", rows=40))
    assert [len(block.ids) for block in scanned] == [40, 40, 22]
    assert sorted(i for block in scanned for i in block.ids) == sorted(written.ids)
    assert sum(len(block.ids) for block in store.scan("c", Where(modality="image"))) == 34
    assert store.get("c", []).vectors.shape == (0, 3)


def test_replacing_and_deleting(store):
    store.create_collection("c", Space("m", 1.0, 2))
    store.upsert("c", points(torch.eye(2), metadata=[{"old": 1}, {}]))
    store.upsert("c", points(torch.ones(1, 2, dtype=torch.float64), metadata=[{"new": 2}], modality=["image"]))
    read = store.get("c", ["p0"])
    assert (read.vectors.tolist(), read.metadata, read.modality) == ([[1.0, 1.0]], [{"new": 2}], ["image"])
    assert store.count("c") == store.describe("c").count == 2
    with pytest.raises(UnknownField, match="'old'"):
        store.count("c", Where({"old": 1}))
    assert store.knn("c", torch.ones(1, 2), 1)[0].hits[0].distance == 0
    assert store.delete("c", ["p0", "unknown", "p0"]) == 1
    assert store.delete("c", ["p0"]) == store.delete("c", []) == 0
    assert store.count("c") == 1
    with pytest.raises(UnknownPoint, match="'zz'") as caught:
        store.get("c", ["p1", "zz", "p0", "aa"])
    assert caught.value.point_id == "zz"
    store.upsert("c", points(torch.zeros(0, 2)))
    store.upsert("c", points(torch.eye(2)))
    assert store.count("c") == 2


def test_collections_are_listed_and_kept_apart(store):
    spaces = {"b": Space("m", 0.7, 3, "abc"), "a": Space("other", 2.0, 5)}
    for name, space in spaces.items():
        assert store.create_collection(name, space).space == space
        store.create_collection(name, space)
    store.upsert("a", points(torch.zeros(2, 5)))
    assert [(c.name, c.space, c.count) for c in store.collections()] == [("a", spaces["a"], 2), ("b", spaces["b"], 0)]
    assert store.names() == ["a", "b"]
    assert store.sizes() == {"a": 2, "b": 0}
    other = QdrantStore(store._client, prefix="else-")
    assert other.collections() == []
    assert other.names() == []
    assert other.sizes() == {}
    with pytest.raises(UnknownCollection, match="there is no collection 'a'"):
        other.count("a")
    with pytest.raises(ModelMismatch, match="'m'"):
        store.create_collection("b", Space("m", 0.7, 3, "abd"))


def test_a_directory_is_kept_for_one_process(tmp_path):
    with QdrantStore.connect(f"path:{tmp_path}") as store:
        store.create_collection("c", Space("m", 0.7, 3))
        store.upsert("c", points(torch.eye(3)))
        with warnings.catch_warnings():
            # The client leaves its lock file open when it is refused.
            warnings.simplefilter("ignore", ResourceWarning)
            with pytest.raises(StoreError, match="already accessed"):
                QdrantStore.connect(f"path:{tmp_path}")
            gc.collect()
        with pytest.raises(StoreError, match="makes no snapshots"):
            store.snapshot("c")
    with QdrantStore.connect(f"path:{tmp_path}") as store:
        assert torch.equal(store.get("c", ["p0", "p1", "p2"]).vectors, torch.eye(3))
        store.upsert("c", points(2 * torch.eye(3)))
        assert store.describe("c").count == 3
    with pytest.raises(StoreError, match="closed"):
        store.count("c")


def test_mistakes_are_named(store):
    store.create_collection("c", Space("m", 1.0, 2))
    q = torch.ones(2)
    for call, error, message in (
        (lambda: store.knn("c", q[None], 0), InputError, "must be at least 1, got 0"),
        (lambda: store.knn("c", q[None], 1, offset=-1), InputError, "offset must be 0 or more, got -1"),
        (lambda: store.knn("c", torch.ones(1, 3), 1), InputError, "2 space components, got 3"),
        (lambda: store.within("c", q, -1.0), InputError, "must be 0 or more"),
        (lambda: store.within("c", q, math.nan), InputError, "must be 0 or more"),
        (lambda: store.within("c", q, 1.0, k=0), InputError, "must be at least 1, got 0"),
        (lambda: store.cone("c", q / 0, "ancestors", Cone()), InputError, "NaN or infinite"),
        (lambda: store.route_candidates("c", Route(torch.ones(3), 1.0)), InputError, "2 space components"),
        (lambda: store.scan("c", rows=0), InputError, "rows"),
        (lambda: store.upsert("c", points(torch.full((1, 2), 1e8))), InputError, "radius"),
        (lambda: store.upsert("c", points(torch.ones(1, 2), metadata=[{"a": math.nan}])), InputError, "JSON"),
        (lambda: store.scan("d"), UnknownCollection, "'d'"),
        (lambda: store.describe("d"), UnknownCollection, "'d'"),
        (lambda: store.create_collection("a/b", Space("m", 1.0, 2)), InputError, "letters, digits"),
        (lambda: QdrantStore.connect("ftp://x"), InputError, "http"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert store.knn("c", torch.zeros(0, 2), 1) == []
    assert store.count("c") == 0


def test_foreign_and_damaged_collections_are_left_alone(store):
    client = store._client

    def describe(metadata, sizes=(("tangent", 2, "Euclid"), ("lorentz", 3, "Dot"), ("direction", 2, "Cosine")), m=0):
        vectors = {
            name: models.VectorParams(
                size=size, distance=distance, hnsw_config=models.HnswConfigDiff(m=m) if name != "tangent" else None
            )
            for name, size, distance in sizes
        }
        client.create_collection("hypclip-x", vectors, metadata=metadata)
        try:
            return store.describe("x")
        finally:
            client.delete_collection("hypclip-x")

    ours = {"format": 1, "model_id": "m", "revision": "", "curv": 1.0, "dim": 2}
    assert describe({"hypclip": ours}).space == Space("m", 1.0, 2)
    for arguments, message in (
        (({},), "not made by hypclip"),
        (({"hypclip": ours | {"format": 2}},), "has format 2; this version of hypclip reads format 1"),
        (({"hypclip": {"format": 1}},), "damaged: KeyError"),
        (({"hypclip": ours}, [("tangent", 2, "Euclid")]), "lacks its 'lorentz' vectors"),
        (({"hypclip": ours | {"dim": 3}},), "size 2 and distance Euclid, expected 3"),
        (({"hypclip": ours}, (("tangent", 2, "Dot"),)), "distance Dot"),
        (({"hypclip": ours}, (("tangent", 2, "Euclid"), ("lorentz", 3, "Dot"), ("direction", 2, "Cosine")), 16), "m=0"),
    ):
        with pytest.raises(StoreError, match=message):
            describe(*arguments)
    client.create_collection("hypclip-x", models.VectorParams(size=2, distance="Dot"))
    assert store.collections() == []
    assert store.sizes() == {}
    for call in (
        lambda: store.create_collection("x", Space("m", 1.0, 2)),
        lambda: store.upsert("x", points(torch.ones(1, 2))),
        lambda: store.delete("x", ["p0"]),
    ):
        with pytest.raises(StoreError, match="leaves it alone"):
            call()


def test_threads_share_local_mode(store):
    store.create_collection("c", Space("m", 1.0, 2))
    failures = []

    def work(thread):
        try:
            for i in range(8):
                store.upsert("c", points(torch.randn(4, 2), [f"{thread}-{i}-{j}" for j in range(4)]))
                store.knn("c", torch.ones(1, 2), 3)
                assert store.delete("c", [f"{thread}-{i}-0"]) == 1
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert store.count("c") == 4 * 8 * 3
