"""A made-up hierarchical collection as the disk of the explorer gets it, and a browser page that holds such a disk."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hypclip.geometry import lorentz
from hypclip.geometry.entailment import Cone, Entailment, pairwise_score
from hypclip.geometry.metric import Metric
from tests.support.browser import ARGUMENTS, chromium

ROOT = Path(__file__).parents[2]
EXPLORER = ROOT / "serve/explorer"
PAGE = ROOT / "tests/serve/explorer/page"
ORIGIN = "http://disk.test"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
NAMES = ["uint32", "float32", "uint8"]


@dataclass(frozen=True)
class Collection:
    """Points of families, kinds, names and images: directions branch, radii grow from general to specific."""

    points: Tensor
    angle: Tensor
    modality: Tensor
    names: list[str]
    curv: float

    @property
    def radius(self) -> Tensor:
        """Distances to the root, in float64."""
        return lorentz.polar(self.points, self.curv)[0].squeeze(-1) / math.sqrt(self.curv)


def collection(kinds: int = 8, names: int = 6, images: int = 8, curv: float = 0.13) -> Collection:
    """Make 7 families of so many kinds, names and images each, in 32 dimensions."""
    generator = torch.Generator().manual_seed(3)
    directions, radii, angles, modality, labels = [], [], [], [], []
    level = [
        (torch.eye(32, dtype=torch.float64)[i], 2 * math.pi * i / 7, 2 * math.pi / 7, f"family {i}") for i in range(7)
    ]
    plan = [(0.23, 0, kinds, "kind"), (0.3, 0, names, "name"), (0.45, 0, images, "image"), (0.57, 1, 0, "")]
    for radius, kind, children, word in plan:
        following = []
        for direction, start, span, label in level:
            directions.append(direction)
            radii.append(radius * math.exp(0.07 * torch.randn((), generator=generator).item()))
            angles.append(start + span / 2)
            modality.append(kind)
            labels.append(label)
            for i in range(children):
                near = direction + 0.16 * torch.randn(32, generator=generator, dtype=torch.float64)
                share = span / children
                following.append((near / near.norm(), start + i * share, share, f"{word} {len(following)}"))
        level = following
    tangent = torch.stack(directions) * torch.tensor(radii, dtype=torch.float64)[:, None]
    return Collection(
        lorentz.exp_map0(tangent, curv),
        torch.tensor(angles, dtype=torch.float64),
        torch.tensor(modality, dtype=torch.uint8),
        labels,
        curv,
    )


def container(header: dict[str, object], columns: Mapping[str, np.ndarray]) -> bytes:
    """Put columns behind a JSON header, as the routes of the explorer do."""
    described, parts, offset = [], [], 0
    for name, column in columns.items():
        data = column.tobytes()
        described.append({"name": name, "type": str(column.dtype), "offset": offset, "length": len(column)})
        parts.append(data + bytes(-len(data) % 4))
        offset += len(parts[-1])
    text = json.dumps({**header, "columns": described}).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<I", len(text)) + text + b"".join(parts)


def map_of(made: Collection) -> bytes:
    """Return the map of a collection."""
    radius = made.radius
    counts = {"text": int((made.modality == 0).sum()), "image": int((made.modality == 1).sum()), "embedding": 0}
    header = {
        "collection": "made",
        "version": "1",
        "curv": made.curv,
        "count": len(radius),
        "max_radius": radius.max().item(),
        "quantiles": radius.quantile(torch.linspace(0, 1, 33, dtype=torch.float64)).tolist(),
        "rings": [0.2, 0.4, 0.6],
        "modalities": ["text", "image", "embedding"],
        "counts": counts,
        "names": made.names,
    }
    return container(
        header,
        {
            "key": np.arange(len(radius), dtype=np.uint32),
            "radius": radius.numpy().astype(np.float32),
            "angle": made.angle.numpy().astype(np.float32),
            "modality": made.modality.numpy(),
        },
    )


def focus_of(made: Collection, of: int, rule: Entailment | None = None, target: int | None = None) -> bytes:
    """Return the focus on one point of a collection, or the plane of two."""
    rule = rule or Cone()
    x = made.points[of : of + 1]
    above = pairwise_score(rule, made.points, x, Metric(), made.curv)[:, 0]
    below = pairwise_score(rule, x, made.points, Metric(), made.curv)[0]
    flags = (above >= 0).to(torch.uint8) + 2 * (below >= 0).to(torch.uint8)
    flags[of] = 4
    header: dict[str, object] = {
        "version": "1",
        "curv": made.curv,
        "of": {"radius": made.radius[of].item(), "modality": "image", "id": str(of)},
        "rule": {"form": rule.form, **{k: v for k, v in vars(rule).items() if k not in ("form", "strict")}},
        "counts": {"ancestors": int((flags == 1).sum()), "descendants": int((flags == 2).sum())},
        "near_misses": {
            name: sorted((-margin[flags & inside == 0]).float().tolist())[:24][-1]
            for name, margin, inside in (("above", above, 1 | 4), ("below", below, 2 | 4))
        },
    }
    radius, angle = made.radius, angles_to(made, of)
    if target is not None:
        radius, angle, header["target"], header["root"] = about(made, of, target)
    return container(
        header,
        {
            "key": np.arange(len(radius), dtype=np.uint32),
            "radius": radius.numpy().astype(np.float32),
            "angle": angle.numpy().astype(np.float32),
            "flags": flags.numpy(),
            "above": -above.numpy().astype(np.float32),
            "below": -below.numpy().astype(np.float32),
        },
    )


def angles_to(made: Collection, of: int) -> Tensor:
    """Return the angles at the root between the points and one of them, with the side that the map shows them on."""
    unit = lorentz.polar(made.points, made.curv)[2]
    theta = 2 * torch.atan2((unit - unit[of]).norm(dim=-1), (unit + unit[of]).norm(dim=-1))
    turn = torch.remainder(made.angle - made.angle[of] + math.pi, 2 * math.pi) - math.pi
    return torch.where(turn < 0, -theta, theta)


def about(made: Collection, of: int, target: int) -> tuple[Tensor, Tensor, dict[str, float], dict[str, float]]:
    """Return distances from a point, angles at it from the direction of another, and both for that and the root."""
    points = torch.cat([made.points, torch.zeros(1, made.points.shape[1], dtype=torch.float64)])
    x = points[of].expand_as(points)
    distance = lorentz.dist(x, points, made.curv)
    tangent = lorentz.log_map(x, points, made.curv)
    time = (points[of] * tangent).sum(-1) / lorentz.time_component(x, made.curv).squeeze(-1)
    inner = tangent @ tangent[target] - time * time[target]
    angle = torch.acos((inner / (distance * distance[target]).clamp_min(1e-12)).clamp(-1, 1))
    angle[of] = 0
    turn = torch.remainder(made.angle - made.angle[target] + math.pi, 2 * math.pi) - math.pi
    angle[:-1] = torch.where(turn < 0, -angle[:-1], angle[:-1])
    reached = {"radius": made.radius[target].item(), "distance": distance[target].item()}
    return distance[:-1], angle[:-1], reached, {"radius": distance[-1].item(), "angle": angle[-1].item()}


@contextmanager
def disk_page(data: Mapping[str, bytes], width: int = 800, height: int = 800, **context: object) -> Iterator[object]:
    """Open a page with a disk of `data["map"]`; the other entries are there for `columns(name)`. No network is used."""
    from playwright.sync_api import Route, sync_playwright

    def answer(route: Route) -> None:
        path = route.request.url.removeprefix(ORIGIN)
        if path.startswith("/data/"):
            route.fulfill(body=data[path.removeprefix("/data/")], content_type="application/octet-stream")
            return
        file = EXPLORER / path.removeprefix("/explorer/") if path.startswith("/explorer/") else PAGE / path[1:]
        route.fulfill(body=file.read_bytes(), content_type=TYPES[file.suffix])

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        try:
            page = browser.new_context(viewport={"width": width, "height": height}, **context).new_page()  # type: ignore
            failures: list[str] = []
            page.on("pageerror", lambda error: failures.append(str(error)))
            page.on("console", lambda m: failures.append(m.text) if m.type in ("error", "warning") else None)
            page.route("**/*", answer)
            page.goto(f"{ORIGIN}/index.html")
            page.wait_for_function("window.ready === true")
            yield page
            assert not failures, failures
        finally:
            browser.close()
