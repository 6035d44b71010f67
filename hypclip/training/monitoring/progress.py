"""Progress of a run: a bar on a terminal, a line now and then in a file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LINE_EVERY_S = 30.0


class RunProgress:
    """Context manager that shows the progress of a run.

    Args:
        steps: of the whole run.
        quiet: whether to say nothing, as all processes but the first do.
        console: for all but warnings; standard output by default.
    """

    def __init__(self, steps: int, *, quiet: bool = False, console: Console | None = None):
        self._console = console or Console(soft_wrap=True, highlight=False)
        self._warnings = Console(stderr=True, soft_wrap=True, highlight=False)
        self._steps, self._step = steps, 0
        self._bar = Progress(
            TextColumn("step"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self._console, disable=quiet or not self._console.is_terminal, refresh_per_second=2,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=steps)
        self._quiet = quiet
        self._last_line = -float("inf")

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    def start_at(self, step: int) -> None:
        """Count steps that were done before."""
        self._step = step
        self._bar.update(self._task, completed=step)

    def advance(self) -> None:
        """Count a step."""
        self._step += 1
        self._bar.advance(self._task)

    def tell(self, values: Mapping[str, object]) -> None:
        """Show the loss and the speed of a logged step."""
        text = ", ".join(f"{name} {value:.4g}" for name in _TOLD if isinstance(value := values.get(name), float))
        self._bar.update(self._task, description=text)
        last = self._step >= self._steps
        if not self._console.is_terminal and (last or time.monotonic() - self._last_line >= _LINE_EVERY_S):
            self._last_line = time.monotonic()
            self.say(f"step {self._step}/{self._steps}: {text}")

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        if not self._quiet:
            self._console.print(message, markup=False, emoji=False)

    def warn(self, message: str) -> None:
        """Print a warning to standard error, from whatever process has it."""
        self._warnings.print(f"warning: {message}", markup=False, emoji=False, style="yellow")


_TOLD = ("loss", "curv", "samples_per_s", "data_wait_s")
