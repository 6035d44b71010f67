"""Servers in processes of their own, with tiny models or fake ones: to send signals to, and to kill.

Most of them are forks of one process that has everything imported, which saves seconds a server; see `Nursery`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import torch

from hypclip import HypCLIP, ModelConfig
from hypclip.checkpoint import atomic_directory, save
from tests.support.environment import ROOT, environment
from tests.support.ports import free_port

PATIENCE_S = 600.0  # for what takes a second on a machine that does nothing else

TOWERS: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


def tiny_checkpoint(folder: Path, seed: int = 0, **config: Any) -> HypCLIP:
    """Put a checkpoint in place, all at once, also over another one; return its model."""
    torch.manual_seed(seed)
    model = HypCLIP(ModelConfig(TOWERS, **{"curv_init": 0.5, **config})).eval()
    with atomic_directory(folder) as scratch:
        save(model, scratch, name="tiny")
    return model


def eventually(met: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
    """Ask until the answer is true, and return it."""
    end = time.monotonic() + timeout_s
    while not (answer := met()):
        assert time.monotonic() < end, f"{what}: not within {timeout_s:g} s"
        time.sleep(0.02)
    return answer


def is_running(pid: int) -> bool:
    """Whether a process has not ended; one that has, and whose parent has not asked yet, does not run."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def worker_processes(parent: psutil.Process) -> list[psutil.Process]:
    """Return the worker processes below a process that run; one that ends meanwhile is none of them."""
    workers = []
    for child in parent.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # psutil counts a zombie as one
            if "spawn_main" in str(child.cmdline()):
                workers.append(child)
    return workers


@dataclass
class Server:
    """A server, and its log."""

    pid: int
    port: int
    log: Path
    wait: Callable[[float], int | None]  # for so many seconds; returns the exit code, or None
    client: httpx2.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = self.new_client()

    def new_client(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=PATIENCE_S, trust_env=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def status(self, path: str) -> int:
        """Return the status of a GET on a connection of its own; 0 when there is no answer."""
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(self.url + path, timeout=10, trust_env=False).status_code
        return 0

    def wait_until_ready(self) -> Server:
        def ready() -> bool:
            assert self.wait(0) is None, f"the server ended:\n{self.written()}"
            return self.status("/readyz") == 200

        eventually(ready, "readiness")
        return self

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def worker(self) -> psutil.Process:
        """Return the process of the model."""
        (worker,) = worker_processes(psutil.Process(self.pid))
        return worker

    def written(self) -> str:
        return self.log.read_text(errors="replace")

    def exit_code(self, timeout_s: float = PATIENCE_S) -> int | None:
        """Wait for the end."""
        code = self.wait(timeout_s)
        assert code is not None, f"the server has not ended within {timeout_s:g} s:\n{self.written()[-3000:]}"
        return code

    def end(self) -> None:
        """Kill the server if need be, and its worker."""
        self.client.close()
        children = []
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        self.wait(PATIENCE_S)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let what is started heed a Ctrl-C, also where these tests ignore it, as a shell's background jobs do."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def start_module(arguments: Sequence[str], log: Path, port: int, cwd: Path = ROOT, **settings: str) -> Server:
    """Start `python -m serve` in a folder, as users do at a terminal."""
    with log.open("wb") as output, _interruptible():
        process = subprocess.Popen(
            [sys.executable, "-m", "serve", *arguments, "--port", str(port)],
            cwd=cwd,
            env=environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(timeout_s: float) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(timeout_s)
        return None

    return Server(process.pid, port, log, wait)


class Nursery:
    """A process that forks servers: `python -m serve` without the seconds that its imports take."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def start(
        self, arguments: Sequence[str], log: Path, port: int | None = None, fake: bool = False, **settings: str
    ) -> Server:
        """Start a server in a process group of its own.

        Args:
            arguments: the command line.
            log: where its output goes.
            port: where it listens.
            fake: whether with a fake model, which needs no process.
            settings: its environment, besides.
        """
        port = port or free_port()
        command = [*arguments, "--port", str(port)]
        pid = self._ask({"arguments": command, "log": str(log), "fake": fake, "settings": settings})
        return Server(pid, port, log, lambda timeout_s: self._ask({"wait": pid, "timeout_s": timeout_s}))

    def close(self) -> None:
        """End it, and what it has started."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _ask(self, message: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _nursery() -> None:
    """Run the process that forks."""
    import serve.command  # noqa: F401 - before the forks

    gc.collect()
    gc.freeze()  # the forks shall not look through all that when they end, which takes seconds
    codes: dict[int, int | None] = {}
    try:
        for line in sys.stdin:
            message = json.loads(line)
            if "wait" in message:
                answer = _wait(message["wait"], message["timeout_s"], codes)
            else:
                answer = os.fork()
                if answer == 0:
                    codes.clear()
                    _be_a_server(message)
                codes[answer] = None
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
    finally:
        for pid in (pid for pid, code in codes.items() if code is None):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def _wait(pid: int, timeout_s: float, codes: dict[int, int | None]) -> int | None:
    end = time.monotonic() + timeout_s
    while codes[pid] is None:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            codes[pid] = os.waitstatus_to_exitcode(status)
        elif time.monotonic() >= end:
            break
        else:
            time.sleep(0.02)
    return codes[pid]


def _be_a_server(message: Mapping[str, Any]) -> None:
    """Become what `message` says, as if just started; never return."""
    import serve.command

    os.setsid()
    with open(message["log"], "ab") as log:  # noqa: PTH123 - a descriptor is all that is wanted
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(message["settings"])
    code: Any = 99
    try:
        code = (_serve_a_fake if message["fake"] else serve.command.main)(message["arguments"])
    except SystemExit as end:
        code = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        # Not os._exit: what a process does at its end, such as waiting for others, is a part of what is tested.
        sys.exit(code)


def _serve_a_fake(arguments: Sequence[str]) -> int:
    """Do what `serve.command` does, with a fake model."""
    import uvloop

    from serve.app import create_app
    from serve.command import _parser
    from serve.http.server import Server as Serving
    from serve.settings import Settings
    from serve.stores import open_store, open_thumbnails
    from tests.support.serving import FakeEngine

    given = {name: value for name, value in vars(_parser().parse_args(arguments)).items() if value is not None}
    settings = Settings(**given)
    with contextlib.closing(open_store(settings)) as store:
        app = create_app(settings, FakeEngine(), store, thumbnails=open_thumbnails(settings))
        uvloop.run(Serving(app, settings).serve())
    return 0


if __name__ == "__main__":
    _nursery()
