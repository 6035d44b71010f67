"""The log of a run: one JSON object a logged step."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class MetricsLog:
    """Append to a metrics.jsonl; a resumed run drops the lines after the step it goes on from.

    Args:
        path: the file, created with its folder.
        step: steps already done; 0 starts a new log.
    """

    def __init__(self, path: Path, step: int = 0):
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _complete_lines(path) if json.loads(line)["step"] <= step] if step else []
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._path = path

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one object, flushed; non-finite numbers become null, which JSON has."""
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(clean) + "\n")


def _complete_lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            json.loads(line)
        except json.JSONDecodeError:
            break
        lines.append(line)
    return lines
