"""Finding images in folders: of every format, nested to any depth, without the files that systems leave there."""

from __future__ import annotations

import functools
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

_NO_IMAGES = {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5", "IPTC"}
"""Formats that Pillow knows by their header only, or reads with a program that few have."""
_LEFT_BY_SYSTEMS = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    *("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"),
}
_NAMED = 3
"""How many kinds of files, and how many files, a message names."""


@dataclass
class Found:
    """The files in a folder, hidden ones aside."""

    images: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)
    """Links to nothing, links that lead back to a folder they are in, and folders that cannot be read."""


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the file name endings, such as ".jpg", of all formats that this Pillow reads by itself."""
    formats = Image.registered_extensions()
    return frozenset(
        suffix for suffix, kind in formats.items() if kind == "MPO" or (kind in Image.OPEN and kind not in _NO_IMAGES)
    )


def is_hidden(path: Path) -> bool:
    """Tell whether a file or folder is not the user's: hidden, or one that a system has left."""
    return path.name.startswith(".") or path.name.lower() in _LEFT_BY_SYSTEMS


def find_files(folder: Path) -> Found:
    """Find the images of a folder and of the folders in it, by their endings in either case; links are followed.

    Returns:
        The files, sorted by path.
    """
    found = Found()
    for file, is_broken in _walk(folder, (folder.resolve(),)):
        if is_broken:
            found.broken.append(file)
        elif file.suffix.lower() in image_suffixes():
            found.images.append(file)
        else:
            found.others.append(file)
    for files in (found.images, found.others, found.broken):
        files.sort()
    return found


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[tuple[Path, bool]]:
    """Yield each file of a folder and of those below it, and whether it leads nowhere."""
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        yield folder, True
        return
    for path in inside:
        if is_hidden(path):
            continue
        if path.is_dir():
            real = path.resolve()
            if real in above:
                yield path, True
            else:
                yield from _walk(path, (*above, real))
        else:
            yield path, not path.is_file()


def count_by_suffix(files: Sequence[Path], root: Path) -> str:
    """Count files by their endings, the most frequent first, with an example of each.

    Returns:
        Such as ".txt 2 (a/notes.txt), .mp4 1 (a/x.mp4)".
    """
    kinds: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        kinds[file.suffix.lower() or "without an ending"].append(file)
    ordered = sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0]))
    shown = [f"{suffix} {len(some)} ({os.path.relpath(some[0], root)})" for suffix, some in ordered[:_NAMED]]
    return ", ".join(shown) + ", …" * (len(ordered) > _NAMED)


def name_files(files: Sequence[Path], root: Path) -> str:
    """Name the first few files."""
    return ", ".join(os.path.relpath(file, root) for file in files[:_NAMED]) + ", …" * (len(files) > _NAMED)


def same_form(name: str) -> str:
    """Return a name in the one form of Unicode that names are compared in; macOS writes é as e and an accent."""
    return unicodedata.normalize("NFC", name)
