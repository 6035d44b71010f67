"""The Qdrant store over REST: the same answers as in local mode, and every way in which a server fails."""

import contextlib
import importlib.util
import json
import socket
import sys
import time

import pytest
import torch
from qdrant_client import QdrantClient

from hypclip.errors import MissingExtraError, StoreError
from hypclip.search import (
    Cone,
    Route,
    Space,
    Unavailable,
    UnknownCollection,
    Where,
)
from hypclip.search.qdrant import catalogue
from hypclip.search.qdrant import store as qdrant_store
from hypclip.search.qdrant.store import QdrantStore
from tests.support.qdrant import DIM, Server, cloud, points


@pytest.fixture
def server():
    with Server() as server:
        yield server


def refusal(status, error):
    return status, {"Content-Type": "application/json"}, json.dumps({"status": {"error": error}}).encode()


def test_over_http_everything_is_as_in_local_mode(server):
    curv = 0.7
    pool = points(cloud(curv), metadata=[{"a b": 0.1 * i, "n": i, "big": 10**30} for i in range(120)])
    indexed = {"n": "integer", "a b": "float", "tag": "keyword", "flag": "bool"}
    space, where, q = Space("m", curv, DIM), Where({"n": {"lt": 80}}, min_radius=0.5), pool.vectors[85]
    with (
        QdrantStore.connect(server.url, replicas=3, shards=2, indexed=indexed) as remote,
        QdrantStore.connect(":memory:") as local,
    ):
        for store in (remote, local):
            store.create_collection("c", space)
            store.upsert("c", pool)
        for call in (
            lambda s: s.collections(),
            lambda s: s.knn("c", pool.vectors[:4], 5, where),
            lambda s: s.knn("c", pool.vectors[:4], 5, where, exact=False),
            lambda s: s.within("c", q, 2.0, where),
            lambda s: s.cone("c", q, "ancestors", Cone()),
            lambda s: s.cone("c", q, "descendants", Cone()),
            lambda s: s.route_candidates("c", Route(q, curv, steps=20))[0].ids,
            lambda s: s.count("c", where),
            lambda s: [block.ids for block in s.scan("c", where, 50)],
            lambda s: s.delete("c", ["p0", "p1", "unknown"]),
            lambda s: s.count("c"),
        ):
            assert call(remote) == call(local)
        assert torch.equal(remote.get("c", pool.ids[2:]).vectors, pool.vectors[2:])
        assert remote.get("c", ["p7"]).metadata == [{"a b": 0.1 * 7, "n": 7, "big": 10**30}]
        assert remote.snapshot("c") == "c-1.snapshot"
    assert (server.created.shard_number, server.created.replication_factor) == (2, 3)
    assert server.created.write_consistency_factor == 2
    assert server.created.vectors["lorentz"].hnsw_config.m == 0
    assert server.indexes["hypclip-c"] == {
        "id": "keyword",
        "modality": "keyword",
        "radius": "float",
        "shell": "integer",
        "fields": "keyword",
        "metadata.n": "float",
        'metadata."a b"': "float",
        "metadata.tag": "keyword",
        "metadata.flag": "bool",
    }
    writes = [query for method, path, query, _ in server.requests if method == "PUT" and path.endswith("/points")]
    assert writes == ["wait=true&ordering=strong"]


def test_missing_indexes_are_made_where_the_collection_is_described(server):
    with QdrantStore.connect(server.url) as store:
        store.create_collection("c", Space("m", 1.0, 2))
        del server.indexes["hypclip-c"]["fields"]
        before = len(server.requests)
        store.describe("c")
        store.describe("c")
        assert [path for method, path, *_ in server.requests[before:] if method == "PUT"] == [
            "/collections/hypclip-c/index"
        ]
        assert "fields" in server.indexes["hypclip-c"]


def test_large_upserts_are_cut_into_requests(server):
    n = 100
    pool = points(torch.randn(n, 3), metadata=[{"text": f"{i}" + "x" * 60_000} for i in range(n)])
    with QdrantStore.connect(server.url) as store:
        store.create_collection("c", Space("m", 1.0, 3))
        store.upsert("c", pool)
        assert store.count("c") == n
        assert store.get("c", pool.ids[::30]).metadata == pool.metadata[::30]
    sizes = [size for method, path, _, size in server.requests if method == "PUT" and path.endswith("/points")]
    assert len(sizes) == 2
    assert max(sizes) < 2**23


