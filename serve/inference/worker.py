"""The process that runs the model, and the server's end of the line to it.

A process and not a thread: the model and the event loop do not take turns on one interpreter lock, a crash or a hang of
the model leaves a server that can still say so, and a fatal CUDA error, which only a new process gets over, is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, cast

import numpy as np

from serve.errors import InputFailed, StartFailed, WorkerFailed
from serve.inference.batching import Array, BatchDone, Modality

if TYPE_CHECKING:
    from hypclip import HypCLIP
    from hypclip.geometry.entailment import Entailment
    from serve.inference.backends import Backend, BackendKind, Precision

logger = logging.getLogger(__name__)

# What goes to the process: the token ids of texts, joined end to end, and their lengths; or the pixels of images.
_Batch: TypeAlias = tuple[Array, list[int]] | Sequence[Array]

_HEADER = struct.Struct("!Q")
_HEARTBEAT_S = 1.0
_NICE = 5  # the event loop, which has to refuse what is too much, comes before the model, which would take all


@dataclass(frozen=True)
class WorkerConfig:
    """Settings of a worker process: a checkpoint directory, a device, a backend.

    Args:
        onnx_cache: see serve.inference.exports.Exports.
        tells: whether what goes on while it loads is logged, errors aside.
    """

    checkpoint: Path
    device: str
    backend: BackendKind
    precision: Precision
    threads: int
    log_format: Literal["text", "json"]
    onnx_cache: Path | None = None
    tells: bool = True


@dataclass(frozen=True)
class ModelCard:
    """Properties of a model that the server needs while its weights are in another process."""

    model_id: str
    revision: str
    geometry: str
    curv: float
    dim: int
    logit_scale: float
    entailment: Entailment
    image_size: int
    text_cfg: dict[str, Any]


class WorkerProcess(asyncio.Protocol):
    """A running worker; `start` makes one.

    Args:
        on_death: called once, on the event loop, when the process ends or stays silent without having been told to.
        timeout_s: how long a batch may take before the process counts as hung and is killed.
    """

    def __init__(self, on_death: Callable[[WorkerFailed], None], timeout_s: float):
        self._on_death, self._timeout_s = on_death, timeout_s
        self._waiting: deque[Callable[[BatchDone], None]] = deque()
        self._buffer = bytearray()
        self._ready: asyncio.Future[ModelCard] = asyncio.get_running_loop().create_future()
        self._gone = asyncio.Event()
        self._closing = False
        self._heard = time.monotonic()
        self._transport: asyncio.Transport
        self._process: multiprocessing.process.BaseProcess
        self._pinging: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, config: WorkerConfig, on_death: Callable[[WorkerFailed], None], timeout_s: float) -> Self:
        """Start a process and wait until its model is loaded and warm; see `card`.

        Raises:
            StartFailed: the model cannot be loaded or run. The message is the process's own.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        worker = cls(on_death, timeout_s)
        with theirs:
            worker._process = multiprocessing.get_context("spawn").Process(
                target=_main, args=(theirs, config), name="hypclip-worker", daemon=True
            )
            launch = asyncio.ensure_future(asyncio.to_thread(_start, worker._process))
            try:
                await asyncio.shield(launch)
            except asyncio.CancelledError:
                await launch  # a thread cannot be stopped halfway
                worker.kill()
                ours.close()
                await worker.aclose()
                raise
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: worker, sock=ours)
            worker.card = await worker._ready
        except BaseException:
            worker.kill()  # nobody waits any more for what it may still be loading
            await worker.aclose()
            raise
        worker._pinging = loop.create_task(worker._ping())
        return worker

    card: ModelCard

    @property
    def pid(self) -> int | None:
        """The process."""
        return self._process.pid

    @property
    def seconds_since_heartbeat(self) -> float:
        """Seconds since its last sign of life: up to one when idle, as long as a batch takes when busy."""
        return time.monotonic() - self._heard

    def send(self, modality: Modality, inputs: Sequence[Array], done: Callable[[BatchDone], None]) -> None:
        """Send a batch; see serve.inference.batching.Worker."""
        if not self._waiting:
            self._heard = time.monotonic()
        self._waiting.append(done)
        self._write(("batch", _joined(inputs)))

    async def aclose(self) -> None:
        """End the process: after the batches it was sent, or by force when that takes longer than a batch may."""
        self._closing = True
        if self._pinging is not None:
            self._pinging.cancel()
        if hasattr(self, "_transport") and not self._transport.is_closing():
            with contextlib.suppress(OSError):
                self._transport.write_eof()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), self._timeout_s)
            self._transport.close()
        await asyncio.to_thread(self._process.join, 5.0)
        if self._process.is_alive():
            self._process.kill()
            await asyncio.to_thread(self._process.join)

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the line."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Read whole messages."""
        self._heard = time.monotonic()
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            (size,) = _HEADER.unpack_from(self._buffer)
            if len(self._buffer) < _HEADER.size + size:
                return
            message = pickle.loads(memoryview(self._buffer)[_HEADER.size : _HEADER.size + size])  # noqa: S301 - our own process
            del self._buffer[: _HEADER.size + size]
            self._received(message)

    def eof_received(self) -> bool:
        """Close our end too."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Fail all that wait: the process has ended, and with it its end of the connection."""
        self._gone.set()
        if not self._ready.done():
            self._ready.set_exception(StartFailed("the process of the model ended while it loaded; see its output"))
        elif not self._closing:
            self._closing = True
            self._on_death(WorkerFailed("the process of the model has died; the server is going down"))

    def _received(self, message: Any) -> None:
        match message:
            case ("ready", ModelCard() as card):
                self._ready.set_result(card)
            case ("failed", str() as reason):
                self._ready.set_exception(StartFailed(reason))
            case ("done", list() as rows, float() as seconds):
                failed = InputFailed("the model failed on this input; the log of the server says why")
                self._waiting.popleft()(BatchDone([failed if row is None else row for row in rows], seconds))
            case "pong":
                pass
            case _:
                raise AssertionError(f"the worker said {message!r}")

    async def _ping(self) -> None:
        while True:
            due = time.monotonic() + _HEARTBEAT_S
            await asyncio.sleep(_HEARTBEAT_S)
            now = time.monotonic()
            self._heard = min(now, self._heard + max(0.0, now - due))  # what stood still itself could not hear
            if self.seconds_since_heartbeat > self._timeout_s:
                logger.error(
                    "the process of the model has been silent for %.0f s; it is killed", self.seconds_since_heartbeat
                )
                self.kill()
                return
            if not self._waiting:
                self._write("ping")

    def _write(self, message: Any) -> None:
        self._transport.writelines(_frame(message))


