"""Stopping in order when the system asks for it."""

from __future__ import annotations

import signal
import sys

import psutil


class StopSignals:
    """Note SIGTERM and SIGUSR1, which Slurm sends ahead of a time limit, instead of dying of them.

    The death of a launcher counts as one.
    """

    def __init__(self, launcher: str = "accelerate") -> None:
        self.caught = ""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)
        parent = psutil.Process().parent()
        if sys.platform == "linux" and parent and any(launcher in part for part in parent.cmdline()):
            # `accelerate launch` does not pass signals on: without this its death would leave the run orphaned.
            import ctypes

            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG

    def _note(self, number: int, _: object) -> None:
        self.caught = signal.Signals(number).name
