"""A fake engine whose points can be predicted, pictures, and the one check of the error shape."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from hypclip.geometry import lorentz
from hypclip.geometry.entailment import Cone, Entailment
from serve.app import create_app
from serve.inference.batching import Input
from serve.inference.engine import TextPoints
from serve.settings import Settings

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


class FakeEngine:
    """A text becomes random numbers seeded by it; a picture becomes the colours of its four corners, 0…1."""

    geometry = "lorentz"
    curv = 2.0
    dim = 12
    logit_scale = 5.0
    entailment: Entailment = Cone()
    revision = ""
    seconds_since_heartbeat = 0.0
    closed = False

    def __init__(self, model_id: str = "fake-1"):
        self.model_id = model_id

    def check_room(self) -> None:
        pass

    async def embed_text(self, texts: Sequence[str]) -> TextPoints:
        return TextPoints(torch.stack([text_point(text) for text in texts]), sum(len(text.split()) for text in texts))

    def prepare(self, image: Image.Image) -> Input:
        array = corners(image).numpy()
        return Input(array, array.tobytes())

    async def embed_image(self, images: Sequence[Input]) -> Tensor:
        return torch.stack([torch.from_numpy(image.array) for image in images])

    async def aclose(self) -> None:
        self.closed = True


def text_point(text: str) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
    return lorentz.exp_map0(0.4 * torch.randn(FakeEngine.dim, generator=generator), FakeEngine.curv)


def corners(image: Image.Image) -> Tensor:
    """Top left, top right, bottom left, bottom right."""
    assert image.mode == "RGB"
    w, h = image.width - 1, image.height - 1
    places = [(0, 0), (w, 0), (0, h), (w, h)]
    return torch.tensor([image.getpixel(place) for place in places]).flatten() / 255


def colours(*corners: tuple[int, int, int]) -> Tensor:
    return torch.tensor(corners).flatten() / 255


def quadrants(size: tuple[int, int] = (64, 48), corners: tuple = (RED, GREEN, BLUE, WHITE)) -> Image.Image:
    image = Image.new("RGB", (2, 2))
    for place, colour in zip([(0, 0), (1, 0), (0, 1), (1, 1)], corners, strict=True):
        image.putpixel(place, colour)
    return image.resize(size, Image.Resampling.NEAREST)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def png_header(width: int, height: int) -> str:
    """A PNG that claims a size and holds no pixels: reading its header works, decoding it does not."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    chunks = chunk(b"IHDR", size + bytes([8, 2, 0, 0, 0])) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunks).decode()


def app_at(path: Any, engine: Any = None, **settings: Any) -> Any:
    return create_app(Settings(index=path / "index", create_index=True, **settings), engine or FakeEngine())


def assert_error(response: Any, status: int, type: str, *parts: str) -> None:
    """The contract: the status, exactly three fields, the id of the header, and a message that says these things."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error"}
    error = body["error"]
    assert error.keys() == {"type", "message", "request_id"}
    assert error["type"] == type, error
    assert error["request_id"] == response.headers["x-request-id"] != ""
    for part in parts:
        assert part in error["message"], error["message"]
    assert "Traceback" not in error["message"]
