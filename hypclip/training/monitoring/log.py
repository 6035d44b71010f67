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
        kept = _lines_up_to(path, step) if step else []
        scratch = path.with_name(f".{path.name}.writing")  # a kill between leaves the log as it was
        scratch.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        scratch.replace(path)
        self._path = path

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one object, flushed; non-finite numbers become null, which JSON has."""
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(clean) + "\n")


def _lines_up_to(path: Path, step: int) -> list[str]:
    """Return the lines up to a step; those that a kill or a power cut has left half written are passed over."""
    lines = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            text = line.decode("utf-8-sig")
            done = json.loads(text)["step"]
        except (ValueError, KeyError, TypeError):
            continue
        if done <= step:
            lines.append(text)
    return lines
