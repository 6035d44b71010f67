"""The server on Qdrant: the same answers as on the local store, and what clients see when it does not answer."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from hypclip.search import LocalStore, Unavailable
from serve.app import create_app
from serve.settings import Settings
from serve.stores import open_store
from tests.support.qdrant import Server
from tests.support.serving import FakeEngine, assert_error

POINTS = [
    {"id": f"{i}", "embedding": [0.02 * i, 0.3] + [0.01] * 10, "metadata": {"i": i}, "modality": "text"}
    for i in range(40)
]
REQUESTS = {
    "/retrieve": {"query": {"id": "3"}, "k": 5, "filter": {"i": {"gt": 5}}, "exact": True},
    "/hierarchy/ancestors": {"of": {"embedding": [0.5, 1.5] + [0.02] * 10}, "order_by": "radius"},
    "/hierarchy/descendants": {"of": {"id": "0"}, "aperture_scale": 1.2},
    "/hierarchy/traverse": {"source": {"embedding": [0.5, 1.5] + [0.02] * 10}},
    "/hierarchy/common_ancestors": {"of": [{"id": "30"}, {"id": "39"}], "aperture_scale": 1.5},
}


def rounded(answer):
    """Answers are compared to nine digits."""
    if isinstance(answer, dict):
        return {name: rounded(value) for name, value in answer.items()}
    if isinstance(answer, list):
        return [rounded(value) for value in answer]
    return round(answer, 9) if isinstance(answer, float) else answer


def test_both_stores_answer_alike(tmp_path):
    answers = []
    for settings in (Settings(index=tmp_path, create_index=True), Settings(qdrant_url=":memory:")):
        with TestClient(create_app(settings, FakeEngine())) as client:
            assert client.put("/collections/default/points", json={"points": POINTS}).json()["count"] == 40
            answers.append({path: rounded(client.post(path, json=body).json()) for path, body in REQUESTS.items()})
            assert_error(
                client.post("/retrieve", json={"query": {"id": "3"}, "filter": {"colour": 1}}),
                422,
                "unknown_field",
                "colour",
            )
    assert all("error" not in answer for answer in answers[0].values())
    assert answers[0]["/hierarchy/ancestors"]["total"] > 0
    assert answers[0] == answers[1]


def test_a_store_that_does_not_answer_is_503_and_says_when_to_come_back(tmp_path):
    class Down(LocalStore):
        def space(self, name):
            raise Unavailable("Qdrant at http://down:6333 does not answer")

    store = Down(tmp_path, create=True)
    with TestClient(create_app(Settings(), FakeEngine(), store)) as client:
        response = client.post("/retrieve", json={"query": "a"})
        assert_error(response, 503, "store_unavailable", "http://down:6333")
        assert response.headers["retry-after"] == "1"


def test_a_qdrant_that_is_not_there_stops_the_first_call():
    store = open_store(Settings(qdrant_url="http://127.0.0.1:9", qdrant_timeout_s=0.5))
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
        store.collections()
    store.close()


@pytest.mark.parametrize(
    "method, path, body, most",
    [
        ("PUT", "/collections/default/points", {"points": POINTS}, 6),
        ("POST", "/retrieve", {"query": "a dog"}, 2),
        ("POST", "/retrieve", {"query": {"id": "3"}}, 3),
        ("POST", "/hierarchy/descendants", {"of": "a dog"}, 3),
        ("POST", "/hierarchy/descendants", {"of": {"id": "0"}}, 5),
        ("POST", "/hierarchy/common_ancestors", {"of": [{"id": "30"}, {"id": "39"}]}, 5),
        ("POST", "/hierarchy/traverse", {"source": "a dog"}, 4),
        ("DELETE", "/collections/default/points", {"ids": ["39"]}, 4),
    ],
)
def test_the_space_of_a_collection_is_asked_for_once_per_request(method, path, body, most):
    with (
        Server() as qdrant,
        TestClient(create_app(Settings(qdrant_url=qdrant.url), FakeEngine())) as writer,
        TestClient(create_app(Settings(qdrant_url=qdrant.url), FakeEngine())) as client,
    ):
        assert writer.put("/collections/default/points", json={"points": POINTS}).status_code == 200
        before = len(qdrant.requests)
        assert client.request(method, path, json=body).status_code == 200
        asked = qdrant.requests[before:]
    assert len(asked) <= most
    descriptions = [path for method, path, *_ in asked if (method, path) == ("GET", "/collections/hypclip-default")]
    # A write reads the payload indexes anew, to make those that are missing.
    assert len(descriptions) == (3 if method == "PUT" else 1)


def test_looking_whether_it_runs_counts_no_points():
    with Server() as qdrant, TestClient(create_app(Settings(qdrant_url=qdrant.url), FakeEngine())) as client:
        assert client.put("/collections/default/points", json={"points": POINTS}).status_code == 200
        before = len(qdrant.requests)
        for _ in range(3):
            assert client.get("/readyz").status_code == 200
            assert 'hypclip_index_points{collection="default"} 40.0' in client.get("/metrics").text
        asked = [(method, path) for method, path, *_ in qdrant.requests[before:]]
    assert asked.count(("GET", "/collections")) == 3 + 1
    assert len(asked) <= 3 + 2
