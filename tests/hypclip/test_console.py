"""Commands on a console that cannot print every letter."""

from __future__ import annotations

import importlib
import io
import shutil
import sys
from collections.abc import Callable

import pytest

from hypclip.console import escape_unprintable
from tests.support.pretraining import config_of, run

COMMANDS = ("pretrain", "prepare_data", "embed", "evaluate", "zero_shot", "convert", "export")

each_encoding = pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])


def small_console(patch: pytest.MonkeyPatch, encoding: str) -> Callable[[], str]:
    """Print to a console of a small encoding from now on, as PYTHONIOENCODING makes one; return how to read it."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    patch.setattr(sys, "stdout", stream)
    patch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding=encoding))

    def content() -> str:
        stream.flush()
        return stream.buffer.getvalue().decode(encoding)

    return content


@each_encoding
def test_what_cannot_be_printed_is_escaped(encoding, monkeypatch):
    printed = small_console(monkeypatch, encoding)
    with pytest.raises(UnicodeEncodeError):
        print("1 → 2")
    escape_unprintable()
    print("1 → 2")
    assert printed() == "1 \\u2192 2\n"


def test_streams_of_others_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    escape_unprintable()
    print("→")
    assert sys.stdout.getvalue() == "→\n"


@pytest.mark.parametrize("module", [*(f"train.{name}" for name in COMMANDS), "serve.command"])
def test_every_command_escapes(module, monkeypatch):
    printed = small_console(monkeypatch, "ascii")
    with pytest.raises(SystemExit):
        importlib.import_module(module).main(["--help"])
    assert sys.stdout.errors == sys.stderr.errors == "backslashreplace"
    assert printed().startswith("usage: ")


@each_encoding
def test_a_finished_run_is_finished(encoding, tmp_path, shards, plain, monkeypatch):
    shutil.copytree(plain, tmp_path / "run")
    printed = small_console(monkeypatch, encoding)
    assert run(config_of(tmp_path, shards), "--resume", "train.steps=5") == 0
    assert "finished: 5 steps" in printed()
    assert " \\u2192 " in printed()
