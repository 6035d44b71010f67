"""The client, both kinds of it: against the real app with the fake engine, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import base64
import datetime
import email.utils
import inspect
import io
import json
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from serve_helpers import BLUE, GREEN, RED, WHITE, FakeEngine, app_at, colours, encoded, quadrants, text_point

import hypclip.client as c
from hypclip.client import routes
from hypclip.data.picture import to_rgb
from hypclip.geometry import lorentz

CURV, DIM = FakeEngine.curv, FakeEngine.dim


def at(radius: float, angle: float = 0.0) -> list[float]:
    """A point in the first plane."""
    v = torch.zeros(DIM)
    v[0], v[1] = radius * torch.cos(torch.tensor(angle)), radius * torch.sin(torch.tensor(angle))
    return lorentz.exp_map0(v, CURV).tolist()


# Along one ray: animal ⊐ dog ⊐ terrier; cat is another way out, below animal too; car lies on the far side.
PLACES = {"animal": at(0.25, 0.03), "dog": at(1.0), "terrier": at(2.0), "cat": at(1.2, 0.15), "car": at(1.0, 3.0)}
PLACED = [
    {"id": name, **c.point(x), "modality": "text", "metadata": {"length": len(name)}} for name, x in PLACES.items()
]


class Blocking:
    """An AsyncClient behind the methods of a Client, so that one test can do for both."""

    def __init__(self, **options: Any):
        self.client = c.AsyncClient(**options)
        self.runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        return lambda *args, **kwargs: self.runner.run(method(*args, **kwargs))

    def close(self) -> None:
        self.aclose()
        self.runner.close()


BOTH = pytest.mark.parametrize("kind", [c.Client, Blocking], ids=["sync", "async"])


@pytest.fixture
def connect():
    """Make clients over a function from request to response, and close them."""
    made = []

    def make(kind: Any, handler: Any, **options: Any) -> Any:
        made.append(kind(transport=httpx2.MockTransport(handler), **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


def to_app(app: TestClient) -> Any:
    """Hand requests to the app, whose lifespan the test client runs."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        answer = app.send(request)
        return httpx2.Response(answer.status_code, headers=answer.headers, content=answer.content)

    return handle


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with TestClient(app_at(tmp_path_factory.mktemp("serve"), max_inputs=4)) as app:
        assert app.put("/collections/default/points", json={"points": PLACED}).status_code == 200
        yield app


@pytest.fixture(params=[c.Client, Blocking], ids=["sync", "async"])
def client(request, connect, app):
    return connect(request.param, to_app(app))


def ids(page: c.Page) -> list[str]:
    return [hit.id for hit in page.hits]


# Every method, against the real app


def test_embed(client):
    found = client.embed(["a dog", c.image(file_of(quadrants())), c.stored("cat"), c.point(PLACES["dog"])])
    assert [e.modality for e in found] == ["text", "image", "text", "embedding"]
    assert torch.equal(torch.tensor(found[0].embedding), text_point("a dog"))
    assert torch.equal(torch.tensor(found[1].embedding), colours(RED, GREEN, BLUE, WHITE))
    assert found[3].radius == pytest.approx(1.0)


def test_embed_in_another_geometry(client):
    (with_time,) = client.embed([c.point(PLACES["dog"])], geometry="lorentz")
    assert len(with_time.embedding) == DIM + 1


def test_embed_more_than_the_server_takes_at_once(client):
    texts = [f"text {i}" for i in range(9)]
    with pytest.raises(c.InvalidRequest, match="over the limit of 4"):
        client.embed(texts)
    found = client.embed(iter(texts), batch=4)
    assert torch.equal(torch.tensor([e.embedding for e in found]), torch.stack([text_point(text) for text in texts]))


def test_retrieve(client):
    page = client.retrieve(c.stored("dog"), k=2)
    assert ids(page) == ["dog", "cat"]
    assert (page.exact, page.total) == (True, None)
    assert page.hits[0] == c.Hit("dog", 0.0, page.hits[0].radius, "text", {"length": 3})
    assert page.hits[0].radius == pytest.approx(1.0)
    assert ids(client.retrieve(c.stored("dog"), k=1, offset=1)) == ["cat"]


