"""Originals of stored images: found below one folder by what was noted when they were embedded, never by HTTP."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from pathlib import Path, PurePosixPath

from hypclip.search.thumbnails import Original
from serve.errors import LimitExceeded
from serve.inputs.images import decode, open_images
from serve.settings import Settings

MAX_SIDE = 4096
"""Longest side in pixels of what is shown."""

_QUALITY = 85


def read_original(root: Path, original: Original, settings: Settings) -> bytes | None:
    """Return an original as WebP of its own making; None where its file is not there, or not below the root.

    No link is followed on the way from the root to the file. Nothing of the file but its pixels is in the answer.

    Args:
        root: the folder of all originals; it may be a link itself.
        original: what was noted.
        settings: the limits of images.

    Raises:
        InvalidImage: the file is no image of a known format, or damaged.
        LimitExceeded: it is too large, in bytes or in pixels, or too elongated.
    """
    data = _read(root, original, settings.max_image_bytes)
    if data is None:
        return None
    image = decode(open_images([data], settings)[0])
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=_QUALITY, method=2)
    return file.getvalue()


def _read(root: Path, original: Original, limit: int) -> bytes | None:
    path = PurePosixPath(original.file)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\0" in original.file:
        return None
    with contextlib.ExitStack() as opened, contextlib.suppress(OSError):
        at = _opened(opened, root, os.O_RDONLY | os.O_DIRECTORY)
        for part in path.parts[:-1]:
            at = _opened(opened, part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, at)
        # Without waiting, as a pipe would have to be waited for.
        found = _opened(opened, path.parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, at)
        about = os.fstat(found)
        if not stat.S_ISREG(about.st_mode):
            return None
        length = about.st_size - original.start if original.length is None else original.length
        if length > limit:
            raise LimitExceeded("the size of an image in bytes", length, limit, "max_image_bytes")
        data = os.pread(found, length, original.start) if length > 0 else b""
        return data if data and len(data) == length else None
    return None


def _opened(stack: contextlib.ExitStack, path: Path | str, flags: int, at: int | None = None) -> int:
    descriptor = os.open(path, flags | os.O_CLOEXEC, dir_fd=at)
    stack.callback(os.close, descriptor)
    return descriptor
