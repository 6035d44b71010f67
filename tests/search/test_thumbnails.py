"""Thumbnails: small and clean files, kept beside the index, gone with their points."""

import io
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from PIL import Image

from hypclip.errors import StoreError
from hypclip.search import LocalStore
from hypclip.search.thumbnails import Original, Thumbnail, ThumbnailFile, make_thumbnail, sweep
from tests.support.search import SPACE, points, run_together, unchecked
from tests.support.serving import quadrants

IDS = ["../../x", "a/b", "a%2Fb", "a\nb", "\u202eabc", "x" * 512, "a\0b", "a\0c", "'; DROP TABLE thumbnails; --", "é"]


def thumbnail(text: str) -> Thumbnail:
    return Thumbnail(text.encode(), 3, 2)


@pytest.fixture
def kept(tmp_path):
    made = ThumbnailFile(tmp_path / "thumbnails.sqlite3")
    yield made
    made.close()


@pytest.mark.parametrize(
    "size, expected", [((640, 480), (160, 120)), ((30, 20), (30, 20)), ((1, 100), (1, 100)), ((4000, 41), (160, 2))]
)
def test_a_thumbnail_is_webp_of_at_most_160_pixels(size, expected):
    made = make_thumbnail(quadrants(size))
    image = Image.open(io.BytesIO(made.data))
    assert image.format == "WEBP"
    assert image.size == (made.width, made.height) == expected
    assert make_thumbnail(quadrants((640, 480)), 32).width == 32


def test_nothing_of_the_image_but_its_pixels_is_in_a_thumbnail():
    image = quadrants((64, 64))
    image.info |= {"exif": b"Exif\0\0SECRET", "icc_profile": b"SECRET", "xmp": b"SECRET", "comment": b"SECRET"}
    made = make_thumbnail(image)
    assert b"SECRET" not in made.data
    assert not {"exif", "icc_profile", "xmp"} & Image.open(io.BytesIO(made.data)).info.keys()
    assert image.size == (64, 64)


def test_thumbnails_come_back_by_collection_and_id(kept, tmp_path):
    assert kept.get("c", ["a"]) == {}
    kept.delete("c", ["a"])
    kept.put("c", {"a": None})
    assert not kept.file.exists()
    kept.put("c", {point_id: thumbnail(point_id) for point_id in IDS})
    kept.put("d", {"a/b": thumbnail("other")})
    assert kept.get("c", [*IDS, "absent"]) == {point_id: thumbnail(point_id) for point_id in IDS}
    assert kept.known("c", [*IDS, "absent"]) == set(IDS)
    kept.put("c", {"a/b": thumbnail("new"), "é": None})
    kept.delete("c", ["a\0b", "absent"])
    assert kept.known("c", IDS) == set(IDS) - {"é", "a\0b"}
    assert kept.get("c", ["a/b"])["a/b"].data == b"new"
    other = ThumbnailFile(kept.file)  # of another process
    assert other.get("d", ["a/b"]) == {"a/b": thumbnail("other")}
    other.put("d", {"more": thumbnail("more")})
    other.close()
    assert kept.known("d", ["more"]) == {"more"}


def test_the_place_of_an_original_goes_with_its_point(kept):
    places = {"a": Original("/x/a.png"), "b": Original("/x/0.tar", 512, 77)}
    kept.put("c", {"a": thumbnail("a"), "b": None, "t": None}, places)
    assert kept.originals("c", ["a", "b", "t"]) == places
    kept.put("c", {"a": thumbnail("of a client")})
    kept.delete("c", ["b"])
    assert kept.originals("c", ["a", "b"]) == {}


def test_a_put_is_all_or_nothing(kept):
    kept.put("c", {"a": thumbnail("old")})
    with unchecked(), pytest.raises(StoreError):
        kept.put("c", {"a": thumbnail("new"), "b": Thumbnail(None, 1, 1)})  # type: ignore[arg-type]
    assert kept.get("c", ["a", "b"]) == {"a": thumbnail("old")}


def test_threads_share_a_file(kept):
    def write(n: int) -> None:
        for i in range(20):
            kept.put("c", {f"{n} {i}": thumbnail(f"{n} {i}")})
            assert kept.known("c", [f"{n} {i}"])

    run_together(*(lambda n=n: write(n) for n in range(4)))
    assert len(kept.known("c", [f"{n} {i}" for n in range(4) for i in range(20)])) == 80


def test_a_file_of_something_else_is_refused(tmp_path):
    file = tmp_path / "thumbnails.sqlite3"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(StoreError, match="no file of thumbnails"):
        ThumbnailFile(file)
    file.write_bytes(b"no database at all, but long enough to be taken for one" * 30)
    with pytest.raises(StoreError, match="thumbnails"):
        ThumbnailFile(file)


def test_what_has_no_point_is_swept_once_it_is_old(kept, tmp_path):
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", SPACE)
        store.upsert("c", points(["a", "b"]))
        for name in ("c", "gone"):
            kept.put(name, {point_id: thumbnail(point_id) for point_id in ("a", "orphan")})
        kept.put("gone", {"placed": None}, {"placed": Original("/x/a.png")})
        assert sweep(kept, store) == 0
        assert sweep(kept, store, -1.0, stop=lambda: True) == 0
        assert sweep(kept, store, -1.0) == 4
        assert kept.known("c", ["a", "orphan"]) == {"a"}
        assert kept.known("gone", ["a", "orphan"]) == set()
        assert kept.originals("gone", ["placed"]) == {}


WRITER = """
import sys
from hypclip.search.thumbnails import Thumbnail, ThumbnailFile
kept = ThumbnailFile(sys.argv[1])
for i in range(10**9):
    kept.put("c", {f"{i} {j}": Thumbnail(b"x" * 4000, 1, 1) for j in range(20)})
    print(i, flush=True)
"""


@pytest.mark.slow
def test_what_was_written_survives_a_kill(tmp_path):
    file = tmp_path / "thumbnails.sqlite3"
    last = -1
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            acknowledged = int(writer.stdout.readline())
            time.sleep(0.2)
            os.kill(writer.pid, signal.SIGKILL)
            acknowledged = max([acknowledged, *(int(line) for line in writer.stdout if line.strip().isdigit())])
        last = max(last, acknowledged)
        kept = ThumbnailFile(file)
        ids = [f"{i} {j}" for i in range(last + 2) for j in range(20)]
        there = kept.known("c", ids)
        kept.close()
        assert there >= set(ids[: 20 * (last + 1)])
        assert len(there) % 20 == 0
