"""Tuning that only a training run on a CPU needs; train/pretrain.py is its one user.

`python tests/benchmarks/bench_cpu.py` measures each part alone, on a training like the quickstart's. What a run learns
stays the same, but for the rounding of attention.
"""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # not at run time: SPIN_COUNT must be set before torch is loaded
    from hypclip.model import HypCLIP

SPIN_COUNT = ("GOMP_SPINCOUNT", "3000")
"""A variable of the environment that torch's OpenMP reads when torch is loaded, and its value.

Threads then wait for each other for some microseconds only before they sleep. By default they occupy their cores for
milliseconds, which the processes that prepare data need, and which on a CPU share those cores.
"""

_MMAP_MAX, _TRIM_THRESHOLD, _ARENA_MAX = -4, -1, -8  # of mallopt, in malloc.h


def tune(model: HypCLIP) -> None:
    """Tune this process, and the model that it trains, for a CPU.

    Freed memory is kept (see `keep_freed_memory`). Attention is explicit, since the backward pass of the fused operator
    is slow on a CPU (see hypclip/towers/attention.py).
    """
    keep_freed_memory()
    model.use_explicit_attention()


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