def test_retrieve_with_everything_that_restricts(client):
    query = c.stored("dog")
    near = client.retrieve(query, k=1, max_distance=0.5)
    assert (ids(near), near.total) == (["dog"], 2)
    assert ids(client.retrieve(query, exact=True, min_radius=1.5)) == ["terrier"]
    assert ids(client.retrieve(query, max_radius=0.5)) == ["animal"]
    assert ids(client.retrieve(query, filter={"length": [6, 7]}, modality="text")) == ["animal", "terrier"]
    assert ids(client.retrieve(query, modality="image")) == []


def test_classify_by_labels(client):
    (result,) = client.classify(["x"], labels=("x", "y"), templates=["{}"])
    assert (result.label, result.modality, result.path, result.path_scores) == ("x", "text", None, None)
    assert result.scores["x"] > result.scores["y"]
    assert sum(result.scores.values()) == pytest.approx(1)


def test_classify_by_taxonomy(client):
    edges = [("dog", "animal"), ("cat", "animal")]
    (result,) = client.classify(["a photo of a dog"], taxonomy=iter(edges))
    assert result.label == "dog"
    assert result.path == ["animal", "dog"]


def test_ancestors(client):
    page = client.ancestors(c.stored("terrier"), order_by="radius")
    assert ids(page) == ["animal", "dog"]
    assert page.total == 2
    assert all(hit.margin == pytest.approx(hit.angle - hit.aperture) and hit.margin <= 0 for hit in page.hits)
    assert ids(client.ancestors(c.stored("terrier"), aperture_scale=0.1, min_radius=0.5)) == ["dog"]


def test_descendants(client):
    everything = {"order_by": "distance", "reflexive": True}
    assert ids(client.descendants(c.stored("animal"), **everything)) == ["animal", "dog", "cat", "terrier"]
    assert ids(client.descendants(c.stored("animal"), k=1, offset=1, **everything)) == ["dog"]


def test_common_ancestors(client):
    assert ids(client.common_ancestors([c.stored("terrier"), c.stored("cat")])) == ["animal"]
    assert ids(client.common_ancestors([c.stored("terrier")], k=1, offset=1, aperture_scale=1.0)) == ["animal"]


def test_traverse(client):
    way = client.traverse(c.stored("terrier"))
    assert [stop.id for stop in way.path] == ["dog", "animal", "[ROOT]"]
    assert (way.path[-1].modality, way.exact) == (None, True)
    there = client.traverse(c.stored("dog"), c.stored("car"), steps=None, entailment=False, filter={"length": 3})
    assert [stop.id for stop in there.path][:: len(there.path) - 1] == ["dog", "car"]
    assert there.path[0].t == 0.0


def test_mean(client):
    middle = client.mean([c.stored("dog"), c.stored("dog")])
    assert middle.embedding == pytest.approx(PLACES["dog"], rel=1e-6)
    assert (middle.radius, middle.modality) == (pytest.approx(1.0), "embedding")
    weighed = client.mean([c.stored("dog"), c.stored("cat")], weights=(0, 2))
    assert ids(client.retrieve(c.point(weighed.embedding), k=1)) == ["cat"]


def test_order(client):
    ordering = client.order(c.stored("animal"), c.stored("dog"))
    assert ordering.relation == "general"
    assert ordering.first_over_second <= 0 < ordering.second_over_first
    assert client.order(c.stored("dog"), c.stored("animal"), aperture_scale=1.0).relation == "specific"


def test_put_and_delete_points(client, request):
    name = f"written-{request.node.callspec.id}"
    points = [
        {"id": "text", "text": "a dog"},
        {"id": "image", **c.image(file_of(quadrants())), "metadata": {"é": [1, None]}},
        {"id": "numbers", **c.point(torch.tensor(PLACES["car"]))},
    ]
    assert client.put_points(iter(points), name) == c.Written(upserted=3, count=3)
    assert client.put_points(points, collection=name, batch=2) == c.Written(upserted=3, count=3)
    (hit,) = client.retrieve(c.stored("image"), k=1, collection=name).hits
    assert (hit.modality, hit.metadata) == ("image", {"é": [1, None]})
    assert client.delete_points(["text", "image", "nothing"], name, batch=1) == c.Deleted(deleted=2, count=1)


def test_collections(client):
    found = client.collection()
    assert found == c.CollectionInfo("default", 5, "fake-1", "", CURV, DIM)
    assert found in client.collections()


def test_model(client):
    assert client.model() == c.ModelInfo("fake-1", "lorentz", CURV, DIM, 5.0)


def test_ready(client):
    assert client.ready() is True


