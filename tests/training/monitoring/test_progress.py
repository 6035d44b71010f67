"""What a run says: a bar on a terminal, plain lines in a file, nothing from processes but the first."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hypclip.training.monitoring import progress
from hypclip.training.monitoring.progress import RunProgress

ESCAPE = "\x1b"
VALUES = {"loss": 2.34567, "curv": 0.98765, "samples_per_s": 123.456, "data_wait_s": 0.5, "lr": 1e-3}
TOLD = "loss 2.346, curv 0.9877, samples_per_s 123.5, data_wait_s 0.5"
ODD = "/data/[a]/[bold]x[/bold]/:smile:/[/red] {braces} " + "long/" * 60


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


def terminal() -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=True, width=140, soft_wrap=True, highlight=False, _environ={"TERM": "xterm"}
    )
    return console, stream


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def monotonic(self) -> float:
        return self.now


def test_a_terminal_has_a_bar_with_the_figures():
    console, stream = terminal()
    with RunProgress(6, console=console) as shown:
        shown.start_at(2)
        shown.advance()
        shown.tell(VALUES)
    said = stream.getvalue()
    assert ESCAPE in said
    assert "━" in said
    assert "3/6" in said
    assert TOLD in said
    assert "step 3/6: " not in said  # which is a line for a file


def test_lines_on_a_terminal_are_as_they_were_said():
    console, stream = terminal()
    with RunProgress(6, console=console) as shown:
        shown.say(ODD)
    assert ODD in stream.getvalue()


def test_a_file_has_plain_lines(capsys):
    with RunProgress(3) as shown:
        shown.say(f"resuming from {ODD}")
        shown.advance()
        shown.tell(VALUES)
    captured = capsys.readouterr()
    assert captured.out == f"resuming from {ODD}\nstep 1/3: {TOLD}\n"
    assert captured.err == ""


def test_a_file_has_a_line_every_half_minute_and_the_last(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    with RunProgress(100) as shown:
        shown.start_at(90)
        for _ in range(10):
            shown.advance()
            shown.tell({"loss": 1.0})
            clock.now += 12.0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"step {step}/100: loss 1" for step in (91, 94, 97, 100)]


def test_the_last_step_is_told_whenever_it_comes(capsys):
    with RunProgress(2) as shown:
        for _ in range(2):
            shown.advance()
            shown.tell({"loss": float("nan")})
    assert capsys.readouterr().out.splitlines() == ["step 1/2: loss nan", "step 2/2: loss nan"]


def test_figures_that_are_none_are_left_out(capsys):
    with RunProgress(1) as shown:
        shown.advance()
        shown.tell({"loss": None, "curv": 1.0, "skipped": {"no caption": 3}, "samples_per_s": 7})
    assert capsys.readouterr().out == "step 1/1: curv 1\n"


@pytest.mark.parametrize("on_terminal", [True, False])
def test_quiet_says_nothing_but_warns(on_terminal, capsys):
    console, stream = terminal()
    with RunProgress(2, quiet=True, console=console if on_terminal else None) as shown:
        shown.advance()
        shown.say("hello")
        shown.tell(VALUES)
        shown.warn(f"cannot copy to {ODD}")
    captured = capsys.readouterr()
    assert captured.out + stream.getvalue() == ""
    assert captured.err == f"warning: cannot copy to {ODD}\n"


def test_a_failure_ends_the_bar_and_goes_on():
    console, stream = terminal()
    shown = RunProgress(2, console=console)

    def fail() -> None:
        with shown:
            shown.advance()
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert not shown._bar.live.is_started
    assert f"{ESCAPE}[?25h" in stream.getvalue()  # the cursor is shown again
