"""Memory allocation of a training process on a CPU."""

from __future__ import annotations

import ctypes
import sys

_MMAP_MAX, _TRIM_THRESHOLD, _ARENA_MAX = -4, -1, -8  # of mallopt, in malloc.h


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next step, instead of giving it back to the system and asking again.

    Large tensors else are fresh pages at every step, which the system fills with zeros first. The process then stays as
    large as its largest step. Only glibc has this; return whether it is so.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    return all(mallopt(option, value) for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1)))
