"""Points, ids and numbers in the forms callers have them: all are found alike, the rest is refused by name."""

import numpy as np
import pytest
import torch
from qdrant_client import QdrantClient

from hypclip.errors import InputError, StoreError
from hypclip.search import Cone, LocalStore, Points, Route, Space, Where
from hypclip.search.given import as_vectors
from hypclip.search.hierarchy import relations
from hypclip.search.hierarchy.traverse import traverse
from hypclip.search.qdrant.store import QdrantStore
from tests.support.search import SPACE, unchecked

ROWS = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
IDS = [f"p{i}" for i in range(5)]
KINDS, METADATA = ["text"] * 5, [{"i": i} for i in range(5)]

FORMS = {
    "tensor": lambda x: x,
    "float64": lambda x: x.double(),
    "with a gradient": lambda x: x.clone().requires_grad_(),
    "array": lambda x: x.numpy(),
    "array of float64": lambda x: x.double().numpy(),
    "big-endian array": lambda x: x.numpy().astype(">f4"),
    "array backwards in memory": lambda x: x.flip(0).numpy()[::-1],
    "list": lambda x: x.tolist(),
    "tuple": lambda x: tuple(x.tolist()),
    "list of rows": lambda x: list(x),
    "list of arrays": lambda x: list(x.numpy()),
    "column of rows": lambda x: np.array([None, *x.tolist()], object)[1:],
}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@pytest.fixture(params=["local", "qdrant"])
def store(request, tmp_path):
    local = request.param == "local"
    with LocalStore(tmp_path, create=True) if local else QdrantStore(QdrantClient(":memory:")) as store:
        store.create_collection("c", SPACE)
        store.upsert("c", Points(IDS, ROWS, KINDS, METADATA))
        yield store


@pytest.mark.filterwarnings("ignore:.*non-writable")
@each_form
def test_every_form_is_the_same_points(form):
    for x in (ROWS, ROWS[0]):
        found = as_vectors(form(x), "x")
        assert found.dtype in (torch.float32, torch.float64)
        assert torch.equal(found.float(), x)
        assert not found.requires_grad


@each_form
def test_every_form_can_be_stored_and_searched(store, form):
    with unchecked():
        store.upsert("c", Points(np.array(IDS[:2]), form(ROWS[3:]), np.array(KINDS[:2]), [None, {"new": 1}]))
    got = store.get("c", ["p0", "p1"])
    assert torch.equal(got.vectors, ROWS[3:])
    assert got.metadata == [{}, {"new": 1}]
    with unchecked():
        found = store.knn("c", form(ROWS[2:4]), 1)
        assert [one.hits[0].id for one in found] == ["p2", "p0"]
        assert [hit.id for hit in store.within("c", form(ROWS[2]), 0.0).hits] == ["p2"]
        cone = Cone(eta=3.0, strict=False)
        assert "p2" in [hit.id for hit in store.cone("c", form(ROWS[2]), "descendants", cone).hits]
        points, _ = store.route_candidates("c", Route(form(ROWS[2]), np.float64(SPACE.curv), form(ROWS[4])))
        assert "p2" in points.ids
        found = relations.common_ancestors(store, "c", form(ROWS[2:3]), cone)
        assert [hit.distance for hit in found.hits if hit.id == "p2"] == [0.0]


@each_form
def test_every_form_has_a_mean_and_an_order(form):
    with unchecked():
        middle = relations.mean(form(ROWS[:2]), torch.tensor(0.5), np.array([1, 1]))
        torch.testing.assert_close(middle, relations.mean(ROWS[:2], 0.5), rtol=0, atol=0)
        ordering = relations.order(form(0.1 * ROWS[0]), form(ROWS[0]), 0.7, Cone())
        assert ordering == relations.order(0.1 * ROWS[0], ROWS[0], 0.7, Cone())
        assert ordering.relation == "general"


def test_numbers_of_a_model_are_numbers():
    """`model.curv` is a tensor, which `Space` and `Route` take as it is."""
    curv = torch.tensor(0.5).log().requires_grad_().exp()
    with unchecked():
        assert type(Space("m", curv, 3).curv) is float
        assert Route(ROWS[0], curv).curv == pytest.approx(0.5)
        assert Cone(np.float32(0.5)).eta == 0.5


