import signal
import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from hypclip.errors import InputError, StoreError
from hypclip.search import LocalStore, ModelMismatch, Points, Space, UnknownCollection, UnknownPoint
from hypclip.search.local import FILE

SPACE = Space("m", 0.7, 4)


def points(ids, seed=0, metadata=None, modality="text"):
    vectors = torch.randn(len(ids), 4, generator=torch.Generator().manual_seed(seed))
    return Points(ids, vectors, [modality] * len(ids), metadata or [{} for _ in ids])


@pytest.fixture
def store(tmp_path):
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", SPACE)
        yield store


def test_points_come_back_as_they_went_in(store):
    metadata = [{"caption": "a dog\u0000", "n": 1, "deep": {"list": [1, None, "é"]}}, {}]
    written = points(["b", "a"], metadata=metadata, modality="image")
    store.upsert("c", written)
    read = store.get("c", ["a", "b"])
    assert read.ids == ["a", "b"]
    assert torch.equal(read.vectors, written.vectors[[1, 0]])
    assert read.metadata == metadata[::-1]
    assert read.modality == ["image", "image"]
    assert store.describe("c").count == 2


def test_upsert_replaces_all_of_a_point(store):
    store.upsert("c", points(["a"], 1, [{"old": 1}]))
    store.upsert("c", points(["a", "b"], 2, [{"new": 2}, {}], "image"))
    read = store.get("c", ["a"])
    assert read.metadata == [{"new": 2}]
    assert read.modality == ["image"]
    assert torch.equal(read.vectors, points(["a", "b"], 2).vectors[:1])
    assert store.describe("c").count == 2


def test_everything_survives_a_restart(tmp_path):
    ids = [f"p{i}" for i in range(5000)]
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", SPACE)
        store.create_collection("empty", Space("other", 3.0, 2))
        store.upsert("c", points(ids, metadata=[{"i": i} for i in range(5000)]))
        store.upsert("c", points(ids[:10], 1, [{"again": True}] * 10, "embedding"))
        assert store.delete("c", [*ids[100:200], "unknown"]) == 100
        before = store.knn("c", torch.ones(4), 300)
        collections = store.collections()
    with LocalStore(tmp_path) as store:
        assert store.collections() == collections
        assert [(c.name, c.space, c.count) for c in collections] == [
            ("c", SPACE, 4900),
            ("empty", Space("other", 3.0, 2), 0),
        ]
        assert store.knn("c", torch.ones(4), 300) == before
        assert torch.equal(store.get("c", ids[:10]).vectors, points(ids[:10], 1).vectors)
        assert store.get("c", ["p0", "p4999"]).metadata == [{"again": True}, {"i": 4999}]


