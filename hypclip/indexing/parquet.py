"""Points as Parquet files: what `train/embed.py` writes, stores import, and other engines read.

One row per point, in the columns

    id        string
    modality  string                        text, image or embedding
    vector    fixed_size_list<float32, D>   space components
    radius    float64                       distance from the origin, for the other engines; not read back
    metadata  string                        JSON, an object

The key-value metadata of the file names the space: hypclip.format, .model_id, .revision, .curv, .dim, .entailment
(JSON; the cones of MERU where it is absent); and in hypclip.source the data that the points were made of. A file of
another engine may leave these out, and the columns modality, radius and metadata; its vectors may be lists of any float
type. Its other columns, such as caption and url, become fields of the metadata, see hypclip/indexing/columns.py. What
is kept of images to show them has columns of its own, see hypclip/indexing/shown.py.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hypclip.checkpoint import sync
from hypclip.errors import DataError, HypclipError, InputError, MissingExtraError
from hypclip.geometry import lorentz
from hypclip.geometry.entailment import Cone
from hypclip.indexing import shown
from hypclip.indexing.shown import Shown
from hypclip.search.rules import as_text, of_text
from hypclip.search.space import Space
from hypclip.search.types import Points, encode_metadata, join
from hypclip.search.where import MODALITIES

FORMAT = 1
BLOCK_ROWS = 4096
"""Points a row group."""
_log = logging.getLogger(__name__)
_ENTRIES = ("hypclip.format", "hypclip.model_id", "hypclip.revision", "hypclip.curv", "hypclip.dim")


def write_points(
    file: str | os.PathLike[str],
    space: Space,
    blocks: Iterable[Points],
    source: str = "",
    images: MutableMapping[str, Shown] | None = None,
) -> int:
    """Write points to a file, whole and on disk or not at all, and return how many.

    Args:
        file: an existing one is replaced; folders are created.
        space: of the points.
        blocks: taken one at a time; memory holds about `BLOCK_ROWS` points and one block.
        source: the data that they were made of, where that is to be kept.
        images: where blocks leave what is kept of their images, which is taken out of it and written too.

    Raises:
        InputError: a point is none of the space, a metadata is not JSON or too large, a modality is unknown.
        MissingExtraError: pyarrow is not installed.
    """
    pa = _arrow()
    entries = {"format": FORMAT, "model_id": space.model_id, "revision": space.revision, "curv": repr(space.curv)}
    entries |= {"dim": space.dim, "entailment": as_text(space.entailment)} | ({"source": source} if source else {})
    schema = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("modality", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.field("element", pa.float32(), nullable=False), space.dim), nullable=False),
            pa.field("radius", pa.float64(), nullable=False),
            pa.field("metadata", pa.string(), nullable=False),
            *([] if images is None else shown.fields()),
        ],
        metadata={f"hypclip.{name}": str(value) for name, value in entries.items()},
    )
    count = 0
    with (
        _replacing(Path(file)) as scratch,
        pa.parquet.ParquetWriter(scratch, schema, compression="zstd", use_dictionary=["modality"]) as writer,
    ):
        for block in merged(blocks):
            writer.write_table(_to_table(block, space, schema, images), row_group_size=BLOCK_ROWS)
            count += len(block.ids)
    return count


def read_points(
    file: str | os.PathLike[str],
    rows: int = BLOCK_ROWS,
    space: Space | None = None,
    warn: Callable[[str], Any] = _log.warning,
) -> Iterator[Points]:
    """Yield the points of a file in blocks of up to `rows`.

    Args:
        file: of `write_points`, or of another engine.
        rows: at least 1.
        space: of the points, where the file does not name it.
        warn: told in the end, in one line, of columns that cannot be kept as metadata.

    Raises:
        DataError: damaged or no Parquet file, a column missing or of the wrong type, a value that is no point of the
            space, a file that names another space than given, or none where none is given. Messages name the point.
        InputError: rows is below 1.
        MissingExtraError: pyarrow is not installed.
    """
    if rows < 1:
        raise InputError(f"rows of a block must be at least 1, got {rows}")
    with _opened(file) as parquet:
        from hypclip.indexing.columns import OtherColumns  # which needs pyarrow

        found = _space(file, parquet, space)
        schema = parquet.schema_arrow
        for name in ("id", "vector"):
            _require_column(file, schema, name)
        others = OtherColumns(schema)
        columns = [name for name in ("id", "modality", "vector", "metadata") if name in schema.names] + others.names
        for batch in parquet.iter_batches(rows, columns=columns):
            try:
                points = _from_batch(batch, found, others)
                found.check_points(points.vectors)
            except HypclipError as error:
                raise DataError(f"{file}: {error}") from error
            yield points
        if others.left:
            warn(f"{file}: not kept as metadata: {others}")


def read_source(file: str | os.PathLike[str]) -> str:
    """Return the data that the points of a file were made of; the file itself where it does not say.

    Raises:
        DataError: damaged or no Parquet file.
        MissingExtraError: pyarrow is not installed.
    """
    with _opened(file) as parquet:
        named = (parquet.schema_arrow.metadata or {}).get(b"hypclip.source", b"")
        return named.decode(errors="replace") or str(Path(file).absolute())


def read_space(file: str | os.PathLike[str], space: Space | None = None) -> Space:
    """Return the space that a file names, or the one given if it names none.

    Raises:
        DataError: damaged or no Parquet file, or it names another space than given, or none where none is given.
        MissingExtraError: pyarrow is not installed.
    """
    with _opened(file) as parquet:
        return _space(file, parquet, space)


def count_points(file: str | os.PathLike[str]) -> int:
    """Return the number of points in a file.

    Raises:
        DataError: damaged or no Parquet file.
        MissingExtraError: pyarrow is not installed.
    """
    with _opened(file) as parquet:
        return int(parquet.metadata.num_rows)


def check_ids(files: Sequence[str | os.PathLike[str]]) -> None:
    """Refuse files that have an id twice: in a collection the later point would replace the earlier one.

    Takes 16 bytes of memory a point.

    Raises:
        DataError: the message names the id and the files; or a file is damaged or has no column of ids.
        MissingExtraError: pyarrow is not installed.
    """
    hashes = [np.fromiter(map(hash, ids), np.int64) for file in files for ids in _ids(file)]
    values, counts = np.unique(np.concatenate([*hashes, np.zeros(0, np.int64)]), return_counts=True)
    suspects = set(values[counts > 1].tolist())
    if not suspects:
        return
    seen: dict[str, str | os.PathLike[str]] = {}
    for file in files:
        for point_id in (i for ids in _ids(file) for i in ids if hash(i) in suspects):
            if point_id in seen:
                where = f"in both {seen[point_id]} and {file}" if seen[point_id] != file else f"twice in {file}"
                raise DataError(
                    f"the id {point_id!r} is {where}, and one point would replace the other: give samples keys that "
                    "are unique over all shards, or embed the shards in calls of their own, each with a --prefix"
                )
            seen[point_id] = file


def sweep(files: Sequence[Path]) -> None:
    """Remove what killed writers of these files left behind."""
    names = {file.name for file in files}
    for folder in {file.parent for file in files}:
        for scratch in folder.glob(".*.writing"):
            if scratch.name[1:].rsplit(".", 2)[0] in names:
                scratch.unlink(missing_ok=True)


def merged(blocks: Iterable[Points], rows: int = BLOCK_ROWS) -> Iterator[Points]:
    """Yield the same points in blocks of at least `rows`, but for the last.

    Raises:
        InputError: an id comes twice in what would be one block.
    """
    held: list[Points] = []
    for block in blocks:
        held.append(block)
        if sum(len(one.ids) for one in held) >= rows:
            yield join(held)
            held = []
    if any(one.ids for one in held):
        yield join(held)


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            f"{error}: Parquet files need pyarrow, which comes with an extra, run pip install 'hypclip[search]'"
        ) from error
    return pyarrow


@contextlib.contextmanager
def _replacing(file: Path) -> Iterator[Path]:
    """Yield a scratch file that takes the place of `file`, on disk, when the block ends without an error.

    Its name is new each time: workers orphaned by a kill may still be writing the same file as those that came after.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f".{file.name}.{uuid.uuid4().hex}.writing")
    try:
        yield scratch
        sync(scratch)
        scratch.replace(file)
        sync(file.parent)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def _to_table(points: Points, space: Space, schema: Any, images: MutableMapping[str, Shown] | None) -> Any:
    pa = _arrow()
    space.check_points(points.vectors)
    vectors = points.vectors.detach().cpu().float().contiguous()
    columns = [
        pa.array(points.ids, pa.string()),
        pa.array(points.modality, pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.flatten().numpy()), type=schema.field("vector").type),
        pa.array(lorentz.radius(vectors.double(), space.curv).numpy()),
        pa.array(encode_metadata(points), pa.string()),
        *([] if images is None else shown.arrays(images, points.ids)),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


