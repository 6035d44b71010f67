"""The values that go into a store, and what of them is refused."""

import contextlib
import json
import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hypclip import search
from hypclip.errors import InputError, StoreError
from hypclip.search import (
    Collection,
    Cone,
    LocalStore,
    ModelMismatch,
    Points,
    Route,
    Space,
    Unavailable,
    UnknownCollection,
    UnknownField,
    UnknownPoint,
    Where,
)
from hypclip.search.limits import MAX_SINH_RADIUS
from hypclip.search.types import MAX_METADATA_BYTES, encode_metadata
from tests.support import search as search_helpers
from tests.support.search import names, unchecked, values
from tests.support.search import points as random_points

SPACE = Space("m", 1.0, 3)


@pytest.mark.parametrize("curv", [0.0, -1.0, math.nan, math.inf])
def test_a_space_needs_a_positive_curv(curv):
    with pytest.raises(InputError, match="curv must be positive"):
        Space("m", curv, 3)


def test_a_space_needs_a_dimension():
    with pytest.raises(InputError, match="dim must be at least 1"):
        Space("m", 1.0, 0)


@pytest.mark.parametrize("other", [Space("other", 1.0, 3), Space("m", 1.001, 3), Space("m", 1.0, 4)])
def test_points_of_another_space_are_refused_with_both_named(other):
    with pytest.raises(ModelMismatch) as caught:
        Collection("c", SPACE, 0).check_space(other)
    assert (caught.value.name, caught.value.stored, caught.value.asked) == ("c", SPACE, other)
    assert str(other) in str(caught.value)


def test_the_last_bits_of_curv_do_not_make_another_space():
    Collection("c", SPACE, 0).check_space(Space("m", 1.0 + 1e-7, 3))


@pytest.mark.parametrize(
    "vector, message",
    [
        ([0.0, math.nan, 0.0], "NaN or infinite"),
        ([0.0, math.inf, 0.0], "NaN or infinite"),
        ([0.0, 0.0], "has 3 space components, got 2"),
        ([1e8, 0.0, 0.0], "lies at radius 19.1"),
        ([1e200, 0.0, 0.0], "lies at radius"),
    ],
)
def test_what_is_no_point_is_refused(vector, message):
    with pytest.raises(InputError, match=message):
        SPACE.check_points(torch.tensor([[0.0] * len(vector), vector], dtype=torch.float64))


def test_half_precision_points_are_refused():
    with pytest.raises(InputError, match="float16"):
        SPACE.check_points(torch.zeros(1, 3, dtype=torch.float16))


def test_points_up_to_radius_16_are_points():
    SPACE.check_points(torch.tensor([[math.sinh(16.0), 0.0, 0.0]]))


def points(ids, n=2, vectors=None):
    return Points(ids, torch.zeros(n, 3) if vectors is None else vectors, ["text"] * n, [{}] * n)


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(InputError, match="'ids': 1, 'vectors': 2"):
        points(["a"])


def test_vectors_must_be_a_matrix():
    with pytest.raises(InputError, match=r"shape \(N, D\), got \(2,\)"):
        points(["a", "b"], vectors=torch.zeros(2))


def test_an_id_twice_in_a_call_is_refused():
    with pytest.raises(InputError, match="'a' comes twice"):
        points(["a", "a"])


@pytest.mark.parametrize("other", [Space("m", 1.0, 3, "b"), Space("m", 1.0, 3)])
def test_another_revision_of_the_weights_is_another_space(other):
    ours = Space("m", 1.0, 3, "a" * 40)
    assert ours.same_as(Space("m", 1.0, 3, "a" * 40))
    with pytest.raises(ModelMismatch, match="revision aaaaaaaaaaaa, curv 1, 3 dimensions"):
        Collection("c", ours, 0).check_space(other)


def test_points_beyond_the_limit_of_float32_are_refused_in_any_curvature():
    for curv in (0.05, 10.0):
        space = Space("m", curv, 2)
        edge = MAX_SINH_RADIUS / math.sqrt(curv)
        space.check_points(torch.tensor([[0.999 * edge, 0.0], [0.0, 0.0]]))
        with pytest.raises(InputError, match="told apart up to"):
            space.check_points(torch.tensor([[1.001 * edge, 0.0]]))


# Cones and points -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["eta", "min_radius"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_cone_is_positive_and_finite(name, value):
    with pytest.raises(InputError, match=f"{name} of a cone must be positive and finite, got {value}"):
        Cone(**{name: value})