def test_what_fails_for_now_is_tried_again(server):
    with QdrantStore.connect(server.url) as store:
        store.create_collection("c", Space("m", 1.0, 2))
        store.upsert("c", points(torch.eye(2)))
        server.faults += [refusal(503, "starting"), (502, {}, b"<html>"), (429, {"Retry-After": "0"}, b"{}")]
        assert store.count("c") == 2
        server.faults += [refusal(500, "Service internal error: no quorum")] * 4
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:\d+ does not answer, tried 4 times: .*500.*no quorum"):
            store.count("c")
        assert not server.faults
        # The answer to the first try is lost, the second finds the work done.
        server.engine.create_collection("hypclip-d", {}, metadata={"hypclip": {}})
        server.faults += [refusal(404, "Not found: Collection `hypclip-d` doesn't exist!")]
        with pytest.raises(StoreError, match="format None"):
            store.create_collection("d", Space("m", 1.0, 2))


def test_what_is_refused_is_not_tried_again(server):
    with QdrantStore.connect(server.url) as store:
        for fault, error, message in (
            (refusal(403, "Forbidden: read only"), StoreError, "refuses: 403 Forbidden: read only"),
            (refusal(400, "Bad request: no index"), StoreError, "400 Bad request: no index"),
            (refusal(404, "Not found: Collection"), UnknownCollection, "there is no collection 'c'"),
            ((404, {}, b"<html>not here</html>"), StoreError, "404.*not here"),
            ((200, {}, b"<html>hello</html>"), StoreError, "the answer cannot be read"),
        ):
            before = len(server.requests)
            server.faults.append(fault)
            with pytest.raises(error, match=message) as caught:
                store.count("c")
            assert not isinstance(caught.value, Unavailable)
            assert len(server.requests) == before + 1


def test_an_old_server_is_refused_before_anything_is_made(server):
    server.version = "1.15.4"
    with (
        QdrantStore.connect(server.url) as store,
        pytest.raises(StoreError, match=r"is 1\.15\.4; metadata of collections need 1\.16"),
    ):
        store.create_collection("c", Space("m", 1.0, 2))
    assert server.engine.get_collections().collections == []


def test_an_unfinished_write_is_no_success(server):
    with QdrantStore.connect(server.url) as store:
        store.create_collection("c", Space("m", 1.0, 2))
        late = json.dumps({"status": "ok", "time": 0, "result": {"operation_id": 1, "status": "wait_timeout"}}).encode()
        info = json.dumps({"status": "ok", "time": 0, **server.serve("GET", ["collections", "hypclip-c"], None)[1]})
        server.faults += [(200, {}, info.encode()), (200, {}, late)]
        with pytest.raises(Unavailable, match="did not finish a write in time"):
            store.upsert("c", points(torch.eye(2)))


def test_a_silent_server_is_given_up_in_time(server):
    with QdrantStore.connect(server.url, timeout_s=0.4) as store:
        server.faults += [refusal(503, "starting"), 30.0]
        start = time.monotonic()
        with pytest.raises(Unavailable, match="ReadTimeout"):
            store.count("c")
        assert 0.3 < time.monotonic() - start < 10


def test_a_server_that_is_down():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with (
            QdrantStore.connect(f"http://127.0.0.1:{port}", retries=2) as store,
            pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{port} does not answer, tried 3 times: ConnectError"),
        ):
            store.collections()
        client = QdrantClient(host="127.0.0.1", grpc_port=port, prefer_grpc=True, check_compatibility=False)
        with (
            QdrantStore(client, retries=1) as store,
            pytest.raises(Unavailable, match=rf"{port} does not answer, tried 2 times: UNAVAILABLE"),
        ):
            store.describe("c")


def test_without_the_client_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    spec = importlib.util.spec_from_file_location("qdrant_again", qdrant_store.__file__)
    with pytest.raises(MissingExtraError, match=r"hypclip\[search\]"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    with contextlib.suppress(KeyError):
        del sys.modules["qdrant_again"]


def test_a_collection_is_remembered_for_a_moment_and_no_longer(server, monkeypatch):
    with QdrantStore.connect(server.url) as store, QdrantStore.connect(server.url) as other:
        other.create_collection("c", Space("m", 1.0, 2))
        before = len(server.requests)
        assert store.space("c") == store.space("c") == Space("m", 1.0, 2)
        assert len(server.requests) == before + 1
        server.engine.delete_collection("hypclip-c")
        other.create_collection("c", Space("new", 1.0, 3))
        monkeypatch.setattr(catalogue, "REMEMBERED_S", 0.0)
        assert store.space("c") == Space("new", 1.0, 3)
        server.engine.delete_collection("hypclip-c")
        with pytest.raises(UnknownCollection):
            store.space("c")


def test_whether_a_search_is_exact_goes_by_the_points_after_a_write(server):
    with QdrantStore.connect(server.url, exact_up_to=2) as store:
        store.create_collection("c", Space("m", 1.0, 2))
        store.upsert("c", points(torch.eye(2)))
        assert store.knn("c", torch.ones(1, 2), 1)[0].exact
        store.upsert("c", points(torch.eye(2), ids=["a", "b"]))
        assert not store.knn("c", torch.ones(1, 2), 1)[0].exact
