"""What the clients send of values that are no JSON: numbers of numpy as numbers; the rest is refused before."""

import base64
import datetime
import json

import numpy as np
import pytest
import torch
from PIL import Image

import hypclip.client as c
from tests.support.client import BOTH, Script, answer, clients
from tests.support.search import unchecked


@pytest.mark.parametrize(
    "embedding",
    [[1, 2.5], (1, 2.5), np.array([1, 2.5]), np.array([1, 2.5], np.float32), torch.tensor([1, 2.5]), iter([1, 2.5])],
    ids=lambda value: type(value).__name__,
)
def test_a_point_in_every_form(embedding):
    assert c.point(embedding) == {"embedding": [1.0, 2.5]}
    assert {type(x) for x in c.point([np.float32(1), 2])["embedding"]} == {float}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((1, 3)), r"not shape \(1, 3\), of which x\[0\] is the first"),
        (torch.zeros(2, 3), r"not shape \(2, 3\)"),
        ("abc", "not str"),
        ({"embedding": [1.0]}, "not dict"),
        (np.float32(1), "not float32"),
        (None, "not NoneType"),
    ],
    ids=str,
)
def test_what_is_no_point_is_refused(wrong, message):
    with unchecked(), pytest.raises(TypeError, match=f"a point is one row of numbers, {message}"):
        c.point(wrong)


@BOTH
def test_numbers_of_numpy_are_numbers(kind):
    script = Script(answer(body={"upserted": 1, "count": 1}))
    metadata = {"year": np.int64(2024), "score": np.float32(0.5), "seen": np.bool_(True), "name": np.str_("a")}
    with clients() as connect:
        connect(kind, script).put_points([{"id": np.str_("p"), "text": "a", "metadata": metadata}])
    (point,) = json.loads(script.requests[0].content)["points"]
    assert point == {"id": "p", "text": "a", "metadata": {"year": 2024, "score": 0.5, "seen": True, "name": "a"}}


@BOTH
@pytest.mark.parametrize(
    "value",
    [Image.new("L", (1, 1)), np.zeros(3), torch.zeros(3), b"bytes", datetime.date(2024, 1, 1), {1}],
    ids=lambda value: type(value).__name__,
)
def test_values_that_are_no_items_are_refused_by_their_type(kind, value):
    script = Script()
    message = f"a {type(value).__name__} cannot be sent: an item is a text or what "
    with clients() as connect:
        client = connect(kind, script)
        for call in (
            lambda: client.embed([value]),
            lambda: client.retrieve(value),
            lambda: client.put_points([{"id": "p", "text": "a", "metadata": {"v": value}}]),
        ):
            with unchecked(), pytest.raises(TypeError, match=message):
                call()
    assert not script.requests


PNG = base64.b64encode(np.random.default_rng(0).bytes(300)).decode()


@pytest.mark.parametrize(
    "source", [PNG, f" data:image/png;base64,{PNG}", "\nHTTPS://pictures.test/a.png"], ids=lambda s: s[:9]
)
def test_what_is_for_the_server_to_read_goes_as_it_is(source):
    """A text of 300 characters is no name of a file, which the system said in its own words."""
    assert c.image(source) == {"image": source}


@pytest.mark.parametrize("source", ["", "s3://bucket/a.png", "ftp://host/a.png", "file:///tmp/a.png"])
def test_addresses_that_nobody_reads_are_refused(source):
    with pytest.raises(ValueError, match=f"an http or https URL, a data URI or base64, not '{source}'"):
        c.image(source)


def test_names_may_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "~$a.png", tmp_path / "home" / "b.png"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(path.name.encode())
    assert c.image("~$a.png") == {"image": base64.b64encode(b"~$a.png").decode()}
    assert c.image("~/b.png") == {"image": base64.b64encode(b"b.png").decode()}
    with pytest.raises(FileNotFoundError):
        c.image("~nobody-here/b.png")


@BOTH
def test_points_before_the_name_of_their_collection(kind):
    with clients() as connect, unchecked():
        for call in ("put_points", "delete_points"):
            with pytest.raises(TypeError, match="a collection is named by a string such as 'default', not list"):
                getattr(connect(kind, Script()), call)("things", ["a"])
