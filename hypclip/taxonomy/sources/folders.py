"""A taxonomy from a tree of folders, as image classes are kept."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from hypclip.errors import DataError
from hypclip.taxonomy.graph import Edge, same_phrase


def read_folders(path: Path) -> list[Edge]:
    """Return the edges (folder, the folder that it is in), of all folders below a root that is itself no class.

    A name that stands at several places says where: `other (fruit)`. Hidden folders are passed over.

    Raises:
        DataError: there are no folders within folders.
    """
    found: list[Path] = []
    for folder, names, _ in os.walk(path):
        names[:] = sorted(name for name in names if not name.startswith("."))
        found += [Path(folder, name).relative_to(path) for name in names]
    count = Counter(same_phrase(_words(place.name)) for place in found)

    def label(place: Path) -> str:
        name = _words(place.name)
        return name if count[same_phrase(name)] == 1 else f"{name} ({_words(place.parent.as_posix()) or path.name})"

    edges = [(label(place), label(place.parent)) for place in found if place.parent != Path()]
    if not edges:
        raise DataError(f"{path} has no folders within its folders: a taxonomy of folders has at least two levels")
    return edges


def _words(name: str) -> str:
    return name.replace("_", " ")
