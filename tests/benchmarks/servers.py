"""Servers under test: starting them, asking how much memory they take, ending them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PORT = "{port}"  # in a command, in place of the port
START_S = 180.0


@dataclass
class Server:
    """A server that answers, in a process group of its own."""

    port: int
    process: psutil.Process

    def memory(self) -> int:
        """Return the resident bytes of all its processes."""
        total = 0
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total

    def kill(self) -> None:
        """End every process at once, as a power cut would."""
        processes = self._processes()
        os.killpg(self.process.pid, signal.SIGKILL)
        _, left = psutil.wait_procs(processes, timeout=10)
        assert not left, f"outside the process group of the server: {left}"

    def stop(self) -> None:
        """Ask it to end, and kill what has not after a while."""
        processes = self._processes()
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(processes, timeout=20)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def get(self, path: str) -> int:
        """Return the status of a GET, 0 if there was no answer."""
        return _status(f"http://127.0.0.1:{self.port}{path}")

    def _processes(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self.process, *self.process.children(recursive=True)]
        return []


def hypclip_server(checkpoint: Path, index: Path) -> list[str]:
    """Return the command that starts ours, but for its port."""
    command = [sys.executable, "-m", "serve", "--checkpoint", str(checkpoint), "--index", str(index)]
    return [*command, "--create-index", "--host", "127.0.0.1", "--port", PORT]


def plain_server(checkpoint: Path, handler: str) -> list[str]:
    """Return the command that starts the plain one."""
    return [sys.executable, str(HERE / "plain_server.py"), str(checkpoint), PORT, handler]


@contextlib.contextmanager
def running(
    command: Sequence[str], folder: Path, ready: str = "/readyz", environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Lend a server that is ready; what it writes goes to a file in `folder`."""
    server = start(command, folder, ready, environment)
    try:
        yield server
    finally:
        server.stop()


def start(
    command: Sequence[str], folder: Path, ready: str = "/readyz", environment: Mapping[str, str] | None = None
) -> Server:
    """Start a server, and wait until it is ready.

    Raises:
        RuntimeError: it ended, or was not ready in three minutes. The message ends with what it wrote.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / f"server-{port}.log"
    with log.open("wb") as output:
        process = psutil.Popen(
            [part.replace(PORT, str(port)) for part in command],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server, begin = Server(port, process), time.monotonic()
    while server.get(ready) != 200:
        if process.poll() is not None or time.monotonic() > begin + START_S:
            server.stop()
            raise RuntimeError(f"{' '.join(command)} did not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)
    return server


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