@pytest.mark.parametrize("bad", ["", "\ud800", "a\udfff"])
def test_ids_are_real_strings(bad):
    with pytest.raises(InputError, match="non-empty string of valid Unicode"):
        points(["a", bad])


def test_ids_are_strings():
    with unchecked(), pytest.raises(InputError, match="non-empty string of valid Unicode, got 7"):
        points(["a", 7])


# Metadata -------------------------------------------------------------------------------------------------------------


def encoded(metadata):
    return encode_metadata(Points(["p"], torch.zeros(1, 3), ["text"], [metadata]))[0]


@given(st.dictionaries(names, values, max_size=4))
def test_metadata_comes_back_as_it_went_in(metadata):
    assert json.loads(encoded(metadata)) == metadata


@pytest.mark.parametrize(
    "bad",
    [
        {"v": math.nan},
        {"v": [1, -math.inf]},
        {"v": {1, 2}},
        {"v": object()},
        {"v": b"bytes"},
        {"v": "\ud800"},
        {"\ud800": 1},
        {("a",): 1},
        {"v": torch.tensor(1)},
        {"v": 10**5000},
    ],
)
def test_what_json_cannot_hold_is_refused_with_the_id(bad):
    with unchecked(), pytest.raises(InputError, match="the metadata of point 'p' cannot be written as JSON"):
        encoded(bad)


def test_metadata_that_holds_itself_is_refused():
    loop: dict[str, object] = {}
    loop["v"] = loop
    with pytest.raises(InputError, match="the metadata of point 'p' cannot be written as JSON"):
        encoded(loop)


@pytest.mark.parametrize("key", [1, 1.5, True, None])
def test_fields_are_strings(key):
    # JSON would make a string of it, and {1: …, "1": …} two fields of one name.
    with unchecked(), pytest.raises(InputError, match="metadata of point 'p'"):
        encoded({key: "v"})


