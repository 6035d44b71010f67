"""The seam between the server and the model: what the routes ask for, and the implementation that runs it here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, Self

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from hypclip import HypCLIP
from hypclip.geometry.metric import Geometry


class Engine(Protocol):
    """Something that turns texts and pictures into points of one space."""

    @property
    def model_id(self) -> str:
        """Name of the weights; points of different ids are never compared."""
        ...

    @property
    def geometry(self) -> Geometry:
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

    async def embed_text(self, texts: list[str]) -> Float[Tensor, "n d"]:
        """Embed at least one text; float32 space components on the CPU."""
        ...

    async def embed_image(self, images: list[Image.Image]) -> Float[Tensor, "n d"]:
        """Embed at least one decoded RGB picture; float32 space components on the CPU."""
        ...


class ModelEngine:
    """A HypCLIP run in one worker thread, one call after the other, so that the event loop never waits for it.

    Args:
        model: the model; it is not used from anywhere else while the engine lives.
    """

    def __init__(self, model: HypCLIP):
        self._model = model
        # The number of threads is a setting of each thread, taken from where it happens to stand when one begins.
        self._worker = ThreadPoolExecutor(
            1, "hypclip-engine", initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)
        )
        self.model_id: str = model.model_id
        self.revision: str = model.revision
        self.geometry: Geometry = model.config.geometry
        self.curv = model.curv.mean().item()  # of one number, but for a product, which the app refuses
        self.dim = model.dim
        self.logit_scale = model.logit_scale.item()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.shutdown()

    def warm_up(self) -> None:
        """Run both towers once, so that a model that cannot run stops the start and not the first request."""
        self._model.embed_text(["warm-up"])
        self._model.embed_image([Image.new("RGB", (32, 32))])

    async def embed_text(self, texts: list[str]) -> Float[Tensor, "n d"]:
        """Embed texts; see Engine."""
        return await self._run(lambda: self._model.embed_text(texts))

    async def embed_image(self, images: list[Image.Image]) -> Float[Tensor, "n d"]:
        """Embed pictures; see Engine."""
        return await self._run(lambda: self._model.embed_image(images))

    async def _run(self, call: Callable[[], Tensor]) -> Tensor:
        return await asyncio.get_running_loop().run_in_executor(self._worker, call)