def test_both_clients_have_the_same_methods():
    public = {name for name, _ in inspect.getmembers(routes.Routes, inspect.isfunction) if not name.startswith("_")}
    assert len(public) == 15
    for kind in (c.Client, c.AsyncClient):
        for name in public:
            assert inspect.signature(getattr(kind, name)) == inspect.signature(getattr(routes.Routes, name))
            assert getattr(kind, name).__doc__


# Requests


def answer(status: int = 200, body: Any = None, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, headers={k.replace("_", "-"): v for k, v in headers.items()}, json=body)


def error(status: int, type: str = "some_type", message: str = "some message", **headers: str) -> httpx2.Response:
    body = {"error": {"type": type, "message": message, "request_id": "r-1"}}
    return answer(status, body, x_request_id="r-1", **headers)


MODEL = {"model": "m", "geometry": "lorentz", "curv": 1.0, "dim": 2, "logit_scale": 3.0}


class Script:
    """A server that answers with one thing after the other, and remembers the requests."""

    def __init__(self, *answers: Any):
        self.answers, self.requests = list(answers), []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        step = self.answers.pop(0)
        if isinstance(step, Exception):
            step.request = request
            raise step
        return httpx2.Response(step.status_code, headers=step.headers, content=step.content)


WHERE = {"collection": "c", "modality": "text", "filter": {"year": [1]}, "min_radius": 0.5, "max_radius": 2.0}
CONE = {"k": 3, "offset": 2, "aperture_scale": 0.5, **WHERE}
SENT = {
    "embed": ("/embed", {"inputs": ["a"], "geometry": "tangent", "collection": "c"}),
    "retrieve": ("/retrieve", {"query": "a", "k": 3, "offset": 2, "max_distance": 1.5, "exact": True, **WHERE}),
    "classify": ("/classify", {"inputs": ["a"], "labels": ["b"], "templates": ["{}"], "collection": "c"}),
    "ancestors": ("/hierarchy/ancestors", {"of": "a", "reflexive": True, "order_by": "radius", **CONE}),
    "descendants": ("/hierarchy/descendants", {"of": "a", "reflexive": True, "order_by": "radius", **CONE}),
    "common_ancestors": ("/hierarchy/common_ancestors", {"of": ["a"], **CONE}),
    "traverse": (
        "/hierarchy/traverse",
        {"source": "a", "target": "b", "steps": None, "entailment": False, "aperture_scale": 0.5, **WHERE},
    ),
    "mean": ("/hierarchy/mean", {"inputs": ["a"], "weights": [0.5], "collection": "c"}),
    "order": ("/hierarchy/order", {"first": "a", "second": "b", "aperture_scale": 0.5, "collection": "c"}),
}


@BOTH
@pytest.mark.parametrize("name", SENT)
def test_every_argument_is_sent_by_its_name(kind, connect, name):
    path, body = SENT[name]
    server = Script(error(422))
    with pytest.raises(c.InvalidRequest):
        getattr(connect(kind, server), name)(**body)
    (request,) = server.requests
    assert (request.method, request.url.path) == ("POST", path)
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.content) == body


@pytest.mark.parametrize("name", SENT)
def test_the_server_knows_every_argument(client, name):
    _, body = SENT[name]
    of_stored = json.loads(json.dumps(body).replace('"a"', json.dumps(c.stored("x"))))
    with pytest.raises(c.NotFound, match="there is no collection 'c'"):
        getattr(client, name)(**of_stored)


@BOTH
def test_the_key_goes_with_every_request(kind, connect):
    server = Script(answer(body=MODEL))
    connect(kind, server, api_key="secret").model()
    assert server.requests[0].headers["authorization"] == "Bearer secret"


@BOTH
def test_no_key_no_header(kind, connect):
    server = Script(answer(body=MODEL))
    connect(kind, server).model()
    assert "authorization" not in server.requests[0].headers


@BOTH
def test_the_prefix_of_a_proxy_is_kept_and_names_are_quoted(kind, connect):
    server = Script(error(404), error(404))
    client = connect(kind, server, base_url="https://proxy.test/hyp/")
    for name in ("a/b?c", "é"):
        with pytest.raises(c.NotFound):
            client.collection(name)
    assert [str(r.url) for r in server.requests] == [
        "https://proxy.test/hyp/collections/a%2Fb%3Fc",
        "https://proxy.test/hyp/collections/%C3%A9",
    ]


@BOTH
@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_is_a_step_in_a_path(kind, connect, name):
    with pytest.raises(ValueError, match="a collection has a name"):
        connect(kind, Script()).delete_points(["1"], name)


