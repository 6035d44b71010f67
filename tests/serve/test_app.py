from fastapi.testclient import TestClient

from hypclip.search import LocalStore
from hypclip.search.local.sqlite import FILE
from serve.app import create_app
from serve.settings import Settings
from tests.support.serving import FakeEngine


def test_a_given_store_is_served_and_closed(tmp_path):
    settings = Settings(index=tmp_path / "unused")
    store = LocalStore(tmp_path / "index", create=True)
    with TestClient(create_app(settings, FakeEngine(), store)) as client:
        client.put("/collections/default/points", json={"points": [{"id": "a", "text": "a"}]})
    # Closed means that the file is whole by itself, its write-ahead log merged, and free for the next process.
    assert {p.name for p in (tmp_path / "index").iterdir()} == {FILE, "lock"}
    assert not settings.index.exists()
    with LocalStore(tmp_path / "index") as store:
        assert store.describe("default").count == 1


def test_two_apps_in_one_process_share_nothing(tmp_path):
    def app(name, max_k):
        return create_app(Settings(index=tmp_path / name, create_index=True, max_k=max_k), FakeEngine(name))

    with TestClient(app("a", 1)) as a, TestClient(app("b", 2)) as b:
        a.put("/collections/default/points", json={"points": [{"id": "x", "text": "x"}]})
        assert [c.get("/model").json()["model"] for c in (a, b)] == ["a", "b"]
        assert a.post("/retrieve", json={"query": "x", "k": 2}).status_code == 422
        assert b.post("/retrieve", json={"query": "x", "k": 2}).status_code == 404
