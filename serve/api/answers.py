"""Responses written as JSON from the values of the service.

Pydantic would validate and copy every number, on the event loop. The response models are for the OpenAPI document, to
which tests hold the responses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Response


def answer(body: Mapping[str, Any]) -> Response:
    """Return a response with this body; arrays of numpy are lists in it."""
    return Response(written(body), media_type="application/json")


def written(body: Mapping[str, Any]) -> bytes:
    """Write a body as JSON."""
    try:
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:  # of metadata with an integer beyond 64 bits
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