def test_metadata_is_limited_in_bytes():
    room = MAX_METADATA_BYTES - len('{"v":""}')
    assert len(encoded({"v": "x" * room})) == MAX_METADATA_BYTES
    with pytest.raises(InputError, match="of point 'p' has 65,537 bytes as JSON; a store takes up to 65,536"):
        encoded({"v": "x" * (room + 1)})
    with pytest.raises(InputError, match="a store takes up to"):
        encoded({"v": "é" * (room // 2 + 1)})
    with pytest.raises(InputError, match="has 1,000,008 bytes"):
        encoded({"v": "x" * 1_000_000})


def test_an_error_of_a_collection_has_its_name():
    for error in (UnknownCollection("c"), UnknownPoint("c", "p"), UnknownField("c", "f")):
        assert error.name == "c"
        assert "'c'" in str(error)
    assert isinstance(UnknownField("c", "f"), InputError)
    assert issubclass(UnknownPoint, StoreError)
    assert issubclass(Unavailable, StoreError)


# What a store refuses -------------------------------------------------------------------------------------------------

ORIGIN = torch.zeros(1, 4)


@pytest.fixture
def store(tmp_path):
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", search_helpers.SPACE)
        yield store


@pytest.mark.parametrize("vector", [[float("nan")] * 4, [1e30] * 4, [0.0] * 3, [float("inf"), 0, 0, 0]])
def test_vectors_that_are_no_points_are_refused_everywhere(store, vector):
    store.upsert("c", random_points(["kept"]))
    bad = torch.tensor(vector)
    good = torch.zeros(1, len(vector))
    for call in (
        lambda: store.upsert("c", Points(["a", "b"], torch.cat([good, bad[None]]), ["text"] * 2, [{}] * 2)),
        lambda: store.knn("c", bad[None], 1),
        lambda: store.within("c", bad, 1.0),
        lambda: store.cone("c", bad, "ancestors", Cone()),
        lambda: store.route_candidates("c", Route(bad, 0.7)),
        lambda: store.route_candidates("c", Route(good[0], 0.7, bad)),
    ):
        with pytest.raises(InputError):
            call()
    assert [block.ids for block in store.scan("c")] == [["kept"]]


@pytest.mark.parametrize("bad", [{"v": float("nan")}, {"v": object()}, {"v": "x" * 2**20}, {"v": "\ud800"}])
def test_metadata_that_cannot_be_kept_stops_the_whole_call(store, bad):
    with pytest.raises(InputError, match="metadata of point 'b'"):
        store.upsert("c", random_points(["a", "b"], metadata=[{"new": 1}, bad]))
    assert store.count("c") == 0
    store.upsert("c", random_points(["a"]))
    with pytest.raises(UnknownField):
        store.count("c", Where({"new": 1}))


def test_an_unknown_modality_stops_the_whole_call(store):
    with unchecked(), pytest.raises(InputError, match="unknown modality 'smell', expected one of text, image, embed"):
        store.upsert("c", Points(["a", "b"], torch.ones(2, 4), ["text", "smell"], [{}, {}]))
    assert store.count("c") == 0


def test_queries_must_be_a_matrix(store):
    store.upsert("c", random_points(["a"]))
    with unchecked(), pytest.raises(InputError):
        store.knn("c", torch.ones(4), 1)


@pytest.mark.parametrize("k, offset, message", [(0, 0, "at least 1, got 0"), (-1, 0, "got -1"), (1, -1, "0 or more")])
def test_pages_start_at_0_and_hold_something(store, k, offset, message):
    for call in (
        lambda: store.knn("c", ORIGIN, k, offset=offset),
        lambda: store.within("c", ORIGIN[0], 1.0, k=k, offset=offset),
        lambda: store.cone("c", ORIGIN[0], "ancestors", Cone(), k=k, offset=offset),
    ):
        with pytest.raises(InputError, match=message):
            call()


@pytest.mark.parametrize("distance", [-1.0, float("nan")])
def test_a_distance_is_0_or_more(store, distance):
    with pytest.raises(InputError, match="distance must be 0 or more"):
        store.within("c", ORIGIN[0], distance)


def test_unknown_names_are_named(store):
    for call in (
        lambda: store.describe("nope"),
        lambda: store.upsert("nope", random_points(["a"])),
        lambda: store.delete("nope", ["a"]),
        lambda: store.get("nope", ["a"]),
        lambda: store.count("nope"),
        lambda: list(store.scan("nope")),
        lambda: store.knn("nope", ORIGIN, 1),
        lambda: store.within("nope", ORIGIN[0], 1.0),
        lambda: store.cone("nope", ORIGIN[0], "ancestors", Cone()),
        lambda: store.route_candidates("nope", Route(ORIGIN[0], 0.7)),
        lambda: store.snapshot("nope"),
    ):
        with pytest.raises(UnknownCollection) as caught:
            call()
        assert caught.value.name == "nope"
    with pytest.raises(UnknownPoint) as point:
        store.get("c", ["a"])
    assert (point.value.name, point.value.point_id) == ("c", "a")


def test_a_field_that_no_point_has_is_a_slip(store):
    store.upsert("c", random_points(["a"], metadata=[{"year": 1}]))
    for call in (
        lambda where: store.knn("c", ORIGIN, 1, where),
        lambda where: store.within("c", ORIGIN[0], 1.0, where),
        lambda where: store.cone("c", ORIGIN[0], "ancestors", Cone(), where),
        lambda where: store.count("c", where),
        lambda where: list(store.scan("c", where)),
        lambda where: store.route_candidates("c", Route(torch.ones(4), 0.7), None, where),
    ):
        with pytest.raises(UnknownField, match="no point of collection 'c' has a metadata field 'yaer'"):
            call(Where({"year": 1, "yaer": 1}))
    assert store.count("c", Where({"year": 2})) == 0


def test_creating_a_collection_again_is_fine_for_the_same_model_only(store):
    store.upsert("c", random_points(["a"]))
    assert store.create_collection("c", search_helpers.SPACE).count == 1
    with pytest.raises(ModelMismatch):
        store.create_collection("c", Space("other", 0.7, 4))


def test_metadata_of_any_depth_is_refused_or_filtered(store):
    # From Python 3.12 on, json goes deeper than SQLite does; one such point would stop every filter.
    store.upsert("c", random_points(["a"], metadata=[{"k": 1}]))
    depth, limit = [], sys.getrecursionlimit()
    for _ in range(2500):
        depth = [depth]
    sys.setrecursionlimit(20_000)
    try:
        with contextlib.suppress(InputError):
            store.upsert("c", random_points(["deep"], metadata=[{"k": 1, "depth": depth}]))
    finally:
        sys.setrecursionlimit(limit)
    assert store.count("c", Where({"k": 1})) >= 1


def test_a_name_that_needs_an_extra_is_imported_on_demand():
    from hypclip.search.qdrant.store import QdrantStore

    assert search.QdrantStore is QdrantStore
    with pytest.raises(AttributeError, match=r"'hypclip\.search' has no attribute 'MilvusStore'"):
        _ = search.MilvusStore
