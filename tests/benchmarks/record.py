"""Run benchmarks, show what they print, and keep it in docs/benchmarks.json with machine, date and commit.

python tests/benchmarks/record.py geometry scenes

What is kept are the lines of a benchmark's standard output. One that fails, such as by a bar that is broken, is shown
and not kept. Pages have the figures once `python docs/generate.py` was run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BUSY = 0.5
"""Share of the cores in use, above which a record says that the machine was busy."""


def main(argv: Sequence[str] | None = None, folder: Path = Path(__file__).parent) -> int:
    """Run those that are named, from a folder; return 1 where one has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", help="of tests/benchmarks/bench_NAME.py")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.json", help="the JSON file")
    arguments = parser.parse_args(argv)
    failed = []
    for name in arguments.names:
        file = folder / f"bench_{name}.py"
        print(f"== {file.name}", flush=True)
        about = {"machine": machine(), "date": datetime.date.today().isoformat(), "commit": commit()}
        code, rows = run(file)
        if code:
            failed.append(name)
            continue
        command = f"python tests/benchmarks/{file.name}"
        kept = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.exists() else {}
        kept[name] = {"command": command, **about, "rows": rows}
        write(arguments.output, dict(sorted(kept.items())))
    if failed:
        print(f"failed, and not recorded: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def run(file: Path) -> tuple[int, list[str]]:
    """Run a benchmark and pass on what it prints; return its exit code and the lines."""
    rows = []
    with subprocess.Popen([sys.executable, file], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            rows.append(line.rstrip())
    while rows and not rows[-1]:
        rows.pop()
    return process.returncode, rows


def machine() -> str:
    """Return the processor, how many cores there are, and whether something else used them."""
    found = Path("/proc/cpuinfo")
    lines = found.read_text(encoding="utf-8").splitlines() if found.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    cores = os.cpu_count() or 1
    busy = ", busy with other work" if os.getloadavg()[0] > BUSY * cores else ""
    return f"{cores} cores of {model}{busy}"


def commit() -> str:
    """Return the commit that is checked out, and whether files of it have changed."""
    asked = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(asked, cwd=ROOT, capture_output=True, text=True).stdout.strip() or "unknown"


def write(path: Path, content: dict[str, Any]) -> None:
    """Put a file in place whole."""
    scratch = path.with_suffix(".writing")
    scratch.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    scratch.replace(path)


if __name__ == "__main__":
    sys.exit(main())