def _start(process: multiprocessing.process.BaseProcess) -> None:
    """Start a process that a Ctrl-C at the terminal, which goes to all processes, does not end in a traceback."""
    resource_tracker.ensure_running()  # which a start does otherwise, and which lets Ctrl-C through afterwards
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # of this thread, and of what it starts
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _frame(message: Any) -> tuple[bytes, bytes]:
    body = pickle.dumps(message, protocol=5)
    return _HEADER.pack(len(body)), body


def _main(line: socket.socket, config: WorkerConfig) -> None:
    """Run the process: load, warm up, then answer until the line closes."""
    # A Ctrl-C goes to all processes of a terminal; the server decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    from hypclip.errors import HypclipError
    from serve.telemetry import logs

    logs.configure(config.log_format)
    os.nice(_NICE)
    with line, line.makefile("rb") as incoming:

        def say(message: Any) -> None:
            for part in _frame(message):
                line.sendall(part)

        try:
            logging.disable(logging.NOTSET if config.tells else logging.WARNING)
            card, model = _load(config)
            logging.disable(logging.NOTSET)
        except HypclipError as error:
            say(("failed", str(error)))
            return
        gc.collect()
        gc.freeze()  # see serve/command.py
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            say(("ready", card))
            while header := incoming.read(_HEADER.size):
                message = pickle.loads(incoming.read(_HEADER.unpack(header)[0]))  # noqa: S301 - our own server
                match message:
                    case "ping":
                        say("pong")
                    case ("batch", batch):
                        start = time.perf_counter()
                        rows = model.embed(batch)
                        say(("done", rows, time.perf_counter() - start))


@dataclass(frozen=True)
class _Model:
    """The backend of this process."""

    backend: Backend

    def embed(self, batch: _Batch) -> list[Array | None]:
        """Embed a batch; when that fails, each input by itself, so that one cannot fail those that came with it."""
        try:
            return self.embed_together(batch)
        except Exception as error:
            if _is_fatal(error):
                raise
            ones = _alone(batch)
            logger.exception("a batch of %d %ss failed", len(ones), "text" if isinstance(batch, tuple) else "image")
            return [None] if len(ones) == 1 else [self.embed(one)[0] for one in ones]

    def embed_together(self, batch: _Batch) -> list[Array | None]:
        """Embed a batch."""
        import torch

        from hypclip.towers.tokens import TokenRows

        if isinstance(batch, tuple):
            points = self.backend.text(TokenRows(torch.from_numpy(batch[0]), batch[1]))
        else:
            points = self.backend.image(torch.from_numpy(np.stack(batch)))
        return list(points.numpy())


def _joined(inputs: Sequence[Array]) -> _Batch:
    """Return texts as token ids joined end to end and their lengths, images as they are."""
    return (np.concatenate(inputs), [len(each) for each in inputs]) if inputs[0].ndim == 1 else inputs


def _alone(batch: _Batch) -> list[_Batch]:
    """Return a batch per input."""
    inputs = np.split(batch[0], np.cumsum(batch[1])[:-1]) if isinstance(batch, tuple) else batch
    return [_joined([each]) for each in inputs]


def _load(config: WorkerConfig) -> tuple[ModelCard, _Model]:
    import torch

    import hypclip
    from serve.inference.backends import load_backend
    from serve.inference.exports import Exports

    torch.set_num_threads(config.threads)
    model = hypclip.load(config.checkpoint, config.device)
    exports = Exports(config.checkpoint, config.onnx_cache)
    runs = _Model(load_backend(model, config.backend, config.precision, exports))
    text, image = model.tokenizer(["warm-up"])[0].numpy(), np.zeros((3, model.image_size, model.image_size), np.uint8)
    for count in (1, 2):  # what batches of one and of several need is set up now and not for the first request
        for each in (text, image):
            runs.embed_together(_joined([each] * count))
    return _card(model), runs


def _card(model: HypCLIP) -> ModelCard:
    from hypclip.towers.build import tower_config

    return ModelCard(
        model_id=model.model_id,
        revision=model.revision,
        geometry=model.config.geometry,
        curv=model.curv.mean().item(),  # of one number, but for a product, which the app refuses
        dim=model.dim,
        logit_scale=model.logit_scale.item(),
        entailment=model.config.entailment,
        image_size=model.image_size,
        text_cfg=tower_config(model.config.towers)["text_cfg"],
    )


def _is_fatal(error: Exception) -> bool:
    """Return whether an error leaves this process in a state that cannot be trusted."""
    import torch

    return isinstance(error, MemoryError | torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)
