"""train/embed.py into an index that holds points already: the same data, other data of equal keys, another model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hypclip import checkpoint
from hypclip.search.local.store import LocalStore
from hypclip.search.qdrant.store import QdrantStore
from hypclip.search.types import Points
from tests.support.data import encoded, pair, quadrants, write_tar
from tests.support.models import tiny_encoder
from train.embed import main


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("checkpoint", "other")):
        with checkpoint.atomic_directory(root / name) as target:
            checkpoint.save(tiny_encoder(seed), target)
    return root


def shard(path: Path, **captions: str) -> Path:
    """Write a shard of a picture and a caption a key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tar(path, [entry for key, text in captions.items() for entry in pair(key, text)])
    return path


@pytest.fixture
def call(models: Path, tmp_path: Path) -> Any:
    def embed(*arguments: object, model: str = "checkpoint", index: str = "index") -> int:
        given = ["--checkpoint", models / model, "--index", tmp_path / index, *arguments]
        return main([*map(str, given)])

    return embed


def points_in(index: Path) -> dict[str, tuple[list[float], dict[str, Any]]]:
    with LocalStore(index) as store:
        return {
            point_id: (vector, dict(more))
            for block in store.scan("default")
            for point_id, vector, more in zip(block.ids, block.vectors.tolist(), block.metadata, strict=True)
        }


def captions(index: Path) -> dict[str, Any]:
    return {point_id: more.get("caption") for point_id, (_, more) in points_in(index).items()}


# Other data of equal keys ---------------------------------------------------------------------------------------------


@pytest.fixture
def first(call: Any, tmp_path: Path) -> Path:
    """An index of the shard a/0.tar, whose keys b/0.tar has too."""
    a = shard(tmp_path / "a" / "0.tar", k0="a dog", k1="a cat")
    shard(tmp_path / "b" / "0.tar", k1="a car", k2="a bus")
    assert call("--shards", a) == 0
    return tmp_path / "index"


