"""The interface between the server and the model, and the implementation that runs the model in worker processes."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
from collections.abc import Callable, MutableMapping, Sequence
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from cachetools import LRUCache
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from hypclip.geometry.entailment import Entailment
from hypclip.towers.image import resize_and_crop
from hypclip.towers.text import Tokenizer
from serve.errors import StartFailed, WorkerFailed
from serve.inference.batching import Array, Batcher, Input, Limits
from serve.inference.worker import WorkerConfig, WorkerProcess
from serve.settings import Settings
from serve.telemetry.metrics import Metrics
from serve.telemetry.timing import recorded

_LONG_TEXT = 2_000
"""Characters of a request from which on tokenizing leaves the event loop."""


class TextPoints(NamedTuple):
    """Embeddings of texts, float32 space components on the CPU, and the number of tokens of all the texts."""

    points: Float[Tensor, "n d"]
    tokens: int


class Engine(Protocol):
    """A model that turns texts and images into points of one space."""

    @property
    def model_id(self) -> str:
        """Name of the weights; points of different ids are never compared."""
        ...

    @property
    def revision(self) -> str:
        """Hash of the weights, or "" when the id names them."""
        ...

    @property
    def geometry(self) -> str:
        """The space; the server refuses any but "lorentz"."""
        ...

    @property
    def curv(self) -> float:
        """The c > 0 of a space of curvature −c."""
        ...

    @property
    def dim(self) -> int:
        """D, the number of space components."""
        ...

    @property
    def logit_scale(self) -> float:
        """The inverse temperature of class probabilities."""
        ...

    @property
    def entailment(self) -> Entailment:
        """The rule by which one of its points entails another, which it was trained with."""
        ...

    @property
    def seconds_since_heartbeat(self) -> float:
        """Seconds since the last sign of life of the model; infinite when it is known to be gone."""
        ...

    def check_room(self) -> None:
        """Raise Overloaded if any input would be refused."""
        ...

    async def embed_text(self, texts: Sequence[str]) -> TextPoints:
        """Embed at least one text."""
        ...

    def prepare(self, image: Image.Image) -> Input:
        """Turn a decoded RGB image into an input of `embed_image`; called from several threads."""
        ...

    async def embed_image(self, images: Sequence[Input]) -> Float[Tensor, "n d"]:
        """Embed at least one prepared image; float32 space components on the CPU."""
        ...

    async def aclose(self) -> None:
        """Finish running batches, and free everything."""
        ...


class _Known(NamedTuple):
    """The embedding of a text, and the number of its tokens."""

    row: Array
    tokens: int


class ModelEngine:
    """A checkpoint run by worker processes, behind queues that make batches; `start` makes one."""

    def __init__(self, settings: Settings, metrics: Metrics, on_death: Callable[[WorkerFailed], None]):
        self._settings, self._metrics, self._on_death = settings, metrics, on_death
        self._workers: list[WorkerProcess] = []
        self._failed = False
        self._cache: MutableMapping[str, _Known] = LRUCache(settings.text_cache)

    @classmethod
    async def start(cls, settings: Settings, metrics: Metrics, on_death: Callable[[WorkerFailed], None]) -> Self:
        """Load the checkpoint of the settings, and run it once.

        Args:
            settings: checkpoint, backend, sizes of batches and queues.
            metrics: what is told of batches.
            on_death: called when a process dies: the server has to end, since nothing can be embedded any more.

        Raises:
            StartFailed: the model cannot be loaded or run.
        """
        engine = cls(settings, metrics, on_death)
        device = _device(settings.device)
        workers = settings.workers or (min(2, cores()) if device == "cpu" else 1)
        config = WorkerConfig(
            checkpoint=settings.checkpoint,
            device=device,
            backend=settings.backend,
            precision=settings.precision,
            threads=settings.threads or max(1, cores() // workers),
            log_format=settings.log_format,
            onnx_cache=settings.onnx_cache,
        )
        configs = [dataclasses.replace(config, tells=not i) for i in range(workers)]  # all would say the same
        starting = [
            asyncio.create_task(WorkerProcess.start(each, engine._died, settings.worker_timeout_s)) for each in configs
        ]
        try:
            engine._workers = await asyncio.gather(*starting)
            if engine._failed:
                raise StartFailed("a process of the model died while another one loaded; see its output")
        except BaseException:
            for task in starting:
                task.cancel()
            started = await asyncio.gather(*starting, return_exceptions=True)
            engine._workers = [worker for worker in started if not isinstance(worker, BaseException)]
            await engine.aclose()
            raise
        card = engine._workers[0].card
        engine.model_id, engine.revision, engine.geometry = card.model_id, card.revision, card.geometry
        engine.curv, engine.dim, engine.logit_scale = card.curv, card.dim, card.logit_scale
        engine.entailment = card.entailment
        engine._tokenizer = Tokenizer(card.text_cfg)
        engine._resize = resize_and_crop(card.image_size)
        limits = Limits(
            max_batch={"text": settings.max_batch_tokens, "image": settings.max_batch_image},
            max_wait_s=settings.batch_wait_ms / 1e3,
            max_items=settings.max_queue_items,
            max_bytes=settings.max_queue_bytes,
            max_expected_s=settings.max_queue_s,
        )
        engine._batcher = Batcher(engine._workers, limits, metrics)
        return engine

    model_id: str
    revision: str
    geometry: str
    curv: float
    dim: int
    logit_scale: float
    entailment: Entailment
    _tokenizer: Tokenizer
    _resize: Callable[[Image.Image], Image.Image]
    _batcher: Batcher

    @property
    def seconds_since_heartbeat(self) -> float:
        """See Engine."""
        return float("inf") if self._failed else max(worker.seconds_since_heartbeat for worker in self._workers)

    def check_room(self) -> None:
        """See Engine."""
        self._batcher.check_room()

    @property
    def pids(self) -> list[int | None]:
        """The worker processes."""
        return [worker.pid for worker in self._workers]

    async def embed_text(self, texts: Sequence[str]) -> TextPoints:
        """Embed texts; see Engine.

        Equal texts of a request are computed once, and those embedded lately, of which the cache has the embeddings,
        not at all; equal inputs of several requests in one batch are computed once by the `Batcher`.
        """
        known = {text: each for text in set(texts) if (each := self._cache.get(text)) is not None}
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if self._settings.text_cache:
            self._metrics.cache_hits.inc(len(texts) - len(missing))
            self._metrics.cache_misses.inc(len(missing))
        if missing:
            with recorded("pre"), self._metrics.preprocessing("text"):
                inputs = await self._tokenized(missing)
            rows = await self._batcher.run("text", inputs)
            new = dict(zip(missing, map(_Known, rows, (each.size for each in inputs)), strict=True))
            known.update(new)
            if self._settings.text_cache:
                self._cache.update(new)
        found = [known[text] for text in texts]
        return TextPoints(_points([each.row for each in found]), sum(each.tokens for each in found))

    def prepare(self, image: Image.Image) -> Input:
        """See Engine: pixels resized and cropped, known by a hash of them."""
        pixels = np.ascontiguousarray(np.asarray(self._resize(image)).transpose(2, 0, 1))
        return Input(pixels, hashlib.blake2b(pixels.data, digest_size=16).digest())

    async def embed_image(self, images: Sequence[Input]) -> Float[Tensor, "n d"]:
        """Embed images; see Engine."""
        return _points(await self._batcher.run("image", images))

    async def aclose(self) -> None:
        """See Engine."""
        await asyncio.gather(*(worker.aclose() for worker in self._workers))

    def _died(self, failure: WorkerFailed) -> None:
        first, self._failed = not self._failed, True
        if not hasattr(self, "_batcher"):
            return  # nobody has it yet; `start` fails
        self._batcher.fail(failure)
        if first:
            self._on_death(failure)

    async def _tokenized(self, texts: Sequence[str]) -> list[Input]:
        if sum(map(len, texts)) <= _LONG_TEXT:
            return self._tokens(texts)
        return await asyncio.to_thread(self._tokens, texts)

    def _tokens(self, texts: Sequence[str]) -> list[Input]:
        rows = [ids.numpy() for ids in self._tokenizer.encode(texts).split()]
        return [Input(row, row.tobytes()) for row in rows]


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _points(rows: Sequence[Array]) -> Float[Tensor, "n d"]:
    return torch.from_numpy(np.stack(rows))
