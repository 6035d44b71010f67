"""Columns of other tools' Parquet files as metadata: what JSON can hold is kept, the rest is named."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from hypclip.indexing.shown import COLUMNS
from hypclip.search.types import MAX_METADATA_BYTES

OWN = ("id", "modality", "vector", "radius", "metadata", *COLUMNS)
"""The columns that hypclip itself writes."""

MAX_FLOATS = 64
"""A longer list of floats is an embedding, which would swell the metadata of every point."""


class OtherColumns:
    """The columns of a file besides `OWN`, as fields of the metadata.

    Strings, numbers, booleans and lists and structs of them are kept as they are; dates and times become ISO 8601
    strings, decimals numbers where a float64 has all their digits and strings elsewhere. Nulls and NaN are left out.

    Args:
        schema: of the file.

    Attributes:
        names: the columns that are kept.
        left: why a column is not kept, or not in every point.
    """

    def __init__(self, schema: Any):
        self.names: list[str] = []
        self.left: dict[str, str] = {}
        for field in schema:
            if field.name in OWN or field.name in self.names or field.name in self.left:
                continue
            if schema.names.count(field.name) > 1:
                self.left[field.name] = "comes more than once"
            elif not _is_plain(field.type):
                self.left[field.name] = str(field.type)
            else:
                self.names.append(field.name)

    def merged(self, batch: Any, metadata: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the metadata of the rows of a batch with its other columns; what metadata has already goes first."""
        if not self.names:
            return list(metadata)
        columns = {name: self._values(name, batch.column(batch.schema.names.index(name))) for name in self.names}
        return [self._row(own, {name: values[i] for name, values in columns.items()}) for i, own in enumerate(metadata)]

    def __str__(self) -> str:
        """Name the columns that are left out, in one line."""
        return ", ".join(f"{name!r} ({why})" for name, why in self.left.items())

    def _values(self, name: str, column: Any) -> list[Any]:
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("us", column.type.tz), safe=False)  # Python has no nanoseconds
        elif pa.types.is_time64(column.type):
            column = column.cast(pa.time64("us"), safe=False)
        try:
            return [self._plain(name, value) for value in column.to_pylist(maps_as_pydicts="strict")]
        except (ValueError, KeyError, pa.ArrowException) as error:
            self.left[name] = f"some values cannot be read: {error}"
            return [None] * len(column)

    def _row(self, own: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in others.items() if value is not None}
        for name in kept.keys() & own.keys():
            if kept[name] != own[name]:
                self.left[name] = "the metadata has another field of that name"
        row = {**kept, **own}
        while (size := _size(row)) > MAX_METADATA_BYTES and (extra := kept.keys() - own.keys()):
            longest = max(extra, key=lambda name: _size(kept[name]))
            self.left[longest] = f"metadata over {MAX_METADATA_BYTES:,} bytes, such as {size:,}"
            del kept[longest], row[longest]
        return row

    def _plain(self, name: str, value: Any) -> Any:
        """Return a value as JSON has it; None for one that is not there or cannot be kept."""
        match value:
            case float() if not math.isfinite(value):
                if math.isinf(value):
                    self.left[name] = "infinite values"
                return None
            case datetime.datetime() | datetime.date() | datetime.time():
                return value.isoformat()
            case decimal.Decimal():
                number = int(value) if value == value.to_integral_value() else float(value)
                return number if decimal.Decimal(number) == value or str(number) == str(value) else str(value)
            case list() if len(value) > MAX_FLOATS and all(isinstance(one, float) for one in value):
                self.left[name] = "lists of floats, such as embeddings"
                return None
            case list():
                return [self._plain(name, one) for one in value]
            case dict():
                return {key: self._plain(name, one) for key, one in value.items()}
            case _:
                return value


def hint(schema: Any, wanted: str) -> str:
    """Return a sentence that names the columns of a file that may be the wanted one under another name; or nothing."""
    if wanted == "vector":
        names = [f.name for f in schema if _is_list(f.type) and pa.types.is_floating(f.type.value_type)]
    else:
        names = [name for name in ("key", "__key__", "uid", "image_path", "path", "url") if name in schema.names]
    return f"; rename {' or '.join(map(repr, names))} to it, if that is what it holds" if names else ""


def _is_list(kind: Any) -> bool:
    types = pa.types
    return any(is_it(kind) for is_it in (types.is_list, types.is_large_list, types.is_fixed_size_list))


def _is_plain(kind: Any) -> bool:
    types = pa.types
    if types.is_dictionary(kind) or _is_list(kind):
        return _is_plain(kind.value_type)
    if types.is_struct(kind):
        return all(_is_plain(field.type) for field in kind)
    if types.is_map(kind):
        return bool(types.is_string(kind.key_type)) and _is_plain(kind.item_type)
    plain = (
        types.is_string, types.is_large_string, types.is_string_view, types.is_integer, types.is_floating,
        types.is_boolean, types.is_null, types.is_decimal, types.is_date, types.is_timestamp, types.is_time,
    )  # fmt: skip
    return any(is_it(kind) for is_it in plain)


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass"))
