"""The calls that draw a collection, of both kinds of client, against the real app with the fake engine."""

from __future__ import annotations

import math

import httpx2
import pytest
from fastapi.testclient import TestClient

import hypclip.client as c
from hypclip.geometry import lorentz
from tests.support.client import BOTH, Blocking, Script, clients
from tests.support.serving import FakeEngine, app_at, text_point


@pytest.fixture
def connect():
    with clients() as make:
        yield make


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with TestClient(app_at(tmp_path_factory.mktemp("serve"))) as app:
        points = [{"id": f"t{i}", "text": f"text {i}"} for i in range(20)]
        assert app.put("/collections/default/points", json={"points": points}).status_code == 200
        yield app


@pytest.fixture(params=[c.Client, Blocking], ids=["sync", "async"])
def client(request, connect, app):
    def handle(asked: httpx2.Request) -> httpx2.Response:
        found = app.send(asked)
        return httpx2.Response(found.status_code, headers=found.headers, content=found.content)

    return connect(request.param, handle)


def test_map(client):
    found = client.map()
    assert isinstance(found, c.Map)
    assert list(found.key) == list(range(1, 21))
    radii = [float(lorentz.radius(text_point(f"text {i}").double(), FakeEngine.curv)) for i in range(20)]
    assert list(found.radius) == pytest.approx(radii, rel=1e-6)
    assert all(0 <= angle < 2 * math.pi for angle in found.angle)
    assert {found.modalities[code] for code in found.modality} == {"text"}
    assert (found.model, found.curv, found.count, found.sampled) == ("fake-1", 2.0, 20, False)


def test_a_new_layout(client):
    before = client.map()
    assert client.renew_map() == before.layout + 1
    after = client.map()
    assert after.version != before.version
    assert after.radius == before.radius


def test_focus(client):
    found = client.focus(c.stored("t3"), aperture_scale=1.5, reflexive=True)
    assert isinstance(found, c.Focus)
    assert found.flags[3] == c.ANCESTOR | c.DESCENDANT | c.ITSELF
    assert found.counts["ancestors"] == client.ancestors(c.stored("t3"), aperture_scale=1.5, reflexive=True).total
    assert found.version == client.map().version
    assert found.seen_from["id"] == "t3"
    assert (found.target, found.root) == (None, None)


def test_focus_of_two(client):
    found = client.focus("text 3", c.stored("t5"), rule={"form": "plane", "threshold": 0.1})
    assert found.rule == {"form": "plane", "threshold": 0.1}
    assert found.radius[5] == pytest.approx(found.target["distance"])
    assert found.root["radius"] == pytest.approx(found.seen_from["radius"])


def test_the_root_is_an_item(client):
    assert client.focus(c.root()).seen_from["radius"] == 0
    assert client.embed([c.root()])[0].radius == 0


def test_another_collection_is_asked_for_by_its_name(client):
    for call in (client.map, client.renew_map, lambda name: client.focus("a", collection=name)):
        with pytest.raises(c.NotFound, match="'nothing'"):
            call("nothing")


@BOTH
@pytest.mark.parametrize(
    "content", [b"", b"\x05\0\0\0[]", b'\x40\0\0\0{"columns":[{"name":"key","type":"uint32","offset":0,"length":9}]}  ']
)
def test_a_map_that_is_none(kind, connect, content):
    with pytest.raises(c.HypclipServerError) as caught:
        connect(kind, Script(httpx2.Response(200, content=content))).map()
    assert caught.value.type == "unexpected_answer"