@BOTH
@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.embed("a dog"),
        lambda client: client.embed({"text": "a dog"}),
        lambda client: client.classify("a dog", labels=["x"]),
        lambda client: client.classify(["a dog"], labels="x"),
        lambda client: client.mean("a dog"),
        lambda client: client.common_ancestors("a dog"),
        lambda client: client.delete_points("1"),
    ],
)
def test_one_where_several_are_wanted(kind, connect, call):
    with pytest.raises(TypeError, match=r"must be several, in a list or another iterable; came one (str|dict)"):
        call(connect(kind, Script()))


@BOTH
def test_what_json_cannot_say(kind, connect):
    with pytest.raises(ValueError, match="not JSON compliant"):
        connect(kind, Script()).embed([c.point([float("nan")])])


def test_no_items_are_for_the_server_to_refuse(client):
    with pytest.raises(c.InvalidRequest, match="points: List should have at least 1 item"):
        client.put_points([])


@BOTH
def test_requests_stay_under_the_size_that_a_server_takes(kind, connect, monkeypatch):
    monkeypatch.setattr(routes, "_MAX_CHARS", 100)
    server = Script(*[answer(body={"upserted": n, "count": 7}) for n in (1, 2, 1)])
    big, small = {"id": "b", "text": "x" * 200}, {"id": "s", "text": "x" * 20}
    assert connect(kind, server).put_points([big, small, small, small]).upserted == 4
    assert [len(json.loads(r.content)["points"]) for r in server.requests] == [1, 2, 1]


@BOTH
@pytest.mark.parametrize("url", ["localhost:8000", "ftp://server.test", ""])
def test_a_url_that_cannot_work(kind, url):
    with pytest.raises(ValueError, match="base_url must begin with http:// or https://, not '"):
        kind(base_url=url)


@BOTH
def test_limits_that_cannot_work(kind, connect):
    for wrong in ({"timeout_s": 0.0}, {"retries": -1}):
        with pytest.raises(ValueError, match="timeout_s must be over 0 and retries 0 or more"):
            connect(kind, Script(), **wrong)


# Answers


@BOTH
def test_fields_of_a_newer_server_are_passed_over_or_read(kind, connect):
    row = {"index": 0, "modality": "text", "label": "b", "scores": {"b": 1.0}, "new": [1]}
    body = {"model": "m", "data": [{**row, "path": ["root", "a"], "path_scores": [1.0, 0.5]}], "new": {}}
    (result,) = connect(kind, Script(answer(body=body))).classify(["x"], taxonomy=[("a", "root"), ("b", "a")])
    assert result == c.ClassResult("b", {"b": 1.0}, "text", ["root", "a"], [1.0, 0.5])


@BOTH
def test_the_index_of_a_collection(kind, connect):
    index = {"cells": 2, "probes": 1, "recall": 0.99, "built_at": 7}
    info = {"name": "n", "count": 1, "model": "m", "revision": "", "curv": 1.0, "dim": 2, "index": {**index, "new": 0}}
    assert connect(kind, Script(answer(body=info))).collection("n").index == c.IndexInfo(**index)


@BOTH
@pytest.mark.parametrize(
    "wrong", [httpx2.Response(200, text="<html>welcome"), answer(body={"model": "m"}), answer(body=[1]), answer(body=7)]
)
def test_an_answer_of_another_server(kind, connect, wrong):
    with pytest.raises(c.HypclipServerError, match="GET /model is not answered as by a hypclip server") as caught:
        connect(kind, Script(wrong)).model()
    assert (caught.value.status, caught.value.type) == (200, "unexpected_answer")


# Errors


@BOTH
@pytest.mark.parametrize(
    "status, error_class",
    [
        (400, c.InvalidRequest),
        (401, c.Unauthorized),
        (403, c.Unauthorized),
        (404, c.NotFound),
        (409, c.Conflict),
        (413, c.InvalidRequest),
        (422, c.InvalidRequest),
        (429, c.Overloaded),
        (500, c.HypclipServerError),
        (503, c.Unavailable),
        (504, c.DeadlineExceeded),
    ],
)
def test_every_status_has_its_error(kind, connect, status, error_class):
    with pytest.raises(c.HypclipServerError) as caught:
        connect(kind, Script(error(status)), retries=0).model()
    raised = caught.value
    assert type(raised) is error_class
    assert (raised.status, raised.type, raised.message, raised.request_id) == (
        status,
        "some_type",
        "some message",
        "r-1",
    )
    assert str(raised) == f"{status} some_type: some message (request r-1)"
    copy = pickle.loads(pickle.dumps(raised))
    assert type(copy) is error_class
    assert str(copy) == str(raised)


