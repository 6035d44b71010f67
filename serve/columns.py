"""Answers in columns: a JSON header and arrays of numbers behind it, which a browser reads without parsing."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import orjson
from numpy.typing import NDArray

MEDIA_TYPE = "application/octet-stream"

_TYPES = {"uint32": "<u4", "float32": "<f4", "uint8": "|u1"}


def columns(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Write a header and columns.

    First the length of the header, a uint32, then the header, JSON padded with spaces to a multiple of 4, then the
    columns, little-endian, each from a multiple of 4 on. The header gets an entry `columns`: a list of name, type,
    offset in bytes from the end of the header, and length, the number of elements.

    Args:
        header: what JSON can hold, without an entry `columns`.
        arrays: one-dimensional, of uint32, float32 or uint8, by name.
    """
    entries, parts, offset = [], [], 0
    for name, array in arrays.items():
        content = array.astype(_TYPES[array.dtype.name], copy=False).tobytes()
        entries.append({"name": name, "type": array.dtype.name, "offset": offset, "length": len(array)})
        content += b"\0" * (-len(content) % 4)
        parts.append(content)
        offset += len(content)
    text = orjson.dumps({**header, "columns": entries}, option=orjson.OPT_SERIALIZE_NUMPY)
    text += b" " * (-len(text) % 4)
    return b"".join([struct.pack("<I", len(text)), text, *parts])
