"""Draw the cone of a point, with the words of docs/concepts.md: docs/cone.svg.

python docs/draw_cone.py

A Poincaré disk, which shows angles as they are. Every line is a geodesic that hypclip.geometry computes; curvature −1,
K = 0.3, eta = 1.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hypclip.geometry import cones, lorentz, poincare

CURV, K, RHO = 1.0, 0.3, 0.9
WIDTH, HEIGHT, LEFT, MIDDLE, REACH = 620, 640, 60.0, 280.0, 420.0
"""Of the picture, of its root, and the radius of the disk, of which the right side is seen."""
BLUE, GREEN, RED, GREY = "#1b6ca8", "#2e8b57", "#c0392b", "#777"
INSIDE, OUTSIDE = (17.0, 1.1), (-66.0, 0.95)
"""Angle to the axis in degrees and distance, from the apex, of a point in the cone and of one outside."""


def main() -> int:
    """Write docs/cone.svg; return the exit code."""
    (Path(__file__).parent / "cone.svg").write_text(drawing(), encoding="utf-8")
    return 0


def drawing() -> str:
    """Return the SVG."""
    apex = lorentz.exp_map0(torch.tensor([RHO, 0.0], dtype=torch.float64), CURV)
    omega = math.degrees(cones.half_aperture(apex, CURV, K).item())
    x, y = _at(apex)
    upper, lower = (_ray(apex, sign * omega, 5.0) for sign in (1, -1))
    inside, outside = (_ray(apex, *place) for place in (INSIDE, OUTSIDE))
    plane = [*reversed(_ray(apex, 90, 5.0)), *_ray(apex, -90, 5.0)]
    region = _path([*reversed(upper), *lower])
    (ix, iy), (ox, oy) = inside[-1], outside[-1]
    parts = [
        f'<circle cx="{LEFT}" cy="{MIDDLE}" r="{REACH}" fill="#fbfbfb" stroke="#bbb"/>',
        f'<path d="{region} A{REACH} {REACH} 0 0 0 {upper[-1][0]:.1f} {upper[-1][1]:.1f}Z" fill="{BLUE}" '
        'fill-opacity="0.13"/>',
        f'<path d="{_path(plane)}" fill="none" stroke="{GREY}" stroke-dasharray="2 5" stroke-width="1.5"/>',
        *(f'<path d="{_path(line)}" fill="none" stroke="{BLUE}" stroke-width="2"/>' for line in (upper, lower)),
        f'<path d="M{LEFT} {MIDDLE}H{x:.1f}" stroke="black" stroke-width="1.5"/>',
        f'<path d="M{x:.1f} {y:.1f}H{LEFT + REACH}" stroke="black" stroke-dasharray="7 5"/>',
        f'<path d="{_path(inside)}" fill="none" stroke="{GREEN}" stroke-width="2"/>',
        f'<path d="{_path(outside)}" fill="none" stroke="{RED}" stroke-width="2"/>',
        _arc(x, y, 88, 0, omega, BLUE),
        _arc(x, y, 56, 0, INSIDE[0], GREEN),
        _arc(x, y, 56, 0, OUTSIDE[0], RED),
        _arc(x, y, 88, -omega, OUTSIDE[0], RED, 5),
        *(_dot(*place) for place in ((LEFT, MIDDLE, "black"), (x, y, BLUE), (ix, iy, GREEN), (ox, oy, RED))),
        _text(LEFT, MIDDLE + 26, "root", "black", "middle"),
        _text((LEFT + x) / 2, MIDDLE + 22, "radius", "black", "middle"),
        _text(x - 10, y - 14, "apex: “a dog”", BLUE, "end"),
        _text(LEFT + REACH + 8, MIDDLE + 5, "axis", "black"),
        _text(x + 90, y - 34, "ω", BLUE),
        _text(x + 60, y - 5, "φ", GREEN),
        _text(x + 54, y + 40, "φ", RED),
        _text(x + 66, y + 82, "margin", RED),
        _text(ix + 10, iy - 8, "photo of a dog", GREEN),
        _text(ox + 12, oy + 14, "photo of a cat", RED),
        _text(upper[-1][0] + 8, upper[-1][1], "cone", BLUE),
        _text(x - 6, 60, "half-space: right of the dots", GREY, "end"),
    ]
    legend = (
        (BLUE, "ω  half aperture of the cone: asin(2K / √c|x|)"),
        (GREEN, "φ  exterior angle at the apex, from the axis: φ ≤ ω, inside"),
        (RED, "margin = φ − ω, the thick arc: above 0, outside"),
    )
    parts.append(f'<rect y="{HEIGHT - 90}" width="100%" height="90" fill="white"/>')
    parts += [_text(20, HEIGHT - 62 + 24 * i, words, colour) for i, (colour, words) in enumerate(legend)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="16"><rect width="100%" height="100%" fill="white"/>{chr(10).join(parts)}</svg>\n'
    )


def _ray(start: Tensor, degrees: float, length: float) -> list[tuple[float, float]]:
    """Return the places of a geodesic from a point, at an angle to the axis; angles are positive upwards."""
    ahead = lorentz.log_map(start, 2 * start, CURV)  # the axis; across it there is no radial part to correct for
    norm = math.sqrt(1 + CURV * start.square().sum().item())
    along = ahead / ahead.norm() * norm
    across = torch.tensor([0.0, 1.0], dtype=start.dtype)
    angle = math.radians(degrees)
    tangent = math.cos(angle) * along + math.sin(angle) * across
    return [_at(lorentz.exp_map(start, length * t / 60 * tangent, CURV)) for t in range(61)]


def _at(point: Tensor) -> tuple[float, float]:
    px, py = (REACH * poincare.from_lorentz(point, CURV) * math.sqrt(CURV)).tolist()
    return LEFT + px, MIDDLE - py


def _path(line: list[tuple[float, float]]) -> str:
    return "M" + " ".join(f"{px:.1f} {py:.1f}" for px, py in line)


def _arc(x: float, y: float, radius: float, start: float, end: float, colour: str, width: float = 1.5) -> str:
    (ax, ay), (bx, by) = (
        (x + radius * math.cos(math.radians(a)), y - radius * math.sin(math.radians(a))) for a in (start, end)
    )
    sweep = int(end < start)
    return (
        f'<path d="M{ax:.1f} {ay:.1f}A{radius} {radius} 0 0 {sweep} {bx:.1f} {by:.1f}" fill="none" stroke="{colour}" '
        f'stroke-width="{width}"/>'
    )


def _dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{colour}"/>'


def _text(x: float, y: float, words: str, colour: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{words}</text>'


if __name__ == "__main__":
    sys.exit(main())