def test_the_errors_of_the_real_server(client):
    with pytest.raises(c.NotFound) as caught:
        client.retrieve("a dog", collection="nowhere")
    assert caught.value.type == "unknown_collection"
    assert caught.value.request_id
    with pytest.raises(c.InvalidRequest, match="kk: Extra inputs are not permitted"):
        client.retrieve("a dog", kk=3)


@BOTH
@pytest.mark.parametrize(
    "response, message",
    [
        (httpx2.Response(502, text="<h1>bad gateway</h1>"), "<h1>bad gateway</h1>"),
        (httpx2.Response(502), "Bad Gateway"),
        (answer(502, {"error": "down"}), '{"error":"down"}'),
        (answer(502, ["down"]), '["down"]'),
        (httpx2.Response(307, headers={"location": "http://elsewhere.test"}), "Temporary Redirect"),
    ],
)
def test_an_error_of_a_proxy(kind, connect, response, message):
    server = Script(response)
    with pytest.raises(c.HypclipServerError) as caught:
        connect(kind, server, api_key="secret").model()
    assert type(caught.value) is c.HypclipServerError
    assert (caught.value.type, caught.value.message) == ("http_error", message)
    assert str(caught.value).endswith("(request without an id)")
    assert len(server.requests) == 1


@BOTH
def test_the_connection_is_cut(kind, connect):
    server = Script(httpx2.ReadError("connection reset"))
    client = connect(kind, server, base_url="http://name:secret@server.test:1")
    with pytest.raises(c.NoAnswer, match=r"POST /retrieve at server.test:1: ReadError: connection reset") as caught:
        client.retrieve("a dog")
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value, ConnectionError)
    assert len(server.requests) == 1


@BOTH
def test_nobody_listens(kind):
    with socket.socket() as bound:  # and never listens
        bound.bind(("127.0.0.1", 0))
        client = kind(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}", retries=0)
        with pytest.raises(c.NoAnswer, match="ConnectError"):
            client.model()
        assert client.ready() is False
        client.close()


@BOTH
def test_the_server_does_not_answer_in_time(kind):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        client = kind(base_url=f"http://127.0.0.1:{deaf.getsockname()[1]}", timeout_s=0.1)
        with pytest.raises(c.NoAnswer, match=r"GET /model at 127.0.0.1:.*: ReadTimeout"):
            client.model()
        client.close()


# Retries


