"""The client, both kinds of it: every method against the real app with the fake engine, and what it sends."""

from __future__ import annotations

import asyncio
import base64
import inspect
import io
import json
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

import hypclip.client as c
from hypclip.client import routes
from hypclip.client.rgb import to_rgb
from hypclip.geometry import lorentz, planes
from hypclip.geometry.entailment import Plane
from tests.support.client import BOTH, MODEL, Blocking, Script, answer, clients, error
from tests.support.search import unchecked
from tests.support.serving import BLUE, GREEN, RED, WHITE, FakeEngine, app_at, colours, encoded, quadrants, text_point

CURV, DIM = FakeEngine.curv, FakeEngine.dim
CONES = {"form": "cone", "eta": 1.0, "min_radius": 0.1}


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


@pytest.fixture
def connect():
    with clients() as make:
        yield make


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
    counts = {"text": 5, "image": 0, "embedding": 0}
    assert found == c.CollectionInfo("default", 5, "fake-1", "", CURV, DIM, entailment=CONES, counts=counts)
    assert found in client.collections()


def test_model(client):
    assert client.model() == c.ModelInfo("fake-1", "lorentz", CURV, DIM, 5.0, CONES)


def test_a_rule_of_its_own(client):
    plane: c.PlaneRule = {"form": "plane", "threshold": 0.1}
    up = client.ancestors(c.stored("terrier"), rule=plane)
    assert ids(up) == ["animal", "dog", "cat"]
    assert [hit.aperture for hit in up.hits] == [pytest.approx(torch.pi / 2)] * 3
    dog, terrier = torch.tensor(PLACES["dog"]), torch.tensor(PLACES["terrier"])
    assert up.hits[1].margin == pytest.approx(0.1 - float(planes.height(dog, terrier, CURV)), abs=1e-6)
    assert ids(client.descendants(c.stored("cat"), rule=plane)) == ["terrier"]
    assert ids(client.common_ancestors([c.stored("terrier"), c.stored("cat")], rule=plane)) == ["dog", "animal"]
    assert client.traverse(c.stored("terrier"), rule=plane).path[0].id == "cat"
    ordering = client.order(c.stored("cat"), c.stored("terrier"), rule=plane)
    assert (ordering.relation, ordering.first_over_second) == ("general", pytest.approx(up.hits[2].margin))
    assert client.order(c.stored("cat"), c.stored("terrier")).relation == "neither"
    again = client.ancestors(c.stored("terrier"), rule=client.model().entailment)
    assert again == client.ancestors(c.stored("terrier"))
    wide = client.order(c.stored("cat"), c.stored("terrier"), rule=c.ConeRule(form="cone", eta=np.float32(20)))
    assert wide.relation == "general"


def test_a_rule_that_is_none(client):
    with pytest.raises(c.InvalidRequest, match=r"rule: expected an object of form 'cone'.* or 'plane'"):
        client.ancestors("a", rule={"form": "ball"})
    with pytest.raises(c.InvalidRequest, match=r"rule\.min_radius: Input should be greater than 0"):
        client.order("a", "b", rule={"form": "cone", "min_radius": 0})
    with unchecked(), pytest.raises(TypeError, match=r"a Plane cannot be sent.* a rule is a mapping such as"):
        client.order("a", "b", rule=Plane(0.1))


def test_ready(client):
    assert client.ready() is True


def test_both_clients_have_the_same_methods():
    public = {name for name, _ in inspect.getmembers(routes.Routes, inspect.isfunction) if not name.startswith("_")}
    assert len(public) == 23
    for kind in (c.Client, c.AsyncClient):
        for name in public:
            assert inspect.signature(getattr(kind, name)) == inspect.signature(getattr(routes.Routes, name))
            assert getattr(kind, name).__doc__


def test_the_errors_of_the_real_server(client):
    with pytest.raises(c.NotFound) as caught:
        client.retrieve("a dog", collection="nowhere")
    assert caught.value.type == "unknown_collection"
    assert caught.value.request_id
    with pytest.raises(c.InvalidRequest, match="kk: Extra inputs are not permitted"):
        client.retrieve("a dog", kk=3)


# Requests


RULE = {"form": "cone", "eta": 0.5, "min_radius": 0.2}
WHERE = {"collection": "c", "modality": "text", "filter": {"year": [1]}, "min_radius": 0.5, "max_radius": 2.0}
CONE = {"k": 3, "offset": 2, "aperture_scale": 0.5, "rule": RULE, **WHERE}
SENT = {
    "embed": ("/embed", {"inputs": ["a"], "geometry": "tangent", "collection": "c"}),
    "retrieve": ("/retrieve", {"query": "a", "k": 3, "offset": 2, "max_distance": 1.5, "exact": True, **WHERE}),
    "classify": ("/classify", {"inputs": ["a"], "labels": ["b"], "templates": ["{}"], "collection": "c"}),
    "ancestors": ("/hierarchy/ancestors", {"of": "a", "reflexive": True, "order_by": "radius", **CONE}),
    "descendants": ("/hierarchy/descendants", {"of": "a", "reflexive": True, "order_by": "radius", **CONE}),
    "common_ancestors": ("/hierarchy/common_ancestors", {"of": ["a"], **CONE}),
    "traverse": (
        "/hierarchy/traverse",
        {"source": "a", "target": "b", "steps": None, "entailment": True, "aperture_scale": 0.5, "rule": RULE, **WHERE},
    ),
    "mean": ("/hierarchy/mean", {"inputs": ["a"], "weights": [0.5], "collection": "c"}),
    "order": (
        "/hierarchy/order",
        {"first": "a", "second": "b", "aperture_scale": 0.5, "rule": RULE, "collection": "c"},
    ),
}
WITHOUT_A_RULE = {
    "ancestors": ["a"],
    "descendants": ["a"],
    "common_ancestors": [["a"]],
    "traverse": ["a"],
    "order": ["a", "b"],
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


@BOTH
@pytest.mark.parametrize("name", WITHOUT_A_RULE)
def test_a_server_of_before_is_not_told_of_rules(kind, connect, name):
    server = Script(error(422))
    with pytest.raises(c.InvalidRequest):
        getattr(connect(kind, server), name)(*WITHOUT_A_RULE[name])
    (request,) = server.requests
    assert "rule" not in json.loads(request.content)


@BOTH
def test_a_server_of_before_has_no_rule(kind, connect):
    assert connect(kind, Script(answer(200, MODEL))).model().entailment is None


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
    with pytest.raises(ValueError, match="numbers that are NaN or infinite, and what contains itself, cannot be sent"):
        connect(kind, Script()).embed([c.point([float("nan")])])
    with pytest.raises(ValueError, match="a text is not valid Unicode, and cannot be sent"):
        connect(kind, Script()).embed(["a dog \ud83d"])


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
    for wrong in ({"timeout_s": 0.0}, {"retries": -1}, {"timeout_s": None}, {"timeout_s": "3"}, {"retries": 1.5}):
        message = "timeout_s must be a number over 0 and retries a whole number of 0 or more"
        with unchecked(), pytest.raises(ValueError, match=message):
            connect(kind, Script(), **wrong)


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
    """What the server sees of an image."""
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
