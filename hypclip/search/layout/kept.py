"""Layouts of collections, kept in files beside the points so that nothing moves that has been seen once."""

from __future__ import annotations

import io
import json
import logging
import secrets
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hypclip.search.checks import check_name
from hypclip.search.contents import Block, Contents, ascending
from hypclip.search.layout.circle import MAX_DEPTH, Circle, Floats
from hypclip.search.space import Space

FOLDER = "layouts"
_GROWTH = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class About:
    """What is kept of a layout besides its landmarks.

    Args:
        version: counts the layouts that a collection has had, from 1.
        token: random; two layouts never have the same.
        built_at: how many points there were.
        model_id: of the points.
        revision: of the model.
    """

    version: int
    token: str
    built_at: int
    model_id: str
    revision: str


@dataclass(frozen=True)
class Layout:
    """The angles of a collection."""

    about: About
    circle: Circle


class Layouts:
    """The layouts of collections, made when one is first asked for, and again after fourfold growth.

    Each is a file of its own and not a table of the local store, so that it serves collections in Qdrant too, and so
    that a store without it is whole: from the same points the same layout is made again. Where no file can be written a
    layout lasts as long as the process. Threads may share this.

    Args:
        directory: where the index is; the files are in `layouts` there.
    """

    def __init__(self, directory: Path):
        self._folder = directory / FOLDER
        self._known: dict[str, Layout] = {}
        self._building = threading.Lock()

    def of(self, name: str, space: Space, contents: Contents, *, anew: bool = False) -> Layout:
        """Return the layout of a collection.

        Args:
            name: of the collection.
            space: of its points.
            contents: its points, which are read where the layout has to be made.
            anew: make another one in any case.

        Raises:
            InputError: there can be no collection of this name.
        """
        check_name(name)
        with self._building:
            found = self._known.get(name) or self._read(name, space.dim)
            if anew or found is None or not _fits(found.about, space, contents.count):
                version = 1 if found is None else found.about.version + 1
                about = About(version, secrets.token_hex(4), contents.count, space.model_id, space.revision)
                found = Layout(about, Circle.of(landmarks(contents.read(), space.dim)))
                self._write(name, found)
            self._known[name] = found
            return found

    def _read(self, name: str, dim: int) -> Layout | None:
        file = self._folder / f"{name}.npz"
        try:
            with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as kept:
                about = About(**json.loads(str(kept["about"])))
                circle = Circle(kept["landmarks"])
        except FileNotFoundError:
            return None
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            _log.warning("the layout of collection %r is made again, %s cannot be read: %s", name, file, error)
            return None
        return Layout(about, circle) if circle.is_whole(dim) else None

    def _write(self, name: str, layout: Layout) -> None:
        file = self._folder / f"{name}.npz"
        scratch = file.with_suffix(".writing")
        content = io.BytesIO()
        np.savez(content, about=np.array(json.dumps(asdict(layout.about))), landmarks=layout.circle.landmarks)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(content.getbuffer())
            scratch.replace(file)
        except OSError as error:
            _log.warning("the layout of collection %r is not kept: %s", name, error)


def landmarks(blocks: Sequence[Block], dim: int) -> Floats:
    """Return the vectors of up to 2,048 points, evenly spaced in the order of their keys; the origin where none is."""
    _, order = ascending(blocks)
    count = min(len(order), 2**MAX_DEPTH)
    rows = order[np.arange(count) * len(order) // max(1, count)]
    found = np.zeros((max(1, count), dim), np.float32)
    start = 0
    for block in blocks:
        here = np.flatnonzero((rows >= start) & (rows < start + len(block.keys)))
        found[here] = block.vectors[rows[here] - start]
        start += len(block.keys)
    return found


def _fits(about: About, space: Space, count: int) -> bool:
    """Tell whether a layout is of the points of this model, and not of far fewer."""
    same = (about.model_id, about.revision) == (space.model_id, space.revision)
    return same and count < _GROWTH * max(1, about.built_at)
