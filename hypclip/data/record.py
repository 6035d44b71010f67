"""One sample of a shard: an image, its caption, and phrases of the caption tied to boxes.

Reads raw GRIT (KEY.jpg + KEY.json with caption, noun_chunks, ref_exps) and plain pairs (KEY.jpg + KEY.txt).
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from PIL import Image
from torch import Tensor

from hypclip.data.image import decode, orientation, upright

IMAGE_KEYS = ("jpg", "jpeg", "png", "webp", "jfif", "jpe", "gif", "bmp", "tif", "tiff", "avif", "jp2", "ppm", "pgm")
"""Extensions of images, of several in one sample the first."""
TEXT_KEYS = ("json", "txt")
_EDGE_TOLERANCE = 0.01
"""Published boxes leave the image by a rounding error; that much is cut off, more makes the sample bad."""
BoxFrame: TypeAlias = Literal["shown", "stored"]


class BadSample(Exception):
    """A sample that cannot be used.

    Attributes:
        reason: the short name under which it is counted.
        detail: what was found, and what was expected.
    """

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Reading:
    """The meaning of the fields of a sample.

    Args:
        caption_field: of the .json, which holds the caption, or a list of captions.
        boxes_are: found on images as they are "shown", turned by their EXIF tag, or as they are "stored", before it.
            None asks the `width` and `height` of the .json, and where these do not tell takes "stored": boxes come
            from GRIT, whose detector saw pixels as OpenCV and Pillow give them, not turned.
    """

    caption_field: str = "caption"
    boxes_are: BoxFrame | None = None


@dataclass(frozen=True)
class Box:
    """A phrase of the caption and where it is in the image: corners as fractions of width and height."""

    phrase: str
    x0: float
    y0: float
    x1: float
    y1: float
    score: float

    @property
    def area(self) -> float:
        """Fraction of the image that the box covers."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)


@dataclass(frozen=True)
class Record:
    """One usable sample: pixels (3, H, W) uint8, channels-last; keys are unique within a shard only.

    `captions` has at least one; phrases are of the first. Boxes are of the image as it is shown.
    """

    key: str
    pixels: Tensor
    captions: tuple[str, ...]
    boxes: tuple[Box, ...]
    shard: str = ""

    @property
    def caption(self) -> str:
        """The first caption."""
        return self.captions[0]

    @property
    def image(self) -> Image.Image:
        """A copy of the image, in RGB."""
        return Image.fromarray(self.pixels.permute(1, 2, 0).numpy())


def read_record(sample: Mapping[str, Any], reading: Reading = Reading()) -> Record:
    """Turn a raw sample (see `samples_of`) into a record.

    A .txt has one caption per line. Where there is a .json too, the .txt is read if that holds no caption; but a field
    that was named must be in the .json: its absence is usually a typo, and would turn to the captions of the .txt.

    Args:
        sample: extension → bytes.
        reading: see `Reading`.

    Raises:
        BadSample: its files do not fit, no image, unreadable image or text, no caption, a box outside the image,
            a phrase outside the caption. The detail says which sample of which shard.
    """
    key, shard = str(sample["__key__"]), str(sample.get("__url__", ""))
    try:
        if "__bad__" in sample:
            raise sample["__bad__"]
        extension = next((k for k in IMAGE_KEYS if k in sample), None)
        if extension is None:
            expected = "jpg, png, webp or another image"
            raise BadSample("no image", f"found {_extensions(sample)}; expected {expected}")
        captions, fields = _texts(sample, reading.caption_field)
        content = sample[extension]
        turned = _turned_boxes(content, fields, reading.boxes_are)
        boxes = tuple(_box(row, captions[0], turned) for row in _rows(fields))
        return Record(key, _pixels(content, extension), captions, boxes, shard)
    except BadSample as bad:
        place = f"{key} of {shard}" if shard else key
        raise BadSample(bad.reason, f"{place}: {bad.detail}" if bad.detail else place) from bad.__cause__


# Texts ----------------------------------------------------------------------------------------------------------------