def test_points_without_metadata():
    assert Points(IDS, ROWS, KINDS, None).metadata == [{}] * 5
    assert Points(iter(IDS), ROWS, iter(KINDS), iter([None] * 5)).metadata == [{}] * 5


# Refused --------------------------------------------------------------------------------------------------------------

NO_VECTORS = {
    "none": (None, "must be a tensor, an array or a list of numbers, got None"),
    "string": ("abc", "must be a tensor, an array or a list of numbers, got str 'abc'"),
    "ragged": ([[1.0, 2.0], [3.0]], "cannot be made a tensor"),
    "rows of two lengths": ([torch.zeros(3), torch.zeros(4)], "cannot be made a tensor"),
    "strings": ([["a", "b"]], "must be float32 or float64, got something else than numbers"),
    "missing": ([[1.0, None]], "must be float32 or float64, got something else than numbers"),
    "bits": ([[True, False]], "must be float32 or float64, got bool"),
    "whole numbers": (np.zeros((2, 4), np.int64), "must be float32 or float64, got int64"),
    "half precision": (np.zeros((2, 4), np.float16), "must be float32 or float64, got float16"),
    "complex": (np.zeros((2, 4), np.complex64), "must be float32 or float64, got complex64"),
    "mapping": ({"embedding": [1.0]}, "must be a tensor, an array or a list of numbers, got dict"),
}


@pytest.mark.parametrize("wrong, message", NO_VECTORS.values(), ids=NO_VECTORS)
def test_what_is_no_vector_is_refused(wrong, message):
    with unchecked():
        for what, call in {
            "vectors": lambda: Points(["a", "b"], wrong, KINDS[:2], None),
            "queries": lambda: SPACE.points(wrong),
            "a query": lambda: SPACE.point(wrong),
            "the start of a route": lambda: Route(wrong, 0.7),
            "the end of a route": lambda: Route(ROWS[0], 0.7, {} if wrong is None else wrong),
            "the first point": lambda: relations.order(wrong, ROWS[0], 0.7, Cone()),
            "points": lambda: relations.mean(wrong, 0.7),
        }.items():
            with pytest.raises(InputError, match="^" + what + " " + (message if what != "the end of a route" else "")):
                call()


@pytest.mark.parametrize(
    "column, value, message",
    [
        ("ids", "p0p1p", "ids must be a list of strings, got str 'p0p1p'"),
        ("ids", [1, 2, 3, 4, 5], "valid Unicode, got 1: write it as '1'"),
        ("ids", [*IDS[:4], None], "valid Unicode, got None"),
        ("ids", [*IDS[:4], "p0"], "'p0' comes twice"),
        pytest.param("ids", set(IDS), "ids must be in the order of the vectors, got a set", id="ids-set"),
        ("ids", IDS[:4], "'ids': 4, 'vectors': 5, 'modality': 5, 'metadata': 5"),
        ("vectors", ROWS[0], r"vectors must have shape \(N, D\), got \(4,\)"),
        ("vectors", ROWS[:, None], r"vectors must have shape \(N, D\), got \(5, 1, 4\)"),
        ("modality", "image", "modality must be a list, one per point, got the string 'image'"),
        ("vectors", np.ma.masked_array(ROWS.numpy(), ROWS > 1), "vectors must have all of its numbers, got a masked"),
        ("vectors", ROWS.to_sparse(), r"got a sparse one: write it as x.to_dense\(\)"),
        ("modality", None, "modality must be a list, one per point, got None"),
        ("modality", ["image", "smell", "text", "text", "text"], "unknown modality 'smell'"),
        ("metadata", {"year": 2024}, "metadata must be a list of mappings, one per point, got dict"),
        ("metadata", [{}, "2024", {}, {}, {}], r"metadata\[1\] of point 'p1' must be a mapping .*got str '2024'"),
        ("metadata", [{}, {}, float("nan"), {}, {}], r"metadata\[2\] of point 'p2' must be a mapping .*got float nan"),
    ],
    ids=str,
)
def test_columns_that_do_not_fit_are_refused(column, value, message):
    columns = {"ids": IDS, "vectors": ROWS, "modality": KINDS, "metadata": METADATA}
    with unchecked(), pytest.raises(InputError, match=message):
        Points(**{**columns, column: value})


