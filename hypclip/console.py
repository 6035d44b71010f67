"""Output of commands on any console."""

from __future__ import annotations

import io
import sys


def escape_unprintable() -> None:
    """Print characters that a console cannot show, such as an arrow on one of ASCII, as escapes and not as an error.

    Call it at the start of a command: else a line on a finished run could make it a failed one.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
