"""Reading of answers in columns."""

import json
import struct

import numpy as np

_TYPES = {"uint32": "<u4", "float32": "<f4", "uint8": "u1"}


def parsed(content: bytes):
    """Return the header and the columns by name."""
    (length,) = struct.unpack("<I", content[:4])
    assert length % 4 == 0
    header = json.loads(content[4 : 4 + length])
    found, end = {}, 4 + length
    for column in header["columns"]:
        assert column["offset"] % 4 == 0
        start = 4 + length + column["offset"]
        found[column["name"]] = np.frombuffer(content, _TYPES[column["type"]], column["length"], start)
        end = max(end, start + found[column["name"]].nbytes)
    assert 0 <= len(content) - end < 4
    return header, found
