"""Graceful shutdown on SIGTERM and SIGUSR1."""

from __future__ import annotations

import signal
import sys

import psutil

_LAUNCHERS = ("accelerate", "torchrun", "torch.distributed.run", "torch/distributed/run.py")


class StopSignals:
    """Note SIGTERM and SIGUSR1, which Slurm sends ahead of a time limit, instead of dying of them.

    The death of a launcher counts as one.
    """

    def __init__(self) -> None:
        self.caught = ""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)
        parent = psutil.Process().parent()
        if sys.platform == "linux" and parent and any(name in " ".join(parent.cmdline()) for name in _LAUNCHERS):
            # `accelerate launch` does not pass signals on, and none does when it is killed: the run would be orphaned.
            import ctypes

            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG

    def _note(self, number: int, _: object) -> None:
        self.caught = signal.Signals(number).name
