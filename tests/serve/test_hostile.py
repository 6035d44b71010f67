"""Hostile requests, over real sockets: the server lives, says what is wrong, and answers the next one as before."""

import json
import time
from collections import Counter

import pytest

from tests.support.hostile import payloads as hostile_payloads
from tests.support.hostile.request import check, closing, listening, posted, send
from tests.support.serving import app_at, text_point

COUNT = 300
SLOW_S = 15.0  # of a machine that does other things too; bench_hostile.py names what takes over 2
GOOD = posted({"inputs": ["a dog"]}, Connection="close")
POINT = {"id": "dog", "text": "a dog", "metadata": {"kind": "animal"}}


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    app = app_at(tmp_path_factory.mktemp("serve"), image_url_hosts=(hostile_payloads.ALLOWED_HOST,), access_log=False)
    with listening(app) as port:
        status, *_ = send(port, posted({"points": [POINT]}, "/collections/default/points", "PUT", Connection="close"))
        assert status == 200
        yield port


def test_payloads_are_many_and_different():
    found = list(hostile_payloads.payloads(COUNT))
    assert len({payload.name for payload in found}) == len({payload.raw for payload in found}) == COUNT
    kinds = Counter(payload.name.split(":")[0] for payload in found)
    assert len(kinds) == 24
    assert min(kinds.values()) >= COUNT // 24
    assert [payload.raw for payload in hostile_payloads.payloads(COUNT)] == [payload.raw for payload in found]


@pytest.mark.slow
def test_every_payload_is_answered_and_the_server_goes_on(port):
    wrong = []
    for payload in hostile_payloads.payloads(COUNT):
        begin = time.process_time()
        status, headers, body, _ = send(port, closing(payload.raw))
        seconds = time.process_time() - begin  # of work, for the machine may be busy with other things
        if (fault := check(payload, status, headers, body)) is not None:
            wrong.append(f"{payload.name}: {fault}")
        if seconds > SLOW_S:
            wrong.append(f"{payload.name}: took {seconds:.1f} s")
        status, _, body, _ = send(port, GOOD)
        assert status == 200, payload.name
        embedding = json.loads(body)["data"][0]["embedding"]
        assert embedding == pytest.approx(text_point("a dog").tolist(), rel=1e-6), payload.name
    assert not wrong, "\n".join(wrong)
