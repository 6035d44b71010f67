"""Thumbnails over HTTP: made of what is written, sent in one body or as a file, gone with the point."""

from __future__ import annotations

import base64
import io
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from hypclip.errors import StoreError
from hypclip.search import LocalStore
from hypclip.search.thumbnails import FILE, Original, Thumbnail, ThumbnailFile
from serve.app import create_app
from serve.settings import Settings
from tests.support.serving import GREEN, RED, FakeEngine, app_at, assert_error, corners, encoded, quadrants

HOSTILE = ["../../x", "a/b", "a%2Fb", "a\nb", "\u202eabc", "x" * 512, "0001/image", "x/thumbnail", "a\0b", "%"]
PATH = "/collections/default"


@pytest.fixture
def client(tmp_path):
    with TestClient(app_at(tmp_path)) as client:
        yield client


def put(client, *points):
    response = client.put(f"{PATH}/points", json={"points": points})
    assert response.status_code == 200, response.text


def picture(point_id, image=None, **options):
    return {"id": point_id, "image": encoded(image or quadrants((320, 240)), **options)}


def file_of(client, point_id, **headers):
    return client.get(f"{PATH}/points/{quote(point_id, safe='')}/thumbnail", headers=headers)


def together(client, ids):
    response = client.post(f"{PATH}/thumbnails", json={"ids": ids})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/octet-stream"
    length = int.from_bytes(response.content[:4], "little")
    assert length % 4 == 0
    header, files = json.loads(response.content[4 : 4 + length]), response.content[4 + length :]
    assert sum(row["length"] for row in header["thumbnails"]) == len(files)
    return {row["id"]: (row, files[row["offset"] :][: row["length"]]) for row in header["thumbnails"]}


def shown(client):
    return {p["id"] for p in client.get(f"{PATH}/points").json()["points"] if p["thumbnail"]}


def test_an_image_that_is_written_has_a_thumbnail(client):
    embedding = [0.1] * FakeEngine.dim
    put(client, picture("p"), {"id": "t", "text": "a"}, {"id": "e", "embedding": embedding, "modality": "image"})
    assert shown(client) == {"p"}
    assert client.get(f"{PATH}/points/p").json()["thumbnail"] is True
    ((row, data),) = together(client, ["t", "p", "absent", "p"]).values()
    assert (row["id"], row["width"], row["height"]) == ("p", 160, 120)
    response = file_of(client, "p")
    assert response.content == data
    assert response.headers["content-type"] == "image/webp"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"] == "default-src 'none'; sandbox"
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.size) == ("WEBP", (160, 120))
    red, green, *_ = image.convert("RGB").getpixel((20, 20))
    assert red > 200 > 60 > green
    for absent in ("t", "absent"):
        assert_error(file_of(client, absent), 404, "unknown_image", absent)


def test_who_has_a_thumbnail_is_not_sent_it_again(client):
    put(client, picture("p"))
    tag = file_of(client, "p").headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        response = file_of(client, "p", **{"If-None-Match": known})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == tag
    put(client, picture("p", quadrants((320, 240), (GREEN,) * 4)))
    response = file_of(client, "p", **{"If-None-Match": tag})
    assert response.status_code == 200
    assert response.headers["etag"] != tag


def test_a_thumbnail_is_turned_upright_and_has_nothing_else_of_the_file(client):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "SECRET"
    point = picture("p", quadrants((320, 240)), format="JPEG", exif=exif.tobytes(), comment=b"SECRET")
    assert b"SECRET" in base64.b64decode(point["image"])
    put(client, point)
    data = file_of(client, "p").content
    assert b"SECRET" not in data
    assert Image.open(io.BytesIO(data)).size == (120, 160)


def test_hostile_ids_come_back(client):
    put(client, *(picture(point_id) for point_id in HOSTILE))
    assert together(client, HOSTILE).keys() == set(HOSTILE)
    for point_id in HOSTILE:
        assert file_of(client, point_id).status_code == 200, point_id
    assert client.get(f"{PATH}/points/x%2Fthumbnail").json()["id"] == "x/thumbnail"
    assert_error(client.get(f"{PATH}/points/x/thumbnail"), 404, "unknown_image", "'x'")


def test_a_point_that_is_replaced_or_deleted_loses_its_thumbnail(client):
    put(client, picture("a"), picture("b"), picture("c"))
    before = file_of(client, "c").content
    put(client, {"id": "a", "text": "a text now"}, picture("c", quadrants((320, 240), (RED,) * 4)))
    client.request("DELETE", f"{PATH}/points", json={"ids": ["b"]})
    assert shown(client) == {"c"}
    assert together(client, ["a", "b", "c"]).keys() == {"c"}
    assert file_of(client, "c").content != before
    put(client, {"id": "b", "text": "another"})
    assert together(client, ["b"]) == {}


def test_a_thumbnail_without_a_point_is_not_shown_and_goes_in_time(tmp_path, monkeypatch):
    with TestClient(app_at(tmp_path)) as client:
        put(client, picture("p"))
    kept = ThumbnailFile(tmp_path / "index" / FILE)
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: 0.0)  # of long ago
        kept.put("default", {"orphan": Thumbnail(b"x", 1, 1)})
    with TestClient(app_at(tmp_path)) as client:
        assert together(client, ["orphan", "p"]).keys() == {"p"}
        assert_error(file_of(client, "orphan"), 404, "unknown_image")
    assert kept.known("default", ["orphan", "p"]) == {"p"}
    kept.close()


