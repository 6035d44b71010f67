"""The pages of the project, the blocks of code in them, and the programs of docs/."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]

_FENCED = re.compile(r"(?:^<!-- (not run|slow)(?:: ([^\n]*?))? -->\n)?^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Args:
        language: that it is marked with.
        code: what is in it.
        marker: of the comment above it, `not run` or `slow`; empty where there is none.
        reason: what the comment says.
        line: where it begins in its page.
    """

    language: str
    code: str
    marker: str
    reason: str
    line: int


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return the blocks of a page that are in one of these languages, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[3], found[4], found[1] or "", found[2] or "", text.count("\n", 0, found.start(3)) + 1)
        for found in _FENCED.finditer(text)
        if found[3] in languages
    ]


def program(name: str) -> ModuleType:
    """Import a program of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
