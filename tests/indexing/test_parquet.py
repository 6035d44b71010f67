"""Points to Parquet and back, from other engines, and every way a file can be wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from hypclip.errors import DataError, HypclipError, InputError, MissingExtraError
from hypclip.geometry import lorentz
from hypclip.indexing.parquet import check_ids, count_points, merged, read_points, read_space, sweep, write_points
from hypclip.search.local.store import LocalStore
from hypclip.search.space import Space
from hypclip.search.types import Points

SPACE = Space("model-a", 0.7310585786300049, 3, "0123abcd")


def block(start: int, count: int, dtype: torch.dtype = torch.float32) -> Points:
    generator = torch.Generator().manual_seed(start)
    modality = [("image", "text", "embedding")[i % 3] for i in range(count)]
    metadata = [
        {"caption": f"ein Öl №{i}", "n": [i, None, 0.1], "deep": {"a": True}} for i in range(start, start + count)
    ]
    vectors = torch.randn(count, SPACE.dim, generator=generator, dtype=dtype)
    return Points([f"{i}/ä" for i in range(start, start + count)], vectors, modality, metadata)


def flat(blocks: Any) -> tuple[list[str], torch.Tensor, list[str], list[Any]]:
    blocks = list(blocks)
    ids, modality, metadata = ([x for b in blocks for x in getattr(b, n)] for n in ("ids", "modality", "metadata"))
    return ids, torch.cat([b.vectors for b in blocks]), modality, metadata


def rewritten(file: Path, table: Callable[[pa.Table], pa.Table] | pa.Table, named: bool = True) -> Path:
    """Write a file again with another table, as another engine might."""
    before = pq.read_table(file)
    after = table(before) if callable(table) else table
    pq.write_table(after.replace_schema_metadata(before.schema.metadata if named else None), file)
    return file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_points(tmp_path / "points.parquet", SPACE, [block(0, 5)])
    return tmp_path / "points.parquet"


# There and back -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 7, 4096])
def test_what_is_read_is_what_was_written(tmp_path: Path, rows: int) -> None:
    blocks = [block(0, 10), block(10, 1), block(11, 0), block(11, 25)]
    blocks[0].vectors[0] = torch.tensor([0.0, -0.0, 1e-30])
    blocks[0].vectors[1] = torch.tensor([1e6, -1e6, 0.1])
    path = tmp_path / "new folder" / "points.parquet"
    assert write_points(path, SPACE, blocks) == 36 == count_points(path)
    assert read_space(path) == SPACE
    got = list(read_points(path, rows))
    assert max(len(b.ids) for b in got) == min(rows, 36)
    expected = flat(blocks)
    ids, vectors, modality, metadata = flat(got)
    assert (ids, modality, metadata) == (expected[0], expected[2], expected[3])
    assert vectors.dtype == torch.float32
    assert torch.equal(vectors.view(torch.int32), expected[1].view(torch.int32))
    vectors += 1  # owned, writable
    assert [p.name for p in path.parent.iterdir()] == ["points.parquet"]


def test_other_engines_find_plain_columns(file: Path) -> None:
    table = pq.read_table(file)
    assert dict(zip(table.schema.names, map(str, table.schema.types), strict=True)) == {
        "id": "string",
        "modality": "string",
        "vector": "fixed_size_list<element: float not null>[3]",
        "radius": "double",
        "metadata": "string",
    }
    entries = {k.decode(): v.decode() for k, v in table.schema.metadata.items()}
    assert entries == {
        "hypclip.format": "1",
        "hypclip.model_id": "model-a",
        "hypclip.revision": "0123abcd",
        "hypclip.curv": "0.7310585786300049",
        "hypclip.dim": "3",
        "hypclip.entailment": '{"eta": 1.0, "min_radius": 0.1, "strict": true, "form": "cone"}',
    }
    expected = lorentz.radius(block(0, 5).vectors.double(), SPACE.curv)
    np.testing.assert_array_equal(table["radius"].to_numpy(), expected.numpy())
    assert json.loads(table["metadata"][0].as_py()) == block(0, 5).metadata[0]


def test_float64_is_kept_as_float32(tmp_path: Path) -> None:
    points = block(0, 4, torch.float64)
    write_points(tmp_path / "a.parquet", SPACE, [points])
    assert torch.equal(flat(read_points(tmp_path / "a.parquet"))[1], points.vectors.float())


def test_a_file_may_hold_no_point(tmp_path: Path) -> None:
    assert write_points(tmp_path / "a.parquet", SPACE, []) == 0
    assert read_space(tmp_path / "a.parquet") == SPACE
    assert list(read_points(tmp_path / "a.parquet")) == []


def test_small_blocks_become_large_ones() -> None:
    sizes = [len(b.ids) for b in merged([block(i * 10, 10) for i in range(7)], rows=25)]
    assert sizes == [30, 30, 10]
    assert [len(b.ids) for b in merged([block(0, 99)], rows=25)] == [99]
    assert list(merged([block(0, 0)])) == []


# Writing goes wrong ---------------------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_what_was_there(file: Path) -> None:
    def broken() -> Any:
        yield block(0, 5000)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_points(file, SPACE, broken())
    assert count_points(file) == 5
    assert [p.name for p in file.parent.iterdir()] == ["points.parquet"]


def test_what_a_killed_writer_left_is_swept_away(file: Path) -> None:
    for name in (".points.parquet.0abc.writing", ".other.parquet.0abc.writing"):
        (file.parent / name).touch()
    sweep([file])
    assert sorted(p.name for p in file.parent.iterdir()) == [".other.parquet.0abc.writing", "points.parquet"]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (Points(["a"], torch.zeros(1, 4), ["text"], [{}]), "has 3 space components, got 4"),
        (Points(["a"], torch.full((1, 3), torch.nan), ["text"], [{}]), "NaN"),
        (Points(["a"], torch.full((1, 3), 1e9), ["text"], [{}]), "lies at radius"),
        (Points(["a"], torch.zeros(1, 3), ["text"], [{"x": object()}]), "metadata of point 'a'"),
    ],
)
def test_what_is_no_point_of_the_space_is_not_written(tmp_path: Path, points: Points, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_points(tmp_path / "a.parquet", SPACE, [points])
    assert list(tmp_path.iterdir()) == []


# Files of other engines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "vector_type",
    [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float64(), 3), pa.list_(pa.float16())],
)
def test_a_file_of_another_engine_needs_ids_and_vectors_only(tmp_path: Path, vector_type: pa.DataType) -> None:
    rows = [[0.5, -1.0, 2.0], [0.0, 0.0, 0.25]]
    table = pa.table(
        {"id": pa.array(["a", "b"], pa.large_string()), "vector": pa.array(rows, vector_type), "x": [1, 2]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    (points,) = read_points(tmp_path / "a.parquet", space=SPACE)
    assert list(points.ids) == ["a", "b"]
    assert points.vectors.tolist() == rows
    assert list(points.modality) == ["embedding"] * 2
    assert list(points.metadata) == [{"x": 1}, {"x": 2}]
    with LocalStore(tmp_path / "index", create=True) as store:
        store.create_collection("c", SPACE)
        store.upsert("c", points)
        assert store.count("c") == 2


def test_nulls_in_modality_and_metadata_are_the_defaults(file: Path) -> None:
    dictionary = pa.array(["text", None, "image", None, None]).dictionary_encode()
    texts = pa.array(['{"a": 1}', None, "{}", None, None], pa.string_view())
    table = pq.read_table(file).set_column(1, "modality", dictionary).set_column(4, "metadata", texts)
    (points,) = read_points(rewritten(file, table, named=False), space=SPACE)
    assert list(points.modality) == ["text", "embedding", "image", "embedding", "embedding"]
    assert list(points.metadata) == [{"a": 1}, {}, {}, {}, {}]
    table = table.set_column(1, "modality", pa.nulls(5)).set_column(4, "metadata", pa.nulls(5))
    (points,) = read_points(rewritten(file, table, named=False), space=SPACE)
    assert set(points.modality) == {"embedding"}


def test_a_file_that_names_no_space_needs_one(file: Path) -> None:
    rewritten(file, lambda table: table, named=False)
    for read in (read_space, lambda path: list(read_points(path))):
        with pytest.raises(DataError, match=r"points\.parquet does not name the model of its points .* give the space"):
            read(file)
    assert read_space(file, SPACE) == SPACE


def test_a_file_of_another_space_than_given_is_refused(file: Path) -> None:
    other = Space("model-b", 1.0, 3)
    with pytest.raises(DataError, match=r"points\.parquet holds points of model 'model-a' .*, not of model 'model-b'"):
        list(read_points(file, space=other))
    assert len(list(read_points(file, space=SPACE))) == 1


# Damaged files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text", "page"])
def test_a_damaged_file_is_named(file: Path, damage: str) -> None:
    whole = file.read_bytes()
    match damage:
        case "missing":
            file.unlink()
        case "empty":
            file.write_bytes(b"")
        case "cut":
            file.write_bytes(whole[: len(whole) // 2])
        case "text":
            file.write_text("id,vector\n")
        case "page":
            file.write_bytes(whole[:4] + bytes(200) + whole[204:])
    with pytest.raises(DataError, match=r"cannot read .*points\.parquet as Parquet"):
        list(read_points(file))


VECTORS = [[0.0, 0.0, 0.0]] * 4


def column(name: str, values: Any, kind: pa.DataType | None = None) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        return table.set_column(table.schema.names.index(name), name, pa.array(values, kind))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns("id"), "needs a column 'id': its columns are modality, vector, radius, metadata"),
        (lambda t: t.drop_columns("vector"), "needs a column 'vector'"),
        (lambda t: t.append_column("id", t["id"]), "needs a column 'id'"),
        (column("id", [1, 2, 3, 4, 5]), "column 'id' must hold strings, got int64"),
        (column("id", ["a", "b", None, "d", "e"]), "1 of 5 points have no id"),
        (column("id", ["a", "b", "c", "a", "e"]), "the id 'a' comes twice"),
        (column("id", ["a", "b", "c", "", "e"]), "must be a non-empty string"),
        (column("vector", ["a"] * 5), "column 'vector' must hold lists of floats, got string"),
        (column("vector", [[1, 2, 3]] * 5), "must hold lists of floats, got list<element: int64>"),
        (column("vector", [*VECTORS, [0.0] * 4]), "point '4/ä' has 4 components, a point of model 'model-a'"),
        (column("vector", [[0.0] * 4] * 5, pa.list_(pa.float32(), 4)), "point '0/ä' has 4 components"),
        (column("vector", [*VECTORS, None]), "point '4/ä' has no vector"),
        (
            column("vector", [*VECTORS, [0.0, None, 0.0]]),
            "point '4/ä' has components that are NaN, infinite or missing",
        ),
        (column("vector", [*VECTORS, [0.0, float("nan"), 0.0]]), "point '4/ä' has components that are NaN"),
        (column("vector", [*VECTORS, [0.0, float("inf"), 0.0]]), "point '4/ä' has components that are NaN"),
        (column("vector", [*VECTORS, [0.0, 1e30, 0.0]]), "an embedding lies at radius"),
        (column("modality", ["text"] * 4 + ["sound"]), "point '4/ä' has the modality 'sound', expected one of text, "),
        (column("metadata", ["{}"] * 4 + ["{"]), "the metadata of point '4/ä' is not JSON"),
        (column("metadata", ["{}"] * 4 + ['{"a": NaN}']), "the metadata of point '4/ä' is not JSON: NaN"),
        (column("metadata", ["{}"] * 4 + ["[1]"]), r"point '4/ä' must be a JSON object, got '\[1\]'"),
        (column("metadata", [{"a": 1}] * 5), "column 'metadata' must hold strings, got struct"),
    ],
)
def test_wrong_columns_and_values_are_named(file: Path, change: Any, message: str) -> None:
    rewritten(file, change)
    with pytest.raises(DataError, match=message) as caught:
        list(read_points(file))
    assert "points.parquet" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("format", "2", "has format '2'; this version reads format 1"),
        ("curv", None, "lacks hypclip.curv"),
        ("curv", "-1", "names no space: curv must be positive"),
        ("curv", "one", "names no space: could not convert"),
        ("dim", "3.5", "names no space: invalid literal"),
        ("model_id", b"\xff", "key-value metadata is not text"),
    ],
)
def test_a_space_that_is_none_is_named(file: Path, name: str, value: Any, message: str) -> None:
    table = pq.read_table(file)
    entries = {**table.schema.metadata, f"hypclip.{name}".encode(): value}
    pq.write_table(table.replace_schema_metadata({k: v for k, v in entries.items() if v is not None}), file)
    with pytest.raises(DataError, match=message):
        read_space(file)


def test_blocks_have_a_row_at_least(file: Path) -> None:
    with pytest.raises(InputError, match="rows of a block must be at least 1, got 0"):
        list(read_points(file, 0))


# The same id twice ----------------------------------------------------------------------------------------------------


def test_ids_may_come_once_in_all_files(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.parquet" for name in "abc"]
    for i, path in enumerate(files):
        write_points(path, SPACE, [block(5000 * i, 5000)])
    check_ids(files)
    check_ids([])
    write_points(files[2], SPACE, [block(4999, 1)])
    with pytest.raises(DataError, match=r"the id '4999/ä' is in both \S*a\.parquet and \S*c\.parquet, and one point"):
        check_ids(files)
    write_points(files[2], SPACE, [block(20000, 5000), block(20000, 5000)])
    with pytest.raises(DataError, match=r"the id '20000/ä' is twice in \S*c\.parquet"):
        check_ids(files)


def test_ids_are_needed_to_compare_them(file: Path) -> None:
    with pytest.raises(DataError, match=r"points\.parquet: column 'id' must hold strings"):
        check_ids([rewritten(file, column("id", [1, 2, 3, 4, 5]))])
    with pytest.raises(DataError, match=r"points\.parquet needs a column 'id'"):
        check_ids([rewritten(file, lambda table: table.drop_columns("id"))])


# The extra ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda path: write_points(path, SPACE, []),
        lambda path: list(read_points(path)),
        read_space,
        count_points,
        lambda path: check_ids([path]),
    ],
)
def test_without_pyarrow_the_extra_is_named(file: Path, monkeypatch: pytest.MonkeyPatch, call: Any) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hypclip\[search\]'") as caught:
        call(file)
    assert isinstance(caught.value, HypclipError)