@pytest.fixture
def pauses(monkeypatch):
    """Let no time pass; what each client would have waited."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("time.sleep", waited.append)
    monkeypatch.setattr(anyio, "sleep", sleep)
    return waited


@BOTH
@pytest.mark.parametrize("refusal", [error(429, Retry_After="2"), error(503, Retry_After="2")], ids=["429", "503"])
def test_the_pause_the_server_asks_for(kind, connect, pauses, refusal):
    server = Script(refusal, refusal, answer(body={"upserted": 1, "count": 1}))
    assert connect(kind, server).put_points([{"id": "1", "text": "é"}]) == c.Written(1, 1)
    assert len(pauses) == 2
    assert all(2 <= pause <= 2.5 for pause in pauses)
    assert {r.content for r in server.requests} == {'{"points":[{"id":"1","text":"é"}]}'.encode()}


@BOTH
def test_a_date_to_come_back_at(kind, connect, pauses):
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=10)
    past = soon - datetime.timedelta(hours=1)
    dates = [email.utils.format_datetime(date, usegmt=True) for date in (soon, past)]
    connect(kind, Script(*[error(503, Retry_After=date) for date in dates], answer(body=MODEL))).model()
    assert 8 < pauses[0] < 12.5
    assert pauses[1] == 0


@BOTH
@pytest.mark.parametrize(
    "trouble",
    [
        lambda: httpx2.ConnectError("refused"),
        lambda: httpx2.ConnectTimeout("slow"),
        lambda: error(503),
        lambda: error(429, Retry_After="soon"),
    ],
)
def test_pauses_double_where_the_server_does_not_say(kind, connect, pauses, trouble):
    assert connect(kind, Script(trouble(), trouble(), trouble(), answer(body=MODEL))).model().model == "m"
    assert [round(pause / first) for pause, first in zip(pauses, (0.25, 0.5, 1.0), strict=True)] == [1, 1, 1]


@BOTH
def test_it_gives_up_after_so_many_retries(kind, connect, pauses):
    server = Script(*[error(429, Retry_After="0")] * 3)
    with pytest.raises(c.Overloaded):
        connect(kind, server, retries=2).model()
    assert len(server.requests) == 3
    assert len(pauses) == 2


@BOTH
def test_it_does_not_wait_longer_than_it_may(kind, connect, pauses):
    server = Script(error(503, Retry_After="3600"))
    with pytest.raises(c.Unavailable):
        connect(kind, server, timeout_s=60.0).model()
    assert pauses == []


@BOTH
@pytest.mark.parametrize(
    "trouble", [lambda: error(500), lambda: error(504), lambda: error(422), lambda: httpx2.ReadTimeout("slow")]
)
def test_nothing_else_is_tried_again(kind, connect, pauses, trouble):
    server = Script(trouble())
    with pytest.raises((c.HypclipServerError, c.NoAnswer)):
        connect(kind, server).model()
    assert pauses == []


@BOTH
def test_an_error_between_two_batches(kind, connect):
    server = Script(answer(body={"upserted": 1, "count": 1}), error(422))
    with pytest.raises(c.InvalidRequest):
        connect(kind, server).put_points([{"id": "1"}, {"id": "2"}, {"id": "3"}], batch=1)
    assert len(server.requests) == 2


@BOTH
def test_readiness_is_asked_for_once(kind, connect, pauses):
    client = connect(kind, Script(error(503), httpx2.ConnectError("refused"), answer(body={"status": "ready"})))
    assert [client.ready() for _ in range(3)] == [False, False, True]
    assert pauses == []


@BOTH
def test_not_allowed_to_ask_for_readiness(kind, connect):
    with pytest.raises(c.Unauthorized):
        connect(kind, Script(error(401))).ready()


# Connections


def test_with_closes():
    with c.Client(transport=httpx2.MockTransport(Script(answer(body=MODEL)))) as client:
        client.model()
    with pytest.raises(RuntimeError, match="closed"):
        client.model()


def test_async_with_closes():
    async def run() -> None:
        async with c.AsyncClient(transport=httpx2.MockTransport(Script(answer(body=MODEL)))) as client:
            await client.model()
        with pytest.raises(RuntimeError, match="closed"):
            await client.model()

    asyncio.run(run())


# Items


def file_of(picture: Any, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def seen(item: dict[str, str]) -> Any:
    """What the server sees of a picture."""
    return to_rgb(Image.open(io.BytesIO(base64.b64decode(item["image"]))))


def test_a_picture_in_a_file(tmp_path):
    (tmp_path / "a.png").write_bytes(file_of(quadrants()))
    expected = {"image": encoded(quadrants())}
    assert c.image(tmp_path / "a.png") == c.image(str(tmp_path / "a.png")) == c.image(file_of(quadrants())) == expected
    with pytest.raises(FileNotFoundError):
        c.image(tmp_path / "b.png")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "1", "CMYK", "YCbCr", "HSV", "F"])
def test_a_picture_in_memory(mode):
    picture = quadrants().convert(mode)
    torch.testing.assert_close(pixels(seen(c.image(picture))), pixels(to_rgb(picture)))


def test_a_picture_in_memory_is_turned_as_its_file_is(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    quadrants().save(tmp_path / "a.jpg", exif=turned)
    with Image.open(tmp_path / "a.jpg") as picture:
        in_memory = seen(c.image(picture))
    assert in_memory.size == (48, 64)
    assert torch.equal(pixels(in_memory), pixels(seen(c.image(tmp_path / "a.jpg"))))


def pixels(picture: Any) -> torch.Tensor:
    return torch.tensor(list(picture.convert("RGB").tobytes()))


def test_the_folder_works_without_hypclip(tmp_path):
    source = Path(c.__file__).parent
    copy = tmp_path / "copied"
    copy.mkdir()
    for file in source.glob("*.py"):
        (copy / file.name).write_text(file.read_text())
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import copied; copied.Client().close(); "
        "print([m for m in ('hypclip', 'torch', 'numpy', 'PIL', 'pydantic') if m in sys.modules])"
    )
    run = [sys.executable, "-I", "-c", program, str(tmp_path)]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "[]\n"