def _texts(sample: Mapping[str, Any], field: str) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """Return the captions, at least one, and the fields of the .json."""
    found: Any = {}
    seen: list[str] = []
    captions: Sequence[str] = ()
    asked_for = False
    if "json" in sample:
        try:
            found = json.loads(_decoded(sample["json"]))
        except (ValueError, RecursionError) as error:
            raise BadSample("unreadable text", f"the json cannot be read: {error}") from error
        fields = found if isinstance(found, dict) else {}
        value = fields.get(field)
        given = value if isinstance(value, list) else [value]
        if all(one is None or isinstance(one, str) for one in given):
            captions = [one for one in given if one]
            seen.append(f"json with an empty {field!r}" if field in fields else f"json without {field!r}")
        else:
            seen.append(f"json whose {field!r} is no text and no list of texts but {value!r:.80}")
        asked_for = field != Reading.caption_field and field not in fields
        if fields and field not in fields:
            seen[-1] += f" (it has {', '.join(map(repr, list(fields)[:8]))}: data.caption_field names the one to read)"
    if not any(one.strip() for one in captions) and "txt" in sample and not asked_for:
        try:
            captions = [line.strip() for line in re.split(r"\r\n|\n|\r", _decoded(sample["txt"]))]
        except UnicodeDecodeError as error:
            raise BadSample("unreadable text", f"the txt is not UTF-8: {error}") from error
        seen.append("an empty txt")
    captions = tuple(one for one in captions if one.strip())
    if not captions:
        others = [name for name in sample if not name.startswith("__") and name not in TEXT_KEYS]
        raise BadSample("no caption", f"found {', '.join([*others, *seen])}; expected txt, or json with {field!r}")
    try:
        for one in captions:
            one.encode()  # JSON can spell halves of characters, which no tokenizer takes
    except UnicodeEncodeError as error:
        raise BadSample("unreadable text", f"half of a character: {error}") from error
    return captions, found if isinstance(found, dict) else {}


def _decoded(content: bytes) -> str:
    """Return text in UTF-8, or in UTF-16 where a mark at its beginning says so."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    return content.decode("utf-8-sig")


def _extensions(sample: Mapping[str, Any]) -> str:
    return ", ".join(name or "no extension" for name in sample if not name.startswith("__")) or "nothing"


# Boxes ----------------------------------------------------------------------------------------------------------------


def _rows(fields: Mapping[str, Any]) -> list[Any]:
    lists = {name: fields.get(name) or [] for name in ("noun_chunks", "ref_exps")}
    for name, rows in lists.items():
        if not isinstance(rows, list):
            raise BadSample("malformed box", f"{name} is no list, but {rows!r:.80}")
    return [row for rows in lists.values() for row in rows]


def _box(row: Any, caption: str, turn: int) -> Box:
    try:
        start, end, x0, y0, x1, y1, score = (float(value) for value in row)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadSample("malformed box", f"{row!r:.80}") from error
    if not all(map(math.isfinite, (start, end, x0, y0, x1, y1, score))) or score < 0:
        raise BadSample("malformed box", f"{row!r:.80}")
    if not 0 <= start < end <= len(caption) or not (phrase := caption[int(start) : int(end)].strip()):
        raise BadSample("phrase outside the caption", f"characters {start:g} to {end:g} of {caption!r:.80}")
    if min(x0, y0) < -_EDGE_TOLERANCE or max(x1, y1) > 1 + _EDGE_TOLERANCE:
        raise BadSample("box outside the image", f"{[x0, y0, x1, y1]}; expected fractions of width and height")
    box = Box(phrase, *upright(turn, max(0.0, x0), max(0.0, y0), min(1.0, x1), min(1.0, y1)), score)
    if box.x0 >= box.x1 or box.y0 >= box.y1:
        raise BadSample("box outside the image", f"{[x0, y0, x1, y1]} has no area")
    return box


def _turned_boxes(content: bytes, fields: Mapping[str, Any], boxes_are: BoxFrame | None) -> int:
    """Return the orientation by which boxes must be turned; 1 leaves them as they are."""
    if boxes_are == "shown" or not (fields.get("noun_chunks") or fields.get("ref_exps")):
        return 1
    turn, (width, height) = orientation(content)
    if boxes_are is None and turn > 4 and width != height:
        wide, high = fields.get("width"), fields.get("height")
        if isinstance(wide, int) and isinstance(high, int) and wide != high and (wide > high) != (width > height):
            return 1  # of the image as it is shown
    return turn


# Images ---------------------------------------------------------------------------------------------------------------


def _pixels(content: bytes, extension: str) -> Tensor:
    try:
        return decode(content)
    except Exception as error:  # damaged bytes make decoders raise almost anything, such as struct.error
        raise BadSample("unreadable image", f"{extension} of {len(content):,} bytes: {error}") from error
