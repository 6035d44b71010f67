"""What train/embed.py keeps of images to show them: thumbnails, and where their files are."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hypclip.errors import DataError
from hypclip.indexing import parquet
from hypclip.indexing.shown import COLUMNS, Reader
from hypclip.search.local.store import LocalStore
from hypclip.search.thumbnails import FILE, ThumbnailFile
from serve.inputs.originals import read_original
from serve.settings import Settings
from tests.support.embedding import call, count_embedded, ids_of, make_folder, points_in
from train.embed import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("embed"))


def kept(index: Path, ids: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the thumbnails and the places of originals of points."""
    file = ThumbnailFile(index / FILE)
    found = file.get("default", ids), file.originals("default", ids)
    file.close()
    return found


def test_images_of_shards_and_folders_have_thumbnails(folder: Path, tmp_path: Path) -> None:
    arguments = ["--shards", folder / "pairs", "--images", folder / "images", "--classes", folder / "classes.json"]
    assert call(folder, "--index", tmp_path / "index", *arguments, "--media-root", folder / "pairs") == 0
    points = points_in(tmp_path / "index")
    thumbnails, originals = kept(tmp_path / "index", list(points))
    assert thumbnails.keys() == {point_id for point_id, (_, modality, _) in points.items() if modality == "image"}
    image = Image.open(io.BytesIO(thumbnails["a/1.png"].data)).convert("RGB")
    assert image.size == (20, 20)
    red, green, _ = image.getpixel((10, 10))  # type: ignore[misc]
    assert red > 200 > 60 > green
    assert originals.keys() == {point_id for point_id in ids_of(*range(12)) if point_id.endswith("/image")}
    data = read_original(folder / "pairs", originals["0003/image"], Settings())
    assert data is not None
    original = Image.open(io.BytesIO(data))
    assert original.size == (thumbnails["0003/image"].width, thumbnails["0003/image"].height)
    assert not (tmp_path / "index" / "parts").exists()


def test_none_are_made_where_none_are_wanted(folder: Path, tmp_path: Path) -> None:
    arguments = ["--index", tmp_path / "index", "--images", folder / "images", "--classes", folder / "classes.json"]
    assert call(folder, *arguments, "--thumbnails", 0) == 0
    assert not (tmp_path / "index" / FILE).exists()
    assert call(folder, *arguments, "--thumbnails", 7) == 0
    assert kept(tmp_path / "index", ["a/1.png"])[0]["a/1.png"].width == 7
    assert call(folder, *arguments, "--thumbnails", 0) == 0  # a point that is written again has what it has now
    assert kept(tmp_path / "index", ["a/1.png"]) == ({}, {})
    assert call(folder, *arguments, "--thumbnails", -1) == 1


def test_thumbnails_wait_in_the_parquet_files(folder: Path, tmp_path: Path) -> None:
    assert call(folder, "--parquet", tmp_path / "parts", "--shards", folder / "pairs") == 0
    files = sorted((tmp_path / "parts").iterdir())
    assert [file.suffix for file in files] == [".parquet"] * 3
    thumbnails, _ = Reader(files[0], "x/").take(["x/0000/image", "x/0000/text", "x/absent"])
    assert {point_id for point_id, made in thumbnails.items() if made is not None} == {"x/0000/image"}
    index = ["--from-parquet", str(tmp_path / "parts"), "--index", str(tmp_path / "index"), "--prefix", "x/"]
    assert main(index) == 0
    images = {f"x/{point_id}" for point_id in ids_of(*range(12)) if point_id.endswith("/image")}
    assert kept(tmp_path / "index", list(images))[0].keys() == images
    with LocalStore(tmp_path / "index") as store:
        (point,) = store.browse("default").by_ids(["x/0000/image"])
        assert point.metadata.keys() == {"caption"}


def test_what_is_no_thumbnail_in_a_file_from_elsewhere_is_left_out(folder: Path, tmp_path: Path) -> None:
    assert call(folder, "--parquet", tmp_path / "parts", "--shards", folder / "pairs", "--samples", 1) == 0
    (part,) = (tmp_path / "parts").iterdir()
    table = pq.read_table(part)
    hostile = [b"<svg onload='alert(1)'/>", b"RIFF"]
    places = ['["../../etc/passwd"]', "no JSON"]
    for name, values in zip(COLUMNS, (hostile, places), strict=True):
        column = table.schema.get_field_index(name)
        table = table.set_column(column, table.schema.field(name), pa.array(values))
    pq.write_table(table, part)
    assert main(["--from-parquet", str(part), "--index", str(tmp_path / "index")]) == 0
    assert kept(tmp_path / "index", list(ids_of(0))) == ({}, {})


def test_a_run_that_was_stopped_goes_on_with_the_thumbnails_it_had(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = parquet.write_points

    def stopped(file: Path, *rest: Any) -> int:
        if file.name.startswith("001-"):
            raise DataError("stopped")
        return write(file, *rest)

    arguments = ["--index", tmp_path / "index", "--shards", folder / "pairs"]
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "write_points", stopped)
        assert call(folder, *arguments) == 1
    made = count_embedded(monkeypatch)
    assert call(folder, *arguments) == 0
    assert made == [5]
    images = {point_id for point_id in ids_of(*range(12)) if point_id.endswith("/image")}
    assert kept(tmp_path / "index", list(images))[0].keys() == images


def test_the_points_of_the_demo_say_what_they_are(folder: Path, tmp_path: Path) -> None:
    classes = tmp_path / "classes.json"
    classes.write_text(json.dumps({"a": ["red apple", "apple"], "b": "kangaroo"}))
    arguments = ["--images", folder / "images", "--classes", classes, "--taxonomy", "emoji"]
    assert call(folder, "--index", tmp_path / "index", *arguments) == 0
    with LocalStore(tmp_path / "index") as store:
        found = {point.id: dict(point.metadata) for point in store.browse("default").page(k=1000).points}
        fields = {field.name: field for field in store.browse("default").fields().fields}
    assert found["a/1.png"] == {"class": "red apple", "kind": "drawing", "family": "food", "kind_of": "a fruit"}
    assert found["a/apple"] == {
        "class": "red apple", "text": "apple", "kind": "name", "family": "food", "kind_of": "a fruit",
    }  # fmt: skip
    assert found["b/kangaroo"]["family"] == "an animal"
    assert found["concept/a fruit"] == {
        "phrase": "a fruit", "level": 1, "text": "a fruit", "kind": "kind", "family": "food", "kind_of": "food",
    }  # fmt: skip
    assert found["concept/food"] == {"phrase": "food", "level": 0, "text": "food", "kind": "family"}
    assert dict(fields["kind"].values) == {"kind": 65, "family": 11, "name": 3, "drawing": 2}
