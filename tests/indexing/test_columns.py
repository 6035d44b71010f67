"""Columns of other tools' Parquet files: what becomes metadata, and what is named because it cannot."""

from __future__ import annotations

import datetime
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hypclip.errors import DataError
from hypclip.indexing.parquet import read_points
from hypclip.search.local.store import LocalStore
from hypclip.search.space import Space
from hypclip.search.types import MAX_METADATA_BYTES
from hypclip.search.where import Where

SPACE = Space("model-a", 1.0, 3)


def write(path: Path, rows: int = 2, names: list[str] | None = None, **columns: Any) -> Path:
    own = {"id": [f"p{i}" for i in range(rows)], "vector": pa.array([[0.5, 0.0, 1.0]] * rows, pa.list_(pa.float32()))}
    table = pa.table({**own, **columns})
    pq.write_table(table.rename_columns(names) if names else table, path)
    return path


def read(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    told: list[str] = []
    metadata = [dict(m) for block in read_points(path, 1, SPACE, told.append) for m in block.metadata]
    return metadata, told


def test_columns_of_downloaders_become_metadata(tmp_path: Path) -> None:
    """The columns of img2dataset's and LAION's files."""
    path = write(
        tmp_path / "a.parquet",
        url=["http://a/1.jpg", "http://a/2.jpg"],
        caption=["a dog", None],
        width=pa.array([640, 480], pa.int32()),
        similarity=[0.5, float("nan")],
        punsafe=pa.array([0.25, 0.0], pa.float32()),
        NSFW=pa.array(["UNLIKELY", None]).dictionary_encode(),
        watermarked=[True, False],
        exif=['{"Model": "x"}', "{}"],
        tags=[["red", "round"], []],
        error_message=pa.nulls(2),
    )
    metadata, told = read(path)
    assert metadata == [
        {
            "url": "http://a/1.jpg",
            "caption": "a dog",
            "width": 640,
            "similarity": 0.5,
            "punsafe": 0.25,
            "NSFW": "UNLIKELY",
            "watermarked": True,
            "exif": '{"Model": "x"}',
            "tags": ["red", "round"],
        },
        {"url": "http://a/2.jpg", "width": 480, "punsafe": 0.0, "watermarked": False, "exif": "{}", "tags": []},
    ]
    assert told == []


def test_they_can_be_searched_by(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", url=["u", "v"], year=[2020, 2024])
    with LocalStore(tmp_path / "index", create=True) as store:
        store.create_collection("c", SPACE)
        for points in read_points(path, space=SPACE):
            store.upsert("c", points)
        assert store.count("c", Where({"year": {"gte": 2021}})) == 1
        assert store.get("c", ["p1"]).metadata == [{"url": "v", "year": 2024}]


@pytest.mark.parametrize(
    ("values", "kind", "kept"),
    [
        ([datetime.datetime(2024, 1, 2, 3, 4, 5)], pa.timestamp("ns"), "2024-01-02T03:04:05"),
        ([1_700_000_000_123_456_789], pa.timestamp("ns", "UTC"), "2023-11-14T22:13:20.123456+00:00"),
        ([datetime.date(2024, 1, 2)], pa.date32(), "2024-01-02"),
        ([datetime.time(1, 2, 3)], pa.time64("ns"), "01:02:03"),
        ([Decimal("1.50")], pa.decimal128(5, 2), 1.5),
        ([Decimal("7.00")], pa.decimal128(5, 2), 7),
        ([Decimal("0.10")], pa.decimal128(5, 2), "0.10"),
        ([2**63], pa.uint64(), 2**63),
        ([{"a": 1, "b": [True, None]}], None, {"a": 1, "b": [True, None]}),
        ([[("k", 1)]], pa.map_(pa.string(), pa.int64()), {"k": 1}),
        ([[0.0, 0.5, 1.0, float("nan")]], None, [0.0, 0.5, 1.0, None]),
        (["x"], pa.large_string(), "x"),
        (["x"], pa.string_view(), "x"),
    ],
)
def test_values_are_kept_as_json_has_them(tmp_path: Path, values: list[Any], kind: Any, kept: Any) -> None:
    metadata, told = read(write(tmp_path / "a.parquet", 1, x=pa.array(values, kind)))
    assert metadata == [{"x": kept}]
    assert type(metadata[0]["x"]) is type(kept)
    assert json.loads(json.dumps(metadata[0])) == metadata[0]
    assert told == []


@pytest.mark.parametrize(
    ("values", "kind", "why"),
    [
        ([b"\xff\xd8"], pa.binary(), r"'x' \(binary\)"),
        ([[b"\xff"]], pa.list_(pa.binary()), r"'x' \(list<.*binary>\)"),
        ([5], pa.duration("s"), r"'x' \(duration\[s\]\)"),
        ([[0.5] * 65], None, r"'x' \(lists of floats, such as embeddings\)"),
        ([float("inf")], None, r"'x' \(infinite values\)"),
        (["x" * MAX_METADATA_BYTES], None, r"'x' \(metadata over 65,536 bytes, such as 65,\d\d\d\)"),
    ],
)
def test_what_cannot_be_kept_is_named_in_one_line(tmp_path: Path, values: list[Any], kind: Any, why: str) -> None:
    path = write(tmp_path / "a.parquet", 1, x=pa.array(values, kind), url=["u"])
    metadata, (told,) = read(path)
    assert metadata == [{"url": "u"}]
    assert told.startswith(f"{path}: not kept as metadata: ")
    assert re.search(why, told), told


def test_the_metadata_column_goes_first_and_a_clash_is_named(tmp_path: Path) -> None:
    own = ['{"caption": "mine"}', '{"caption": "same"}']
    metadata, told = read(write(tmp_path / "a.parquet", metadata=own, caption=["other", "same"], url=["u", "v"]))
    assert metadata == [{"caption": "mine", "url": "u"}, {"caption": "same", "url": "v"}]
    assert told == [
        f"{tmp_path}/a.parquet: not kept as metadata: 'caption' (the metadata has another field of that name)"
    ]
    metadata, told = read(write(tmp_path / "b.parquet", metadata=own, caption=["mine", "same"]))
    assert metadata == [{"caption": "mine"}, {"caption": "same"}]
    assert told == []


def test_names_are_any(tmp_path: Path) -> None:
    names = ["id", "vector", "a.b", "ß №", "c", "c"]
    path = write(tmp_path / "a.parquet", 1, names, a=[1], b=[2], c=[3], d=[4])
    metadata, told = read(path)
    assert metadata == [{"a.b": 1, "ß №": 2}]
    assert told == [f"{path}: not kept as metadata: 'c' (comes more than once)"]


def test_without_anyone_to_tell_it_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    list(read_points(write(tmp_path / "a.parquet", jpg=[b"1", b"2"]), space=SPACE))
    assert caplog.messages == [f"{tmp_path}/a.parquet: not kept as metadata: 'jpg' (binary)"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["id", "embedding"],
            "needs a column 'vector': its columns are id, embedding; rename 'embedding' to it, if that",
        ),
        (["key", "vector"], "needs a column 'id': its columns are key, vector; rename 'key' to it, if that is what it"),
        (["name", "vector"], "needs a column 'id': its columns are name, vector$"),
    ],
)
def test_a_column_of_another_name_is_hinted_at(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / "a.parquet", 2, names))
