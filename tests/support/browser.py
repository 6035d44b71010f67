"""A real browser for the tests of the explorer, and a watch over what a page does."""

from __future__ import annotations

import os
import shutil
from typing import Any
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
ARGUMENTS = ("--no-sandbox", "--disable-dev-shm-usage")
"""Tests run as root in containers, where the sandbox cannot start and /dev/shm is small."""


def chromium() -> str:
    """Return the path of Chromium; without one skip the test, except in CI, which has to have it."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    reason = "no Chromium on this machine (apt-get install chromium)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class Watch:
    """What a page must not do: errors, reports of the policy, and requests off its origin."""

    def __init__(self, page: Any, origin: str):
        self.problems: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.refused: set[int] = set()
        self._host = urlsplit(origin).netloc
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("request", self._request)
        page.on("dialog", self._dialog)

    def expect_status(self, *statuses: int) -> None:
        """Let the browser say that requests were answered by these; 0 is no answer at all."""
        self.refused |= set(statuses)

    def _console(self, message: Any) -> None:
        if message.type not in ("error", "warning"):
            return
        expected = [f"status of {status} " for status in self.refused if status]
        expected += ["net::ERR"] if 0 in self.refused else []
        if not any(part in message.text for part in expected):
            self.problems.append(f"console: {message.text}")

    def _request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("blob", "data"):
            return
        self.requests.append((request.method, parts.path))
        if parts.netloc != self._host:
            self.problems.append(f"off the origin: {request.url}")

    def _dialog(self, dialog: Any) -> None:
        self.problems.append(f"a dialog: {dialog.message}")
        dialog.dismiss()