@contextlib.contextmanager
def _opened(file: str | os.PathLike[str]) -> Iterator[Any]:
    pa = _arrow()
    try:
        with pa.parquet.ParquetFile(file) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"cannot read {file} as Parquet: {error}") from error


def _ids(file: str | os.PathLike[str]) -> Iterator[list[str]]:
    with _opened(file) as parquet:
        _require_column(file, parquet.schema_arrow, "id")
        for batch in parquet.iter_batches(columns=["id"]):
            try:
                yield _strings("id", _storage(batch.column(0)))
            except DataError as error:
                raise DataError(f"{file}: {error}") from error


def _require_column(file: str | os.PathLike[str], schema: Any, name: str) -> None:
    from hypclip.indexing.columns import hint  # which needs pyarrow

    if schema.names.count(name) != 1:
        there = ", ".join(schema.names) or "none"
        raise DataError(f"{file} needs a column {name!r}: its columns are {there}{hint(schema, name)}")


def _space(file: str | os.PathLike[str], parquet: Any, given: Space | None) -> Space:
    try:
        entries = {key.decode(): value.decode() for key, value in (parquet.schema_arrow.metadata or {}).items()}
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: its key-value metadata is not text: {error}") from error
    if not any(name in entries for name in _ENTRIES):
        if given is None:
            raise DataError(
                f"{file} does not name the model of its points (no hypclip.model_id in its key-value metadata): "
                "give the space they are of (train/embed.py: --checkpoint)"
            )
        return given
    missing = [name for name in _ENTRIES if name not in entries]
    if missing:
        raise DataError(f"{file}: its key-value metadata lacks {', '.join(missing)}")
    if entries["hypclip.format"] != str(FORMAT):
        raise DataError(f"{file} has format {entries['hypclip.format']!r}; this version reads format {FORMAT}")
    try:
        numbers = float(entries["hypclip.curv"]), int(entries["hypclip.dim"])
        rule = of_text(entries["hypclip.entailment"]) if "hypclip.entailment" in entries else Cone()
        named = Space(entries["hypclip.model_id"], *numbers, entries["hypclip.revision"], rule)
    except ValueError as error:
        raise DataError(f"{file}: its key-value metadata names no space: {error}") from error
    if given is not None and not named.same_as(given):
        raise DataError(f"{file} holds points of {named.beside(given)}, not of {given.beside(named)}")
    return named


