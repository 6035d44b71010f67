"""Points of a server as a process: hostile ids over a socket, and thumbnails under `kill -9`."""

from __future__ import annotations

import contextlib
import io
import itertools
import signal
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx2
import pytest
import torch
from PIL import Image

from hypclip.client import Client
from hypclip.search import LocalStore
from hypclip.search.thumbnails import FILE, ThumbnailFile
from tests.support.processes import Nursery, eventually
from tests.support.serving import assert_error, corners, encoded, quadrants

pytestmark = pytest.mark.slow


@pytest.fixture
def fake(tmp_path):
    """Start servers with a fake model, which takes no time."""
    nursery = Nursery()
    with contextlib.ExitStack() as stack:
        stack.callback(nursery.close)

        def start():
            server = nursery.start(["--index", str(tmp_path / "index"), "--create-index"], tmp_path / "log", fake=True)
            stack.callback(server.end)
            return server.wait_until_ready()

        yield start


HOSTILE = [
    "../../x",
    "a/b",
    "a%2Fb",
    "a\nb",
    "\u202eabc",
    "x" * 512,
    "0001/image",
    "x/thumbnail",
    "a?b#c&d=e+f g",
    "é/名",
]


def test_hostile_ids_come_back_over_a_socket(fake):
    server = fake()
    points = [{"id": each, "image": encoded(quadrants((20, 20)))} for each in HOSTILE]
    with Client(server.url) as client:
        client.put_points(points)
        for each in HOSTILE:
            assert client.point(each).id == each
            path = f"/collections/default/points/{quote(each, safe='')}/thumbnail"
            assert server.client.get(path).headers["content-type"] == "image/webp"
        assert [point.id for point in client.lookup(HOSTILE)] == HOSTILE
        assert client.thumbnails(HOSTILE).keys() == set(HOSTILE)
    hostile = server.client.get("/model", headers={"Host": "evil.example"})
    assert_error(hostile, 421, "unknown_host", "evil.example")


def colours_of(name: str) -> tuple[tuple[int, int, int], ...]:
    """Four dark or bright colours that hardly any other name has."""
    bits = [255 if digit == "1" else 0 for digit in f"{hash(name) & 4095:012b}"]
    return tuple(tuple(bits[i : i + 3]) for i in range(0, 12, 3))  # type: ignore[misc]


def test_every_image_that_is_there_has_its_thumbnail(fake, tmp_path):
    acknowledged = set()

    def write(server, name):
        with server.new_client() as client, contextlib.suppress(httpx2.TransportError):
            for i in itertools.count():
                ids = [f"{name} {i} {j}" for j in range(3)]
                points = [{"id": each, "image": encoded(quadrants((64, 64), colours_of(each)))} for each in ids]
                points.append({"id": f"{name} text", "text": f"{i}"})
                answer = client.put("/collections/default/points", json={"points": points})
                assert answer.status_code == 200, answer.text
                acknowledged.update(ids)

    def write_until_killed(turn):
        server = fake()
        goal = len(acknowledged) + 40
        with ThreadPoolExecutor(3) as threads:
            writing = [threads.submit(write, server, f"{turn} {i}") for i in range(3)]
            eventually(lambda: len(acknowledged) >= goal or any(each.done() for each in writing), "writes")
            server.send_signal(signal.SIGKILL)
            for each in writing:
                each.result()
        assert server.exit_code() == -signal.SIGKILL

    for turn in range(3):
        write_until_killed(turn)
        kept = ThumbnailFile(tmp_path / "index" / FILE)
        with LocalStore(tmp_path / "index") as store, contextlib.closing(kept):
            for block in store.scan("default"):
                made = kept.get("default", block.ids)
                assert made.keys() == {i for i, m in zip(block.ids, block.modality, strict=True) if m == "image"}
                for point_id, vector in zip(block.ids, block.vectors, strict=True):
                    if point_id in made:
                        image = Image.open(io.BytesIO(made[point_id].data)).convert("RGB")
                        torch.testing.assert_close(corners(image), vector, atol=0.2, rtol=0)
            assert store.browse("default").known(list(acknowledged)) == acknowledged
    assert len(acknowledged) >= 120
