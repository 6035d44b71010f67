"""One sample of a shard: a picture, its caption, and phrases of the caption tied to boxes.

Reads raw GRIT (KEY.jpg + KEY.json with caption, noun_chunks, ref_exps) and plain pairs (KEY.jpg + KEY.txt).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from hypclip.data.picture import decode

IMAGE_KEYS = ("jpg", "jpeg", "png", "webp")
_EDGE_TOLERANCE = 0.01
"""Published boxes leave the picture by a rounding error; that much is cut off, more makes the sample bad."""


class BadSample(Exception):
    """A sample that cannot be used; `reason` is the short name under which it is counted."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Box:
    """A phrase of the caption and where it is in the picture: corners as fractions of width and height."""

    phrase: str
    x0: float
    y0: float
    x1: float
    y1: float
    score: float

    @property
    def area(self) -> float:
        """Fraction of the picture that the box covers."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)


@dataclass(frozen=True)
class Record:
    """One usable sample: pixels (3, H, W) of 0 to 255, colours last in memory; keys are unique within a shard only."""

    key: str
    pixels: Tensor
    caption: str
    boxes: tuple[Box, ...]
    shard: str = ""

    @property
    def image(self) -> Image.Image:
        """A copy of the picture, in RGB."""
        return Image.fromarray(self.pixels.permute(1, 2, 0).numpy())


def read_record(sample: Mapping[str, Any]) -> Record:
    """Turn a raw webdataset sample (extension → bytes) into a record.

    Raises:
        BadSample: no picture, unreadable picture or text, no caption, a box outside the picture, a phrase outside the
            caption.
    """
    caption, boxes = _text(sample)
    return Record(str(sample["__key__"]), _pixels(sample), caption, boxes, str(sample.get("__url__", "")))


def _text(sample: Mapping[str, Any]) -> tuple[str, tuple[Box, ...]]:
    try:
        fields = json.loads(sample["json"]) if "json" in sample else {"caption": sample.get("txt", b"").decode()}
        caption = fields.get("caption") if isinstance(fields, dict) else None
        if not isinstance(caption, str) or not caption.strip():
            raise BadSample("no caption")
        caption.encode()  # JSON can spell halves of characters, which no tokenizer takes
    except (ValueError, RecursionError) as error:
        raise BadSample("unreadable text") from error
    lists = [fields.get(name) or [] for name in ("noun_chunks", "ref_exps")]
    if not all(isinstance(rows, list) for rows in lists):
        raise BadSample("malformed box")
    return caption, tuple(_box(row, caption) for rows in lists for row in rows)


def _box(row: Any, caption: str) -> Box:
    try:
        start, end, x0, y0, x1, y1, score = (float(value) for value in row)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadSample("malformed box") from error
    if not all(map(math.isfinite, (start, end, x0, y0, x1, y1, score))) or score < 0:
        raise BadSample("malformed box")
    if not 0 <= start < end <= len(caption) or not (phrase := caption[int(start) : int(end)].strip()):
        raise BadSample("phrase outside the caption")
    if min(x0, y0) < -_EDGE_TOLERANCE or max(x1, y1) > 1 + _EDGE_TOLERANCE:
        raise BadSample("box outside the picture")
    box = Box(phrase, max(0.0, x0), max(0.0, y0), min(1.0, x1), min(1.0, y1), score)
    if box.x0 >= box.x1 or box.y0 >= box.y1:
        raise BadSample("box outside the picture")
    return box


def _pixels(sample: Mapping[str, Any]) -> Tensor:
    key = next((k for k in IMAGE_KEYS if k in sample), None)
    if key is None:
        raise BadSample("no picture")
    try:
        return decode(sample[key])
    except Exception as error:  # damaged bytes make decoders raise almost anything, such as struct.error
        raise BadSample("unreadable picture") from error