def _from_batch(batch: Any, space: Space, others: Any) -> Points:
    columns = {name: _storage(batch.column(i)) for i, name in enumerate(batch.schema.names)}
    ids = _strings("id", columns["id"])
    if None in ids:
        raise DataError(f"{ids.count(None)} of {len(ids)} points have no id")
    if repeated := [point_id for point_id, times in Counter(ids).items() if times > 1]:
        raise DataError(f"the id {repeated[0]!r} comes twice")
    vectors = _vectors(columns["vector"], ids, space)
    modality = _strings("modality", columns["modality"]) if "modality" in columns else [None] * len(ids)
    texts = _strings("metadata", columns["metadata"]) if "metadata" in columns else [None] * len(ids)
    for point_id, value in zip(ids, modality, strict=True):
        if value is not None and value not in MODALITIES:
            raise DataError(f"point {point_id!r} has the modality {value!r}, expected one of {', '.join(MODALITIES)}")
    metadata = others.merged(batch, [_metadata(point_id, text) for point_id, text in zip(ids, texts, strict=True)])
    return Points(ids, vectors, [value or "embedding" for value in modality], metadata)


def _storage(column: Any) -> Any:
    return column.storage if isinstance(column.type, _arrow().BaseExtensionType) else column


def _strings(name: str, column: Any) -> list[Any]:
    types = _arrow().types
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    # A column of nothing but nulls may have no type.
    if not any(is_it(kind) for is_it in (types.is_string, types.is_large_string, types.is_string_view, types.is_null)):
        raise DataError(f"column {name!r} must hold strings, got {column.type}")
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError as error:
        raise DataError(f"column {name!r} must hold valid Unicode: {error}") from error
    return values


def _vectors(column: Any, ids: Sequence[str], space: Space) -> Tensor:
    types = _arrow().types
    lists = (types.is_fixed_size_list, types.is_list, types.is_large_list)
    if not any(is_it(column.type) for is_it in lists) or not types.is_floating(column.type.value_type):
        raise DataError(f"column 'vector' must hold lists of floats, got {column.type}")
    missing = column.is_null().to_numpy(zero_copy_only=False)
    if missing.any():
        raise DataError(f"point {ids[int(missing.argmax())]!r} has no vector")
    lengths = (
        np.full(len(ids), column.type.list_size)
        if types.is_fixed_size_list(column.type)
        else np.diff(column.offsets.to_numpy())
    )
    wrong = lengths != space.dim
    if wrong.any():
        which = int(wrong.argmax())
        raise DataError(f"point {ids[which]!r} has {lengths[which]} components, a point of {space} has {space.dim}")
    flat = column.flatten().to_numpy(zero_copy_only=False)  # a null becomes NaN
    if flat.dtype == np.float16:
        flat = flat.astype(np.float32)
    vectors = np.array(flat.reshape(len(ids), space.dim))
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise DataError(f"point {ids[int(finite.argmin())]!r} has components that are NaN, infinite or missing")
    return torch.from_numpy(vectors)


def _metadata(point_id: str, text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the metadata of point {point_id!r} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"the metadata of point {point_id!r} must be a JSON object, got {text[:40]!r}")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")