def test_calls_that_do_not_fit_are_refused_by_every_store(store):
    row, rows = ROWS[0].numpy(), ROWS.numpy()
    for call, message in [
        (lambda: store.knn("c", row, 3), r"queries must have shape \(N, D\), got \(4,\): give one as x\[None\]"),
        (lambda: store.knn("c", rows[:, :3], 3), "has 4 space components, got 3"),
        (lambda: store.knn("c", rows, 2.5), "k must be a whole number, got float 2.5"),
        (lambda: store.knn("c", rows, "3"), "must be a whole number, got str '3'"),
        (lambda: store.knn("c", rows, 3, offset=None), "offset must be a whole number, got None"),
        (lambda: store.knn("c", rows, 3, {"i": 1}), r"where must be a Where, such as Where\(.*, got \{'i': 1\}"),
        (
            lambda: store.within("c", rows[:1], 1.0),
            r"a query must have shape \(D,\), got \(1, 4\): give one row, x\[0\]",
        ),
        (lambda: store.within("c", row, "1"), "distance must be a number, got str '1'"),
        (lambda: store.within("c", row, float("nan")), "distance"),
        (lambda: store.cone("c", rows, "ancestors", Cone()), r"a query must have shape \(D,\), got \(5, 4\)"),
        (lambda: store.route_candidates("c", Route(row, 0.7), None, {"i": 1}), "where must be a Where"),
        (lambda: store.count("c", {"i": 1}), "where must be a Where"),
        (lambda: store.get("c", "p0"), "ids must be a list of strings, got str 'p0'"),
        (lambda: store.get("c", [0]), "got 0: write it as '0'"),
        (lambda: store.delete("c", "p0"), "ids must be a list of strings, got str 'p0'"),
        (lambda: store.delete("c", [0]), "got 0: write it as '0'"),
        (lambda: store.find("c", "p0"), "ids must be a list of strings, got str 'p0'"),
        (lambda: store.upsert("c", {"ids": IDS}), r"are Points\(ids, vectors, modality, metadata\), got dict"),
        (lambda: list(store.scan("c", rows=0)), "rows must be at least 1, got 0"),
        (lambda: list(store.scan("c", rows=2.5)), "rows must be a whole number, got float 2.5"),
        (lambda: store.cone("c", row, "up", Cone()), "side must be one of ancestors, descendants, got str 'up'"),
        (lambda: store.cone("c", row, "Ancestors", Cone()), "side must be one of .*, got str 'Ancestors'"),
        (
            lambda: store.cone("c", row, "ancestors", 0.7),
            r"a cone is a Cone, such as Cone\(eta=0.7\), or a Plane, .*, got float 0.7",
        ),
        (
            lambda: store.cone("c", row, "ancestors", Cone(), order_by="near"),
            "order_by must be one of .*'near'",
        ),
        (lambda: store.route_candidates("c", Route(row, 0.7), 0.7), "a cone is a Cone"),
        (lambda: traverse(store, "c", row, Cone()), r"a route is a Route, such as Route\(x, curv\), got ndarray"),
        (lambda: relations.common_ancestors(store, "c", rows, Cone(), k=-1), "must be at least 1, got -1"),
        (lambda: relations.common_ancestors(store, "c", rows, 0.7), "a cone is a Cone"),
        (lambda: store.create_collection(7, SPACE), "a collection is named by .*, got 7"),
        (lambda: Space(None, 0.7, 3), "model_id must be a string, got None"),
        (lambda: Space("m", 0.7, 3.0), "dim must be a whole number, got float 3.0"),
        (lambda: Route(row, 0.0), "the curv of a route must be positive and finite, got 0.0"),
        (lambda: Where("year"), r"a filter is a mapping such as \{'year': 2024\}, got str 'year'"),
        (lambda: Where(max_radius="1"), "max_radius must be a number, got str '1'"),
        (lambda: relations.order(row * np.nan, row, 0.7, Cone()), "components that are NaN"),
        (lambda: relations.order(row, row, -1, Cone()), "curv must be positive and finite"),
        (lambda: relations.order(row, row, 0.7, None), "a cone is a Cone"),
        (lambda: relations.mean(rows * np.nan, 0.7), "components that are NaN"),
        (lambda: relations.mean(rows, 0.7, 3), "weights must be a list of numbers, one per point, got int 3"),
        (lambda: Cone("wide"), "eta of a cone must be a number, got str 'wide'"),
        (lambda: Space("m", torch.ones(2), 3), r"curv must be a number, got Tensor of shape \(2,\)"),
        (lambda: Route(rows, 0.7), r"the ends of a route have one shape \(D,\), got \(5, 4\)"),
        (lambda: Route(row, 0.7, steps=2.5), "the number of steps must be a whole number"),
        (lambda: relations.order(row, rows, 0.7, Cone()), r"two points have one shape \(D,\), got \(4,\) and \(5, 4\)"),
        (lambda: relations.mean(rows, 0.7, ["1"] * 5), "a weight must be a number, got str '1'"),
        (lambda: relations.mean(row, 0.7), r"points must have shape \(N, D\), got \(4,\)"),
        (lambda: relations.common_ancestors(store, "c", row, Cone()), r"points must have shape \(N, D\), got \(4,\)"),
    ]:
        with unchecked(), pytest.raises(InputError, match=message):
            call()
    assert store.count("c") == 5


