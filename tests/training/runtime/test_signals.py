"""Signals that ask a run to stop are noted, not died of."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from hypclip.training.runtime.signals import StopSignals

CAUGHT = (signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Leave the handlers of the test process as they were."""
    before = {number: signal.getsignal(number) for number in CAUGHT}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    assert {number: signal.getsignal(number) for number in CAUGHT} == before


@pytest.mark.parametrize("number", CAUGHT)
def test_a_signal_is_noted_by_name(number):
    stop = StopSignals()
    assert stop.caught == ""
    signal.raise_signal(number)
    assert stop.caught == number.name


def test_the_latest_is_told():
    stop = StopSignals()
    signal.raise_signal(signal.SIGUSR1)
    signal.raise_signal(signal.SIGTERM)
    assert stop.caught == "SIGTERM"


def test_others_do_what_they_did():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs have none
    try:
        StopSignals()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


class NoParent:
    """A process whose parent has gone already."""

    def parent(self) -> Any:
        return None


def test_a_run_without_a_parent_starts(monkeypatch):
    monkeypatch.setattr(psutil, "Process", NoParent)
    stop = StopSignals()
    signal.raise_signal(signal.SIGTERM)
    assert stop.caught == "SIGTERM"