def test_other_data_is_refused_with_both_ways_out_and_nothing_is_written(
    call: Any, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = points_in(first)
    assert call("--shards", tmp_path / "b") == 1
    said = capsys.readouterr().err
    assert "collection 'default' has other points of the same ids already, 2 of them, such as 'k1/image', " in said
    assert f"which came from {tmp_path}/a/0.tar and comes now from {tmp_path}/b/0.tar; nothing was written" in said
    assert "--prefix TEXT" in said
    assert "--replace" in said
    assert points_in(first) == before


def test_a_prefix_keeps_both(call: Any, first: Path, tmp_path: Path) -> None:
    before = points_in(first)
    assert call("--shards", tmp_path / "b") == 1
    assert call("--shards", tmp_path / "b", "--prefix", "b/") == 0
    found = points_in(first)
    assert {point_id: found[point_id] for point_id in before} == before
    assert captions(first) == {
        "k0/image": "a dog", "k0/text": "a dog", "k1/image": "a cat", "k1/text": "a cat",
        "b/k1/image": "a car", "b/k1/text": "a car", "b/k2/image": "a bus", "b/k2/text": "a bus",
    }  # fmt: skip
    assert not (first / "parts").exists()
    assert call("--shards", tmp_path / "b", "--prefix", "b/") == 0
    assert points_in(first) == found


def test_replace_takes_the_places_and_owns_them(call: Any, first: Path, tmp_path: Path) -> None:
    assert call("--shards", tmp_path / "b", "--replace") == 0
    assert captions(first)["k1/text"] == "a car"
    assert captions(first)["k0/text"] == "a dog"
    assert call("--shards", tmp_path / "b") == 0
    assert call("--shards", tmp_path / "a") == 1


def test_pictures_of_classes_of_the_same_names_are_other_data(
    call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for data, colour in (("a", "red"), ("b", "blue")):
        (tmp_path / data / "images" / "dog").mkdir(parents=True)
        Image.new("RGB", (20, 20), colour).save(tmp_path / data / "images" / "dog" / "1.png")
        (tmp_path / data / "classes.json").write_text(json.dumps({"dog": "dog"}))
    words = {d: ["--images", tmp_path / d / "images", "--classes", tmp_path / d / "classes.json"] for d in "ab"}
    assert call(*words["a"]) == 0
    assert call(*words["a"]) == 0
    assert call(*words["b"]) == 1
    assert "1 of them, such as 'dog/1.png', which came from" in capsys.readouterr().err
    assert call(*words["b"], "--prefix", "b:") == 0
    assert points_in(tmp_path / "index").keys() == {"dog/1.png", "dog/dog", "b:dog/1.png", "b:dog/dog"}


def test_files_of_classes_of_one_name_keep_their_parts(models: Path, tmp_path: Path) -> None:
    """Two data sets into one folder of Parquet files."""
    for data, word in (("a", "hound"), ("b", "wolf")):
        (tmp_path / data / "images" / "dog").mkdir(parents=True)
        (tmp_path / data / "images" / "dog" / "1.png").write_bytes(encoded(quadrants()))
        (tmp_path / data / "classes.json").write_text(json.dumps({"dog": word}))
        words = ["--images", tmp_path / data / "images", "--classes", tmp_path / data / "classes.json"]
        assert main([*map(str, ["--checkpoint", models / "checkpoint", "--parquet", tmp_path / "parts", *words])]) == 0
    ids = [i for file in (tmp_path / "parts").iterdir() for i in pq.read_table(file)["id"].to_pylist()]
    assert sorted(ids) == ["dog/1.png", "dog/1.png", "dog/hound", "dog/wolf"]


def test_points_that_someone_else_put_there_are_other_data(
    call: Any, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LocalStore(first) as store:
        mine = store.get("default", ["k0/text"])
        store.upsert("default", Points(mine.ids, mine.vectors, mine.modality, [{"caption": "mine"}]))
    assert call("--shards", tmp_path / "a") == 1
    assert "1 of them, such as 'k0/text', which came from other data" in capsys.readouterr().err
    assert captions(first)["k0/text"] == "mine"


# The same data --------------------------------------------------------------------------------------------------------


def test_the_same_data_may_change(call: Any, first: Path, tmp_path: Path) -> None:
    shard(tmp_path / "a" / "0.tar", k0="a big dog", k1="a cat")
    assert call("--shards", tmp_path / "a") == 0
    assert captions(first)["k0/text"] == "a big dog"
    shard(tmp_path / "a" / "0.tar", k0="a huge dog", k1="a cat")
    assert call("--shards", tmp_path / "a") == 0
    assert captions(first)["k0/text"] == "a huge dog"


def test_the_same_data_may_move(call: Any, first: Path, tmp_path: Path) -> None:
    (tmp_path / "a").rename(tmp_path / "moved")
    before = points_in(first)
    assert call("--shards", tmp_path / "moved", "--batch-size", 1) == 0
    assert points_in(first).keys() == before.keys()


def test_an_index_whose_sources_are_not_known_takes_the_same_data(call: Any, first: Path, tmp_path: Path) -> None:
    """As one that an earlier version has made."""
    (first / "sources.sqlite3").unlink()
    assert call("--shards", tmp_path / "a") == 0
    shard(tmp_path / "a" / "0.tar", k0="a big dog", k1="a cat")
    assert call("--shards", tmp_path / "a") == 0  # known again
    assert captions(first)["k0/text"] == "a big dog"


def test_parquet_files_say_what_they_were_made_of(
    models: Path, call: Any, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed = ["--checkpoint", models / "checkpoint", "--parquet", tmp_path / "parts", "--shards"]
    shard(tmp_path / "a" / "0.tar", k0="a big dog", k1="a cat")
    assert main([*map(str, [*embed, tmp_path / "a"])]) == 0
    (part,) = (tmp_path / "parts").iterdir()
    elsewhere = part.rename(tmp_path / "elsewhere.parquet")
    assert call("--from-parquet", elsewhere) == 0
    assert captions(first)["k0/text"] == "a big dog"
    assert main([*map(str, [*embed, tmp_path / "b"])]) == 0
    assert call("--from-parquet", tmp_path / "parts") == 1
    assert f"which came from {tmp_path}/a/0.tar and comes now from {tmp_path}/b/0.tar" in capsys.readouterr().err
    assert call("--from-parquet", tmp_path / "parts", "--prefix", "b/") == 0
    assert {"k1/text", "b/k1/text"} <= points_in(first).keys()


def test_a_prefix_is_for_the_import(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--checkpoint",
        models / "checkpoint",
        "--parquet",
        tmp_path / "parts",
        "--shards",
        "x.tar",
        "--prefix",
        "b",
    ]
    assert main([*map(str, words)]) == 1
    assert "--prefix is for the import of the files: give it with --from-parquet" in capsys.readouterr().err


def test_a_mistake_in_the_last_file_is_found_before_the_first_is_written(
    models: Path, call: Any, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = points_in(first)
    c = shard(tmp_path / "c.tar", k8="a hat", k9="a cap")
    words = ["--checkpoint", models / "checkpoint", "--parquet", tmp_path / "parts", "--shards", c]
    assert main([*map(str, words)]) == 0
    table = pq.read_table(next((tmp_path / "parts").iterdir()))
    pq.write_table(table, tmp_path / "1.parquet")
    broken = table.set_column(4, "metadata", [["{"] * table.num_rows]).set_column(0, "id", [["x", "y", "z", "w"]])
    pq.write_table(broken.replace_schema_metadata(table.schema.metadata), tmp_path / "2.parquet")
    assert call("--from-parquet", tmp_path / "1.parquet", tmp_path / "2.parquet") == 1
    assert "2.parquet: the metadata of point 'x' is not JSON" in capsys.readouterr().err
    assert points_in(first) == before
    assert call("--from-parquet", tmp_path / "2.parquet", index="new") == 1
    assert not (tmp_path / "new").exists()


# A Qdrant keeps no sources --------------------------------------------------------------------------------------------


def test_a_qdrant_takes_the_same_points_and_no_others(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard(tmp_path / "a" / "0.tar", k0="a dog")
    shard(tmp_path / "b" / "0.tar", k0="a car")
    url = f"path:{tmp_path / 'qdrant'}"
    words = ["--checkpoint", models / "checkpoint", "--qdrant", url, "--work", tmp_path / "work", "--shards"]

    def embed(*more: object) -> int:
        return main([*map(str, [*words, *more])])

    def caption() -> str:
        with QdrantStore.connect(url) as store:
            return str(store.get("default", ["k0/text"]).metadata[0]["caption"])

    assert embed(tmp_path / "a") == 0
    assert embed(tmp_path / "a") == 0
    assert embed(tmp_path / "b") == 1
    said = capsys.readouterr().err
    assert "2 of them, such as 'k0/image', which came from other data, or from an earlier state" in said
    assert caption() == "a dog"
    assert embed(tmp_path / "b", "--replace") == 0
    assert caption() == "a car"


# Another model --------------------------------------------------------------------------------------------------------


def test_replace_moves_the_index_of_another_model(
    call: Any, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = points_in(first)
    assert call("--shards", tmp_path / "a", model="other") == 1
    assert points_in(first) == before
    assert call("--shards", tmp_path / "a", "--replace", model="other") == 0
    (aside,) = tmp_path.glob("index.*")
    assert f"the index of another model that was in {first} is now {aside}\n" in capsys.readouterr().out
    assert points_in(aside) == before
    assert points_in(first).keys() == before.keys()
    assert points_in(first) != before
    assert call("--shards", tmp_path / "a", "--replace", model="other") == 0
    assert len(list(tmp_path.glob("index.*"))) == 1


def test_other_collections_are_not_moved_along(
    call: Any, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--shards", tmp_path / "a", "--collection", "more") == 0
    assert call("--shards", tmp_path / "a", "--replace", model="other") == 1
    assert "index holds other collections too (more), which --replace would move" in capsys.readouterr().err
    assert list(tmp_path.glob("index.*")) == []


def test_replace_moves_parts_of_another_model(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = shard(tmp_path / "a.tar", k0="a dog")
    words = ["--parquet", tmp_path / "parts", "--shards", a, "--checkpoint"]
    assert main([*map(str, [*words, models / "checkpoint"])]) == 0
    (part,) = (tmp_path / "parts").iterdir()
    content = part.read_bytes()
    assert main([*map(str, [*words, models / "other"])]) == 1
    assert part.read_bytes() == content
    assert "add --replace" in capsys.readouterr().err
    assert main([*map(str, [*words, models / "other", "--replace"])]) == 0
    (aside,) = tmp_path.glob("parts.*")
    assert (aside / part.name).read_bytes() == content


def test_a_shard_of_another_time_is_the_same_data(call: Any, first: Path, tmp_path: Path) -> None:
    os.utime(tmp_path / "a" / "0.tar", (0, 0))
    assert call("--shards", tmp_path / "a") == 0


def test_points_of_a_shard_that_has_gone_bad_are_kept(models: Path, tmp_path: Path) -> None:
    a = shard(tmp_path / "a.tar", k0="a dog")
    words = [*map(str, ["--parquet", tmp_path / "parts", "--shards", a, "--checkpoint", models / "checkpoint"])]
    assert main(words) == 0
    before = [part.name for part in (tmp_path / "parts").iterdir()]
    a.write_bytes(b"no tar file" * 1000)
    assert main(words) == 1
    assert [part.name for part in (tmp_path / "parts").iterdir()] == before


# Columns of other tools -----------------------------------------------------------------------------------------------


def test_columns_of_other_tools_are_kept_or_named_once(
    call: Any, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dim = len(next(iter(points_in(first).values()))[0])
    vectors = pa.array([[0.5] * dim], pa.list_(pa.float64()))
    pq.write_table(pa.table({"id": ["x"], "vector": vectors, "url": ["u"], "jpg": [b"1"]}), tmp_path / "x.parquet")
    assert call("--from-parquet", tmp_path / "x.parquet") == 0
    assert points_in(first)["x"] == ([0.5] * dim, {"url": "u"})
    said = capsys.readouterr().err
    assert said.count("not kept as metadata") == 1
    assert f"warning: {tmp_path}/x.parquet: not kept as metadata: 'jpg' (binary)\n" in said


# Files to import ------------------------------------------------------------------------------------------------------


def foreign(path: Path, key: str, name: str = "id") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({name: [key], "vector": pa.array([[0.5] * 16], pa.list_(pa.float64()))}), path)
    return path


def test_a_folder_is_its_files_hidden_ones_aside(call: Any, tmp_path: Path) -> None:
    foreign(tmp_path / "given" / "0.parquet", "x")
    (tmp_path / "given" / "._0.parquet").write_bytes(b"of macOS")
    assert call("--from-parquet", tmp_path / "given") == 0
    assert points_in(tmp_path / "index").keys() == {"x"}


def test_files_in_folders_of_a_folder_are_named_and_not_left_out(
    call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign(tmp_path / "given" / "0.parquet", "x")
    below = foreign(tmp_path / "given" / "part=1" / "0.parquet", "y")
    assert call("--from-parquet", tmp_path / "given") == 1
    assert f"{tmp_path}/given has .parquet files in folders in it, such as {below}: give" in capsys.readouterr().err
    assert call("--from-parquet", tmp_path / "given" / "0.parquet", below.parent) == 0
    assert points_in(tmp_path / "index").keys() == {"x", "y"}


def test_a_column_of_another_name_is_pointed_at(call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--from-parquet", foreign(tmp_path / "x.parquet", "x", "key")) == 1
    wanted = "x.parquet needs a column 'id': its columns are key, vector; rename 'key' to it, if that is what it holds"
    assert wanted in capsys.readouterr().err
