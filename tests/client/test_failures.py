"""The client, both kinds of it, against servers that misbehave: odd answers, errors, and what is tried again."""

from __future__ import annotations

import datetime
import email.utils
import pickle
import socket

import anyio
import httpx2
import pytest

import hypclip.client as c
from tests.support.client import BOTH, MODEL, Script, answer, clients, error


@pytest.fixture
def connect():
    with clients() as make:
        yield make


# Answers


MOVED = "it sends on to http://elsewhere.test: is that the right base_url?"


@BOTH
def test_fields_of_a_newer_server_are_passed_over_or_read(kind, connect):
    row = {"index": 0, "modality": "text", "label": "b", "scores": {"b": 1.0}, "new": [1]}
    body = {"model": "m", "data": [{**row, "path": ["root", "a"], "path_scores": [1.0, 0.5]}], "new": {}}
    (result,) = connect(kind, Script(answer(body=body))).classify(["x"], taxonomy=[("a", "root"), ("b", "a")])
    assert result == c.Classified("b", {"b": 1.0}, "text", ["root", "a"], [1.0, 0.5])


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


@BOTH
@pytest.mark.parametrize(
    "response, message",
    [
        (httpx2.Response(502, text="<h1>bad gateway</h1>"), "<h1>bad gateway</h1>"),
        (httpx2.Response(502), "Bad Gateway"),
        (answer(502, {"error": "down"}), '{"error":"down"}'),
        (answer(502, ["down"]), '["down"]'),
        (httpx2.Response(307, headers={"location": "http://elsewhere.test"}), MOVED),
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
