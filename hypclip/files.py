"""Files and folders of the user: read as people save them, and never lost to a command that writes."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

from hypclip.errors import DataError, InputError

_OPEN_FILES = (Path("/dev"), Path("/dev/fd"), Path("/proc/self/fd"))
"""Folders whose names, such as /dev/stdout, are files that the process has open, and not files of the user."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, without the byte order mark that editors on Windows put before it.

    Raises:
        DataError: it is UTF-16 or UTF-32, or no text.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    if content.startswith(_UTF16) or b"\0" in content[:64:2] or b"\0" in content[1:64:2]:
        raise DataError(f"{path} is no UTF-8 but UTF-16, UTF-32 or no text at all: save it again as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error}): save it again as UTF-8") from error


def expand_home(text: str) -> str:
    """Return a path whose leading ~ or ~name is the home folder; all else, such as a URL, stays as it is."""
    return os.path.expanduser(text)  # noqa: PTH111, which would turn s3://x into s3:/x


def user_path(text: str) -> Path:
    """Return the path that a user has typed, whose leading ~ no shell has expanded."""
    return Path(expand_home(text))


def is_empty(path: Path) -> bool:
    """Return whether a path does not exist or is an empty folder."""
    return not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir()))


def aside_of(path: Path) -> Path:
    """Return a name beside a path that nothing has yet: the same, and the date and time."""
    stamped = f"{path.name}.{time.strftime('%Y-%m-%dT%H%M%S')}"
    names = itertools.chain([stamped], (f"{stamped}-{number}" for number in itertools.count(2)))
    return next(place for place in map(path.with_name, names) if not os.path.lexists(place))


def set_aside(path: Path) -> Path:
    """Rename a file or folder to a dated name beside it, and return that.

    Raises:
        OSError: it cannot be renamed; it is as it was.
    """
    if path.name in ("", ".."):  # such as ".", which has no name to put a date behind
        path = path.resolve()
    return path.rename(aside_of(path))


def check_room(path: Path, *, overwrite: bool) -> None:
    """Refuse a place that holds something, before the work whose result it is for, unless that is to be moved.

    Raises:
        InputError: there is something other than an empty folder, or a whole file system.
    """
    if path.is_mount():
        raise InputError(
            f"{path} is where a file system begins, such as a volume of a container, and cannot be replaced: give a "
            f"folder in it, such as {path / 'new'}"
        )
    if not (overwrite or is_empty(path)):
        raise InputError(
            f"{path} exists and is not an empty folder: choose another, or add --overwrite, which moves what is there "
            "to a dated name beside it"
        )


def make_room(path: Path, *, overwrite: bool) -> Path | None:
    """Make sure that a path is free or an empty folder; return the new path of what was there, None if nothing was.

    Raises:
        InputError: something is there, and it is not to be moved.
        OSError: it cannot be renamed; it is as it was.
    """
    check_room(path, overwrite=overwrite)
    return None if is_empty(path) else set_aside(path)


def check_output(path: Path) -> None:
    """Refuse a place where no file can be written, before the work whose result it is for.

    Raises:
        InputError: it is a folder.
        OSError: its folder cannot be made.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)


def write_output(path: Path, content: str | bytes) -> Path | None:
    """Write a file of results; one that is there with other content is moved aside: return where it is now.

    Of a link that is the file behind it. Pipes and devices, such as /dev/null, are written to and stay.
    """
    check_output(path)
    content = content.encode() if isinstance(content, str) else content
    if path.exists() and (not path.is_file() or path.parent in _OPEN_FILES):
        with path.open("ab") as stream:
            stream.write(content)
        return None
    if path.is_symlink():
        path = path.resolve()
    if path.is_file() and path.read_bytes() == content:
        return None
    earlier = set_aside(path) if os.path.lexists(path) else None
    scratch = path.with_name(f".{path.name}.writing")
    scratch.write_bytes(content)
    scratch.replace(path)
    return earlier
