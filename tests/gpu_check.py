"""Check on one GPU, in at most eight minutes, what tests on a CPU cannot, and print a table.

python tests/gpu_check.py [CHECK ...] [--output FILE]           on the first GPU; without one it says so
python tests/gpu_check.py --device cpu --small                  the same checks in a small form, on a CPU

Each check is a process of its own with a limit of time: its memory is given back, and one that fails, hangs or crashes
is a failed line and leaves the others alone. The exit code is 1 where a line failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

import psutil  # noqa: E402
import torch  # noqa: E402

from tests.gpu_checks import CHECKS  # noqa: E402
from tests.gpu_checks.kit import Line, Place, Report  # noqa: E402

SLOWER = 6
"""How many times the limits of a GPU a check may take on a CPU, which others may use too."""
SAID = 2_000
"""Characters that are shown of what a failed check printed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks that are asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)}; all when not given")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny models and few steps, for a CPU")
    parser.add_argument("--output", type=Path, help="write the lines as JSON too")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.checks if name not in CHECKS]:
        parser.error(f"no check is named {unknown[0]}: choose from {', '.join(CHECKS)}")
    lines: list[Line] = []
    start = time.monotonic()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no GPU: nothing was checked. --device cpu --small runs the checks in a small form on the CPU.")
    else:
        show("check", "what", "figure", "bar", "")
        for name in options.checks or CHECKS:
            found = in_process(name, options.device, options.small)
            for line in found:
                verdict = {True: "ok", False: "FAILED", None: ""}[line.passed]
                show(line.check, line.what, line.figure, line.bar, verdict)
            lines += found
        print(f"{sum(line.passed is False for line in lines)} failed, {time.monotonic() - start:.0f} s")
    if options.output:
        settings = {"device": options.device, "small": options.small, "seconds": time.monotonic() - start}
        told = {**settings, "lines": [asdict(line) for line in lines]}
        options.output.write_text(json.dumps(told, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return int(any(line.passed is False for line in lines))


def in_process(name: str, device: str, small: bool) -> list[Line]:
    """Run a check in a process of its own; return its lines, the last of which says so if it did not end well."""
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        files = Path(folder)
        environment = {"PYTHONPATH": ROOT} | ({} if device == "cuda" else _NO_GPU)
        os.environ.update(environment)  # of all processes that are started from here
        # What was forked cannot use CUDA safely, if anything that was imported before has touched it.
        context = multiprocessing.get_context("spawn" if device == "cuda" else "forkserver")
        if device == "cpu":
            context.set_forkserver_preload(["tests.gpu_check"])
        process = context.Process(target=check, args=(name, device, small, files))
        why = supervise(process, CHECKS[name].limit_s * (1 if device == "cuda" else SLOWER))
        report = Report(name, files / LINES)
        if why:
            report.failed(why)
        text = (files / LINES).read_text(encoding="utf-8").splitlines() if (files / LINES).exists() else []
        lines = [Line(**json.loads(line)) for line in text]
        if any(line.passed is False for line in lines) and (files / OUTPUT).exists():
            print((files / OUTPUT).read_text(encoding="utf-8", errors="replace")[-SAID:], file=sys.stderr)
        return lines


LINES, OUTPUT = "lines.jsonl", "output.txt"
_NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


def supervise(process: multiprocessing.process.BaseProcess, limit_s: float) -> str:
    """Start a process and wait for it; return why it did not end well, or "". Nothing that it has started is left."""
    process.start()
    late = True
    try:
        process.join(limit_s)
        late = process.is_alive()
    finally:
        left: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            left = psutil.Process(process.pid).children(recursive=True)  # those with groups of their own too
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        for each in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.join()
    if late:
        return f"took more than {limit_s:g} s"
    return f"ended with exit code {process.exitcode}" if process.exitcode else ""


def check(name: str, device: str, small: bool, folder: Path) -> None:
    """Run a check in this process, which leads a group of its own; what it prints goes to a file."""
    os.setsid()
    with (folder / OUTPUT).open("w") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    if device == "cpu":
        torch.set_num_threads(1)
    scratch = folder / "scratch"
    scratch.mkdir()
    judge(name, Place(torch.device(device), scratch, small), Report(name, folder / LINES))


def judge(name: str, place: Place, report: Report) -> None:
    """Run a check; whatever it raises becomes a failed line."""
    try:
        CHECKS[name].run(place, report)
    except Exception as error:
        traceback.print_exc()
        report.failed(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")


def show(check: str, what: str, figure: str, bar: str, verdict: str) -> None:
    """Print a line of the table."""
    print(f"{check:<10} {what:<56} {figure:<64} {bar:<26} {verdict}".rstrip(), flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # which ends the check too
    raise SystemExit(main())