def test_whole_numbers_of_numpy_are_whole(store):
    with unchecked():
        assert len(store.knn("c", ROWS[:1], np.int64(2), offset=np.int32(1))[0].hits) == 2
        assert store.knn("c", ROWS[:1], 1, Where({"i": 3}))[0].hits[0].id == "p3"
        space = Space("m", np.float32(0.5), np.int64(4))
        assert store.create_collection("numpy", space) == store.describe("numpy")


def test_numbers_of_numpy_are_numbers_in_metadata_and_filters(store):
    """As the rows of tables have them."""
    metadata = {"n": np.int64(3), "x": np.float32(0.5), "yes": np.bool_(True), "many": np.arange(2)}
    store.upsert("c", Points(["p0"], ROWS[:1], ["text"], [metadata]))
    assert store.get("c", ["p0"]).metadata == [{"n": 3, "x": 0.5, "yes": True, "many": [0, 1]}]
    with pytest.raises(InputError, match="the metadata of point 'p0' cannot be written as JSON"):
        store.upsert("c", Points(["p0"], ROWS[:1], ["text"], [{"x": np.float32("nan")}]))
    for wanted in (
        {"n": np.int64(3)},
        {"n": np.arange(2, 4)},
        {"n": [np.int64(3)]},
        {"yes": np.True_},
        {"x": {"lte": np.float32(0.5)}},
    ):
        assert [hit.id for hit in store.knn("c", ROWS[:1], 5, Where(wanted))[0].hits] == ["p0"]


def test_a_closed_store_says_so(tmp_path):
    """It said that there was no such collection."""
    store = LocalStore(tmp_path, create=True)
    store.create_collection("c", SPACE)
    store.close()
    for call in (
        store.collections,
        lambda: store.describe("c"),
        lambda: store.create_collection("c", SPACE),
        lambda: store.knn("c", ROWS, 1),
    ):
        with pytest.raises(StoreError, match="is closed: open it again"):
            call()


def test_the_directory_of_a_store(tmp_path, monkeypatch):
    """A leading ~ is the home folder; it became a folder of that name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    LocalStore("~/index", create=True).close()
    LocalStore("~index", create=True).close()  # a name like any other
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "~index"]
    with unchecked():
        for wrong in (None, "", 3):
            with pytest.raises(InputError, match="an index is in a directory, given by its path"):
                LocalStore(wrong)
