"""What commands print, on whatever console."""

from __future__ import annotations

import io
import sys


def escape_unprintable() -> None:
    """Have what a console cannot print, such as an arrow on one of ASCII, come out as an escape and not as an error.

    To be called at the start of a command: else a line on a finished run could make it a failed one.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