def test_an_acknowledged_write_survives_sigkill(tmp_path):
    code = f"""
import time, torch
from hypclip.search import LocalStore, Points, Space
store = LocalStore({str(tmp_path)!r}, create=True)
store.create_collection("c", Space("m", 0.7, 4))
store.upsert("c", Points([f"p{{i}}" for i in range(1000)], torch.ones(1000, 4), ["text"] * 1000, [{{}}] * 1000))
store.delete("c", ["p0"])
print("written", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "written\n"
        with pytest.raises(StoreError, match="open elsewhere"):
            LocalStore(tmp_path)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    with LocalStore(tmp_path) as store:
        assert store.describe("c").count == 999
        assert torch.equal(store.get("c", ["p999"]).vectors, torch.ones(1, 4))


def test_writes_are_synchronous(store):
    def pragma(name):
        return store._connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert (pragma("journal_mode"), pragma("synchronous")) == ("wal", 2)


def test_knn_is_exact_and_honours_modality_and_filter(store):
    store.upsert("c", points(["a", "b"], 1, [{"k": 1}, {"k": 2}]))
    store.upsert("c", points(["x", "y"], 2, [{"k": 1}, {"k": 2}], "image"))
    everything = store.knn("c", torch.zeros(4), 10)
    assert everything.exact
    assert len(everything.hits) == 4
    assert [h.distance for h in everything.hits] == pytest.approx(sorted(h.radius for h in everything.hits))
    assert {h.id for h in store.knn("c", torch.zeros(4), 10, modality="image").hits} == {"x", "y"}
    assert {h.id for h in store.knn("c", torch.zeros(4), 10, filter={"k": 2}).hits} == {"b", "y"}
    assert [h.id for h in store.knn("c", torch.zeros(4), 10, "text", {"k": 2}).hits] == ["b"]


def test_what_the_caller_does_with_its_metadata_later_does_not_matter(store):
    metadata = {"tags": ["a"]}
    store.upsert("c", points(["p"], metadata=[metadata]))
    metadata["tags"].append("b")
    assert store.get("c", ["p"]).metadata == [{"tags": ["a"]}]


def test_empty_calls_are_fine(store):
    store.upsert("c", points([]))
    assert store.delete("c", []) == 0
    assert store.get("c", []).ids == []
    assert store.knn("c", torch.zeros(4), 5).hits == []


@pytest.mark.parametrize("bad", [{"v": float("nan")}, {"v": {1, 2}}, {"v": object()}])
def test_metadata_that_is_not_json_stops_the_whole_call(store, bad):
    with pytest.raises(InputError, match="metadata of point 'b'"):
        store.upsert("c", points(["a", "b"], metadata=[{}, bad]))
    assert store.describe("c").count == 0


def test_a_failing_write_leaves_nothing_on_disk_or_in_memory(store):
    store._connection.execute(
        "CREATE TRIGGER fail BEFORE INSERT ON points WHEN NEW.id = 'b' BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    with pytest.raises(StoreError, match="cannot use the index"):
        store.upsert("c", points(["a", "b"]))
    assert store.describe("c").count == 0
    assert store._connection.execute("SELECT count(*) FROM points").fetchone() == (0,)
    store.upsert("c", points(["a"]))
    assert store.describe("c").count == 1


@pytest.mark.parametrize("vector", [[float("nan")] * 4, [1e30] * 4, [0.0] * 3])
def test_vectors_that_are_no_points_are_refused(store, vector):
    with pytest.raises(InputError):
        store.upsert("c", Points(["a"], torch.tensor([vector]), ["text"], [{}]))
    with pytest.raises(InputError):
        store.knn("c", torch.tensor(vector), 1)


def test_k_starts_at_1(store):
    with pytest.raises(InputError, match="k must be at least 1, got 0"):
        store.knn("c", torch.zeros(4), 0)


def test_unknown_names_are_named(store):
    for call in (
        lambda: store.describe("nope"),
        lambda: store.upsert("nope", points(["a"])),
        lambda: store.delete("nope", ["a"]),
        lambda: store.get("nope", ["a"]),
        lambda: store.knn("nope", torch.zeros(4), 1),
    ):
        with pytest.raises(UnknownCollection) as caught:
            call()
        assert caught.value.name == "nope"
    with pytest.raises(UnknownPoint) as caught:
        store.get("c", ["a"])
    assert (caught.value.name, caught.value.point_id) == ("c", "a")


def test_creating_a_collection_again_is_fine_for_the_same_model_only(store):
    store.upsert("c", points(["a"]))
    assert store.create_collection("c", SPACE).count == 1
    with pytest.raises(ModelMismatch):
        store.create_collection("c", Space("other", 0.7, 4))


def test_threads_share_a_store(store):
    errors = []

    def work(worker):
        try:
            for i in range(20):
                store.upsert("c", points([f"{worker}-{i}-{j}" for j in range(10)], worker))
                store.delete("c", [f"{worker}-{i}-0"])
                assert len(store.knn("c", torch.zeros(4), 5).hits) == 5
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(w,)) for w in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert store.describe("c").count == 4 * 20 * 9
    assert store._connection.execute("SELECT count(*) FROM points").fetchone() == (720,)


def test_no_index_is_made_unasked(tmp_path):
    with pytest.raises(StoreError, match="there is no index in"):
        LocalStore(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot use the index"):
        LocalStore(tmp_path / "file" / "index", create=True)


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / FILE).write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="not a database"):
        LocalStore(tmp_path)
    (tmp_path / FILE).unlink()
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("CREATE TABLE other (x)")
    connection.close()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(StoreError, match="a database of something else"):
        LocalStore(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / FILE]


def test_an_index_of_a_later_format_is_refused(tmp_path):
    LocalStore(tmp_path, create=True).close()
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(StoreError, match="has format 2; this version of hypclip reads format 1"):
        LocalStore(tmp_path)


@pytest.mark.parametrize(
    "damage, message",
    [
        ("UPDATE points SET vector = x'00'", "multiple of element size"),
        ("UPDATE points SET metadata = '{'", "Expecting"),
        ("UPDATE points SET modality = 'smell'", "unknown modality 'smell'"),
        ("UPDATE collections SET curv = 0", "curv must be positive"),
    ],
)
def test_a_damaged_index_says_where(tmp_path, damage, message):
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", SPACE)
        store.upsert("c", points(["a"]))
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute(damage)
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match=f"damaged, in collection 'c'.*({message})"):
        LocalStore(tmp_path)


def test_one_store_at_a_time(tmp_path):
    with LocalStore(tmp_path, create=True), pytest.raises(StoreError, match="open elsewhere"):
        LocalStore(tmp_path)
    LocalStore(tmp_path).close()


def test_ten_thousand_points_a_call(tmp_path):
    n = 10_000
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", Space("m", 1.0, 64))
        vectors = torch.from_numpy(np.random.default_rng(0).normal(size=(n, 64)).astype(np.float32))
        store.upsert("c", Points([str(i) for i in range(n)], vectors, ["text"] * n, [{}] * n))
        assert store.describe("c").count == n
        assert store.knn("c", vectors[77], 1).hits[0].id == "77"
