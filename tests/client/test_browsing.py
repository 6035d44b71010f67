"""The calls that browse, of both kinds of client, against the real app with the fake engine."""

from __future__ import annotations

import io
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import hypclip.client as c
from tests.support.client import BOTH, Blocking, Script, answer, clients
from tests.support.serving import app_at, encoded, quadrants, text_point

HOSTILE = ["../../x", "a/b", "a%2Fb", "a\nb", "\u202eabc", "x" * 512, "0001/image", "a?b#c&d=e+f g", "%", "x/thumbnail"]


@pytest.fixture
def connect():
    with clients() as make:
        yield make


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with TestClient(app_at(tmp_path_factory.mktemp("serve"))) as app:
        texts = [{"id": f"t{i}", "text": f"text {i}", "metadata": {"i": i, "even": i % 2 == 0}} for i in range(10)]
        pictures = [{"id": point_id, "image": encoded(quadrants())} for point_id in HOSTILE]
        assert app.put("/collections/default/points", json={"points": [*texts, *pictures]}).status_code == 200
        assert app.put("/collections/other/points", json={"points": texts[:2]}).status_code == 200
        yield app


@pytest.fixture(params=[c.Client, Blocking], ids=["sync", "async"])
def client(request, connect, app):
    def handle(asked: httpx2.Request) -> httpx2.Response:
        found = app.send(asked)
        return httpx2.Response(found.status_code, headers=found.headers, content=found.content)

    return connect(request.param, handle)


def ids(points: list[c.Point]) -> list[str]:
    return [point.id for point in points]


def test_points_page_by_page(client):
    found: list[c.Point] = []
    page = client.points("radius", k=6)
    assert page.total == 10 + len(HOSTILE)
    while True:
        found += page.points
        if page.next is None:
            break
        page = client.points("radius", k=6, after=page.next)
    assert len(set(ids(found))) == page.total
    assert [point.radius for point in found] == sorted(point.radius for point in found)
    assert {point.id for point in found if point.thumbnail} == set(HOSTILE)


def test_some_of_the_points(client):
    where: dict[str, Any] = {"filter": {"i": {"lt": 5}, "even": True}, "modality": "text", "min_radius": 0.0}
    assert ids(client.points(**where).points) == ["t0", "t2", "t4"]
    assert ids(client.points(collection="other", max_radius=100).points) == ["t0", "t1"]
    with pytest.raises(c.InvalidRequest, match="yaer"):
        client.points(filter={"yaer": 1})
    with pytest.raises(c.InvalidRequest, match="after"):
        client.points(after="x")


def test_a_point(client):
    found = client.point("t3")
    assert (found.id, found.modality, found.metadata, found.embedding) == ("t3", "text", {"i": 3, "even": False}, None)
    assert client.point("t3", vector=True).embedding == pytest.approx(text_point("text 3").tolist())
    assert client.point("t1", "other").id == "t1"
    with pytest.raises(c.NotFound) as caught:
        client.point("t3", "nowhere")
    assert caught.value.type == "unknown_collection"
    for point_id in HOSTILE:
        assert client.point(point_id).id == point_id


@pytest.mark.parametrize("point_id", ["", ".", ".."])
def test_an_id_that_is_a_step_in_a_path(client, point_id):
    with pytest.raises(ValueError, match="lookup"):
        client.point(point_id)


def test_lookup(client):
    assert ids(client.lookup(["t3", "absent", *HOSTILE], batch=4)) == ["t3", *HOSTILE]
    keys = [point.key for point in client.lookup(["t1", "t2"])]
    assert ids(client.lookup(keys=iter(keys))) == ["t1", "t2"]
    for given in ({}, {"ids": ["a"], "keys": [1]}, {"ids": "t3"}):
        with pytest.raises(TypeError):
            client.lookup(**given)


def test_fields(client):
    found = client.fields("other")
    assert found.modalities == {"text": 2, "image": 0, "embedding": 0}
    assert found.sampled is None
    assert found.fields[0] == c.FieldInfo("i", 2, [(0, 1), (1, 1)], 2, 0, 1)
    assert found.fields[1].values == [(False, 1), (True, 1)]


def test_thumbnails(client):
    found = client.thumbnails([*HOSTILE, "t1", "absent"], batch=3)
    assert found.keys() == set(HOSTILE)
    assert client.thumbnails(["t1"], "other") == {}
    made = found["a/b"]
    image = Image.open(io.BytesIO(made.data))
    assert (image.format, image.size) == ("WEBP", (made.width, made.height))


@BOTH
@pytest.mark.parametrize(
    "content", [b"", b"\x05\0\0\0[]", b'\x24\0\0\0{"thumbnails":[{"id":"a","width":1}]}', b"\xff\xff\xff\xff{}"]
)
def test_thumbnails_that_are_none(kind, connect, content):
    broken = answer(200)
    server = Script(httpx2.Response(200, headers=broken.headers, content=content))
    with pytest.raises(c.HypclipServerError) as caught:
        connect(kind, server).thumbnails(["a"])
    assert caught.value.type == "unexpected_answer"
