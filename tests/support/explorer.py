"""A server with a small collection for the explorer: colours, their families and images, ever more specific."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi.testclient import TestClient

from hypclip.geometry import lorentz
from serve.app import create_app
from serve.inference.engine import TextPoints
from serve.settings import Settings
from tests.support.ports import free_port
from tests.support.serving import FakeEngine, colours, encoded, quadrants, text_point

FAMILIES = {
    "a warm colour": {"red": (220, 30, 30), "orange": (240, 140, 20), "yellow": (240, 220, 40)},
    "a cold colour": {"blue": (30, 60, 220), "teal": (20, 150, 160), "violet": (120, 40, 200)},
}
NAMES = {name: colour for family in FAMILIES.values() for name, colour in family.items()}
IMAGES = 8
"""Of each colour."""


def at(direction: torch.Tensor, radius: float) -> torch.Tensor:
    """Return the point in a direction from the root, `radius` away from it."""
    return lorentz.exp_map0(radius * direction / direction.norm(), FakeEngine.curv).float()


def _direction(colour: tuple[int, int, int]) -> torch.Tensor:
    return colours(*[colour] * 4) - 0.5


class Palette(FakeEngine):
    """An engine to which names of colours are general and images of them specific."""

    async def embed_text(self, texts: Any) -> TextPoints:
        points = []
        for text in texts:
            name = text.removeprefix("a photo of a ")
            if name in NAMES:
                points.append(at(_direction(NAMES[name]), 0.35))
            elif name in FAMILIES:
                points.append(at(torch.stack([_direction(c) for c in FAMILIES[name].values()]).sum(0), 0.12))
            else:
                points.append(text_point(text))
        return TextPoints(torch.stack(points), len(texts))

    async def embed_image(self, images: Any) -> torch.Tensor:
        images = [torch.from_numpy(image.array) - 0.5 for image in images]
        return torch.stack([at(x, 1.0 + 0.5 * float(x.std())) for x in images])


def points() -> list[dict[str, Any]]:
    """Return the points to write: texts, and images with a colour as their class."""
    draw = random.Random(0)
    found: list[dict[str, Any]] = []
    for family, names in FAMILIES.items():
        found.append({"id": f"family/{family}", "text": family, "metadata": {"caption": family}})
        for name, colour in names.items():
            found.append(
                {"id": f"name/{name}", "text": name, "metadata": {"caption": name, "text": name, "kind_of": family}}
            )
            for i in range(IMAGES):
                corners = tuple(tuple(max(0, min(255, c + draw.randint(-25, 25))) for c in colour) for _ in range(4))
                size = draw.choice([(80, 60), (60, 80), (64, 64)])
                about = {"class": name, "year": 2000 + i, "family": family}
                found.append({"id": f"{name}/{i}.png", "image": encoded(quadrants(size, corners)), "metadata": about})
    return found


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    '"><script>alert(1)</script>',
    "<svg/onload=alert(1)>",
    "javascript:alert(1)",
    "{{constructor.constructor('alert(1)')()}}",
    "${alert(1)}",
    "' onmouseover='alert(1)",
    "</textarea><iframe srcdoc='<script>alert(1)</script>'>",
    "\u202egnp.exe\u2066 a\u200bb",
    "bell\u0007 tab\t escape\u001b[31m",
    '=HYPERLINK("http://example.com")',
    "../../etc/passwd?x=1#y%2F",
)
"""Texts that a page must show as they are."""


def hostile_points() -> list[dict[str, Any]]:
    """Return points whose ids, captions and fields are hostile."""
    fields = [{"caption": text, text.replace('"', "").replace("\\", "") or "x": text} for text in HOSTILE]
    plain = [{name: value for name, value in about.items() if name.isprintable()} for about in fields]
    return [{"id": text, "text": f"text {i}", "metadata": plain[i]} for i, text in enumerate(HOSTILE)]


LONG = "long/" + "é" * 507
"""The start of ids of 512 characters."""
FIELDS = 200


def odd_collections() -> dict[str, list[dict[str, Any]]]:
    """Return the points of collections at the edge of what there may be, by name."""
    root = {"embedding": [0.0] * FakeEngine.dim}
    wide = [{f"field {i}": i + k % 3 if i % 2 else f"value {k % 3}" for i in range(FIELDS)} for k in range(9)]
    return {
        "empty": [],
        "single": [{"id": "only", "text": "red"}],
        "together": [{"id": f"same {i}", "text": "red", "metadata": {"caption": f"red {i}"}} for i in range(50)],
        "rooted": [{"id": f"at the root {i}", **root} for i in range(5)],
        "wide": [
            {"id": f"wide {i}", "text": f"red {i}", "metadata": {**wide[i], "caption": f"red {i}"}} for i in range(9)
        ],
        "long": [{"id": f"{LONG[:-1]}{i}", "text": f"red {i}"} for i in range(9)],
    }


def make_app(folder: Path) -> Any:
    """Build an app whose store is filled when it starts: `default`, `hostile`, and `empty`."""
    settings = _settings(folder)
    _fill(settings, Palette(), {"default": points(), "hostile": hostile_points(), "empty": []})
    return create_app(settings, Palette())


def make_odd_app(folder: Path) -> Any:
    """Build an app with `default`, the odd collections, and `foreign` of another model."""
    settings = _settings(folder)
    _fill(settings, Palette(), {"default": points(), **odd_collections()})
    _fill(settings, Palette("another-model"), {"foreign": [{"id": "far", "text": "red"}]})
    return create_app(settings, Palette())


def _settings(folder: Path) -> Settings:
    return Settings(index=folder / "index", create_index=True, access_log=False)


def _fill(settings: Settings, engine: Palette, collections: dict[str, list[dict[str, Any]]]) -> None:
    """Write points through the API; a collection without any loses the one that it is made by."""
    with TestClient(create_app(settings, engine)) as client:
        for name, rows in collections.items():
            path = f"/collections/{name}/points"
            written = client.put(path, json={"points": rows or [{"id": "gone", "text": "red"}]})
            assert written.status_code == 200, written.text
            if not rows:
                client.request("DELETE", path, json={"ids": ["gone"]})


class Running:
    """An app behind a port of this machine, in a thread."""

    def __init__(self, app: Any):
        self.port = free_port()
        config = uvicorn.Config(app, host="127.0.0.1", port=self.port, log_config=None, access_log=False, lifespan="on")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        end = time.monotonic() + 60
        while not self._server.started:
            assert time.monotonic() < end, "the server has not started"
            time.sleep(0.02)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(60)
