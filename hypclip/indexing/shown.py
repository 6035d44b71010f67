"""What is kept of images to show them, on its way through the Parquet files of points: two columns, null for texts.

hypclip_thumbnail  binary   a WebP file
hypclip_original   string   JSON, [way below the media root, first byte, length or null]
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from hypclip.search.thumbnails import Original, Thumbnail

COLUMNS = ("hypclip_thumbnail", "hypclip_original")


@dataclass(frozen=True)
class Shown:
    """The thumbnail of an image and the place of its original, where there are any."""

    thumbnail: Thumbnail | None = None
    original: Original | None = None


def fields() -> list[Any]:
    """Return the columns of a schema."""
    import pyarrow as pa

    return [pa.field(COLUMNS[0], pa.binary()), pa.field(COLUMNS[1], pa.string())]


def arrays(images: MutableMapping[str, Shown], ids: Sequence[str]) -> list[Any]:
    """Take what belongs to some points out of `images`, and return it as columns."""
    import pyarrow as pa

    taken = [images.pop(point_id, Shown()) for point_id in ids]
    files = [None if one.thumbnail is None else one.thumbnail.data for one in taken]
    places = [None if o is None else json.dumps([o.file, o.start, o.length]) for o in (one.original for one in taken)]
    return [pa.array(files, pa.binary()), pa.array(places, pa.string())]


class Reader:
    """Reader of what a Parquet file has of images, in the order of its points.

    Args:
        file: of points; it need not have these columns.
        prefix: that the ids in the collection have before those in the file.
    """

    def __init__(self, file: str | os.PathLike[str], prefix: str = ""):
        self._rows = _rows(file, prefix)
        self._waiting: dict[str, Shown] = {}

    def take(self, ids: Sequence[str]) -> tuple[dict[str, Thumbnail | None], dict[str, Original]]:
        """Return thumbnails, None where there is none, and places of originals of the next points of the file."""
        for point_id in ids:
            while point_id not in self._waiting and (more := next(self._rows, None)) is not None:
                self._waiting |= more
        taken = {point_id: self._waiting.pop(point_id, Shown()) for point_id in ids}
        originals = {point_id: one.original for point_id, one in taken.items() if one.original is not None}
        return {point_id: one.thumbnail for point_id, one in taken.items()}, originals


def _rows(file: str | os.PathLike[str], prefix: str) -> Iterator[Mapping[str, Shown]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        if not set(COLUMNS) <= set(parquet.schema_arrow.names):
            return
        for batch in parquet.iter_batches(columns=["id", *COLUMNS]):
            ids, files, places = (batch.column(batch.schema.names.index(name)) for name in ("id", *COLUMNS))
            rows = zip(ids.to_pylist(), files.to_pylist(), places.to_pylist(), strict=True)
            yield {f"{prefix}{point_id}": Shown(_thumbnail(data), _original(place)) for point_id, data, place in rows}


def _thumbnail(data: bytes | None) -> Thumbnail | None:
    """Return a file with its size; None of what is no WebP, which a file of points from elsewhere may hold."""
    if not isinstance(data, bytes):
        return None
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            return Thumbnail(data, *image.size)
    except Exception:  # of damaged files almost any
        return None


def _original(place: str | None) -> Original | None:
    if not isinstance(place, str):
        return None
    try:
        file, start, length = json.loads(place)
        return Original(str(file), int(start), None if length is None else int(length))
    except (ValueError, TypeError):
        return None