def test_a_write_that_fails_leaves_no_thumbnail_of_what_was_not_written(tmp_path):
    class Full(LocalStore):
        full = False

        def upsert(self, name, points):
            if self.full:
                raise StoreError("the disk is full")
            super().upsert(name, points)

    kept = ThumbnailFile(tmp_path / FILE)
    with (
        Full(tmp_path, create=True) as store,
        TestClient(create_app(Settings(), FakeEngine(), store, thumbnails=kept)) as client,
    ):
        put(client, picture("old"))
        store.full = True
        response = client.put(f"{PATH}/points", json={"points": [picture("old", quadrants((9, 9))), picture("new")]})
        assert response.status_code == 500
        assert kept.known("default", ["old", "new"]) == set()


def test_writes_of_one_id_at_the_same_time_leave_the_thumbnail_of_the_point(tmp_path):
    class Slow(LocalStore):
        def upsert(self, name, points):
            time.sleep(0.02 * random.random())
            super().upsert(name, points)

    kept = ThumbnailFile(tmp_path / FILE)
    app = create_app(Settings(), FakeEngine(), Slow(tmp_path, create=True), thumbnails=kept)
    with TestClient(app) as client, ThreadPoolExecutor(4) as threads:
        for _ in range(5):
            images = [picture("p", quadrants((32, 32), (colour,) * 4)) for colour in (RED, GREEN) * 4]
            list(threads.map(lambda point: put(client, point), images))
            point = client.get(f"{PATH}/points/p", params={"vector": True}).json()["embedding"]
            image = Image.open(io.BytesIO(file_of(client, "p").content)).convert("RGB")
            assert corners(image).tolist() == pytest.approx(point, abs=0.1)


def test_the_size_is_a_setting_and_none_are_made_without(tmp_path):
    with TestClient(app_at(tmp_path, thumbnails=32)) as client:
        put(client, picture("p"))
        assert together(client, ["p"])["p"][0]["width"] == 32
    with TestClient(app_at(tmp_path, thumbnails=0)) as client:
        assert shown(client) == set()
        assert together(client, ["p"]) == {}
        assert_error(file_of(client, "p"), 404, "unknown_image")


def test_points_in_qdrant_have_thumbnails_where_there_is_a_folder(tmp_path):
    for folder, expected in ((tmp_path, {"p"}), (tmp_path / "none", set())):
        with TestClient(create_app(Settings(qdrant_url=":memory:", index=folder), FakeEngine())) as client:
            put(client, picture("p"))
            assert together(client, ["p"]).keys() == shown(client) == expected
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("body", [{}, {"ids": []}, {"ids": ["a"] * 257}, {"ids": [""]}, {"ids": ["\ud800"]}])
def test_ids_that_are_none_or_too_many_are_refused(client, body):
    put(client, picture("p"))
    response = client.post(f"{PATH}/thumbnails", content=json.dumps(body), headers={"content-type": "application/json"})
    assert_error(response, 422, "invalid_request")


def test_a_collection_that_is_not_there_is_404(client):
    assert_error(client.post("/collections/nope/thumbnails", json={"ids": ["a"]}), 404, "unknown_collection", "nope")
    assert_error(client.get("/collections/nope/points/a/thumbnail"), 404, "unknown_collection", "nope")


def original_of(client, point_id, **headers):
    return client.get(f"{PATH}/points/{quote(point_id, safe='')}/image", headers=headers)


def test_an_original_is_shown_where_there_is_a_media_root(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    (media / "a.png").write_bytes(base64.b64decode(encoded(quadrants((300, 200)))))
    (media / "a.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    (tmp_path / "secret.png").write_bytes((media / "a.png").read_bytes())
    kept = ThumbnailFile(tmp_path / FILE)
    store = LocalStore(tmp_path, create=True)
    app = create_app(Settings(media_root=media), FakeEngine(), store, thumbnails=kept)
    with TestClient(app) as client:
        put(client, *(picture(i) for i in ("a/b", "svg", "out", "gone", "of a client")))
        places = {"a/b": "a.png", "svg": "a.svg", "out": "../secret.png", "gone": "gone.png", "orphan": "a.png"}
        kept.put("default", dict.fromkeys(places), {i: Original(file) for i, file in places.items()})
        response = original_of(client, "a/b")
        assert response.headers["content-type"] == "image/webp"
        assert response.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert Image.open(io.BytesIO(response.content)).size == (300, 200)
        assert original_of(client, "a/b", **{"If-None-Match": response.headers["etag"]}).status_code == 304
        for point_id in ("out", "gone", "of a client", "orphan", "absent"):
            assert_error(original_of(client, point_id), 404, "unknown_image")
        assert_error(original_of(client, "svg"), 422, "invalid_image")
        put(client, picture("a/b"))  # which is of a client now
        assert_error(original_of(client, "a/b"), 404, "unknown_image")


def test_no_original_is_shown_without_a_media_root(tmp_path):
    (tmp_path / "a.png").write_bytes(base64.b64decode(encoded(quadrants())))
    with TestClient(app_at(tmp_path)) as client:
        put(client, picture("a"))
        kept = ThumbnailFile(tmp_path / "index" / FILE)
        kept.put("default", {"a": None}, {"a": Original("a.png")})
        kept.close()
        assert_error(original_of(client, "a"), 404, "unknown_image")
