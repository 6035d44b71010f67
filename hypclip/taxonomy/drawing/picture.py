"""A picture of arcs, dots and names, written as SVG or as PNG."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from hypclip.errors import InputError
from hypclip.files import write_output
from hypclip.taxonomy.drawing.labels import Label, shown

Point = tuple[float, float]
FONTS = "Helvetica, Arial, 'Liberation Sans', sans-serif"
_OVERSAMPLED = 2
_STRAIGHT = 40.0
"""Arcs of a larger radius, that of the disk being 1, are drawn as straight lines."""


class Arcs(NamedTuple):
    """Geodesics of the unit disk between pairs of points, of one look."""

    pairs: Sequence[tuple[Point, Point]]
    colour: str
    width: float


class Dot(NamedTuple):
    """A phrase at a place of the unit disk; `title` is told where the pointer is on it."""

    at: Point
    radius: float
    colour: str
    title: str
    hollow: bool = False


class Name(NamedTuple):
    """A label and its look."""

    label: Label
    colour: str
    bold: bool = False


class Ring(NamedTuple):
    """A circle around the centre, its radius in the unit disk, and the distance that it stands for."""

    radius: float
    words: str


@dataclass(frozen=True)
class Picture:
    """A disk and what is in it.

    Args:
        title: in words, for those who cannot see it.
        side: of the square, in pixels.
        reach: radius of the disk, in pixels.
        rings: circles around the centre.
        arcs: drawn in this order.
        dots: drawn in this order, over the arcs.
        names: drawn over the dots.
    """

    title: str
    side: int
    reach: int
    rings: Sequence[Ring]
    arcs: Sequence[Arcs]
    dots: Sequence[Dot]
    names: Sequence[Name]

    def place(self, point: Point) -> Point:
        """Return where a point of the unit disk is, in pixels from the top left."""
        return self.side / 2 + self.reach * point[0], self.side / 2 - self.reach * point[1]

    def write(self, file: Path) -> None:
        """Write the picture; what is in the file moves aside.

        Raises:
            InputError: the name ends neither with .svg nor with .png.
            OSError: it cannot be written.
        """
        check_name(file)
        write_output(file, self.svg() if file.suffix.lower() == ".svg" else self.png())

    def svg(self) -> str:
        """Return the picture as SVG: about 120 bytes a phrase."""
        middle = f"{self.side / 2:g}"
        parts = [f'<circle cx="{middle}" cy="{middle}" r="{self.reach}" fill="#fcfcfb" stroke="#8a8f98"/>']
        for ring in self.rings:
            parts.append(
                f'<circle cx="{middle}" cy="{middle}" r="{ring.radius * self.reach:.1f}" fill="none" stroke="#e4e6ea"/>'
            )
        for arcs in self.arcs:
            path = "".join(self._arc(p, q) for p, q in arcs.pairs)
            parts.append(f'<path d="{path}" fill="none" stroke="{arcs.colour}" stroke-width="{arcs.width:g}"/>')
        for colour, dots in _runs(self.dots):
            marks = "".join(self._dot(dot) for dot in dots)
            parts.append(f'<g fill="{colour}" stroke="{colour}">{marks}</g>')
        for ring in self.rings:
            x, y = self.place((0.0, ring.radius))
            parts.append(
                f'<text x="{x:.1f}" y="{y - 4:.1f}" font-size="10" fill="#9aa0a8" text-anchor="middle">'
                f"{ring.words}</text>"
            )
        look = 'stroke="#fff" stroke-width="3" stroke-linejoin="round" paint-order="stroke"'
        parts.append(f"<g {look}>{''.join(map(_text, self.names))}</g>")
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.side} {self.side}" role="img" '
            f'font-family="{FONTS}"><title>{escape(self.title)}</title>'
            f'<rect width="100%" height="100%" fill="#fff"/>{chr(10).join(parts)}</svg>\n'
        )

    def png(self, width: int = 0) -> bytes:
        """Return the picture as PNG; letters outside of the Latin alphabet need SVG, for Pillow's font has no others.

        Args:
            width: in pixels; 0 is the side of the picture.
        """
        k = _OVERSAMPLED * (width or self.side) / self.side
        image = Image.new("RGB", (round(k * self.side),) * 2, "#ffffff")
        draw = ImageDraw.Draw(image)

        def circle(at: Point, radius: float, fill: str | None, outline: str) -> None:
            x, y = (k * value for value in at)
            box = (x - k * radius, y - k * radius, x + k * radius, y + k * radius)
            draw.ellipse(box, fill, outline, max(1, round(k)))

        middle = self.place((0.0, 0.0))
        circle(middle, float(self.reach), "#fcfcfb", "#8a8f98")
        for ring in self.rings:
            circle(middle, ring.radius * self.reach, None, "#e4e6ea")
        for arcs in self.arcs:
            for p, q in arcs.pairs:
                line = [tuple(k * value for value in self.place(point)) for point in points_between(p, q)]
                draw.line(line, arcs.colour, max(1, round(k * arcs.width)), "curve")
        for dot in self.dots:
            circle(self.place(dot.at), dot.radius, "#ffffff" if dot.hollow else dot.colour, dot.colour)
        for ring in self.rings:
            x, y = self.place((0.0, ring.radius))
            _write(image, Name(Label(ring.words, x, y - 8, 10.0, "middle"), "#9aa0a8"), k)
        for name in self.names:
            _write(image, name, k)
        kept = io.BytesIO()
        image.resize((width or self.side,) * 2, Image.Resampling.LANCZOS).save(kept, "PNG", optimize=True)
        return kept.getvalue()

    def _arc(self, p: Point, q: Point) -> str:
        (px, py), (qx, qy) = self.place(p), self.place(q)
        circle = orthogonal_circle(p, q)
        if circle is None:
            return f"M{px:.1f} {py:.1f}L{qx:.1f} {qy:.1f}"
        (cx, cy), radius = circle
        sweep = int((p[0] - cx) * (q[1] - cy) - (p[1] - cy) * (q[0] - cx) < 0)
        r = f"{radius * self.reach:.0f}" if radius > 0.1 else f"{radius * self.reach:.1f}"
        return f"M{px:.1f} {py:.1f}A{r} {r} 0 0 {sweep} {qx:.1f} {qy:.1f}"

    def _dot(self, dot: Dot) -> str:
        x, y = self.place(dot.at)
        hollow = ' fill="#fff"' if dot.hollow else ""
        title = escape(shown(dot.title, 200))
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{dot.radius:g}"{hollow}><title>{title}</title></circle>'


def check_name(file: Path) -> None:
    """Refuse a file that is no picture by its name.

    Raises:
        InputError: it ends neither with .svg nor with .png.
    """
    if file.suffix.lower() not in (".svg", ".png"):
        raise InputError(f"a picture is written to a file .svg or .png, got {file}")


def orthogonal_circle(p: Point, q: Point) -> tuple[Point, float] | None:
    """Return centre and radius of the circle through two points that meets the unit circle at right angles.

    None where the geodesic is a straight line, or as good as one.
    """
    cross = p[0] * q[1] - p[1] * q[0]
    if abs(cross) < 1e-9:
        return None
    a, b = (1 + p[0] ** 2 + p[1] ** 2) / 2, (1 + q[0] ** 2 + q[1] ** 2) / 2
    x, y = (a * q[1] - b * p[1]) / cross, (b * p[0] - a * q[0]) / cross
    radius = math.hypot(x - p[0], y - p[1])
    return None if radius > _STRAIGHT else ((x, y), radius)


def points_between(p: Point, q: Point, steps: int = 16) -> list[Point]:
    """Return points along the geodesic of the unit disk from one point to another, both with them."""
    circle = orthogonal_circle(p, q)
    if circle is None:
        return [p, q]
    (x, y), radius = circle
    start, end = (math.atan2(point[1] - y, point[0] - x) for point in (p, q))
    turn = math.remainder(end - start, 2 * math.pi)
    angles = [start + turn * i / steps for i in range(steps + 1)]
    return [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]


def _runs(dots: Sequence[Dot]) -> list[tuple[str, list[Dot]]]:
    """Return neighbours of one colour together."""
    runs: list[tuple[str, list[Dot]]] = []
    for dot in dots:
        if not runs or runs[-1][0] != dot.colour:
            runs.append((dot.colour, []))
        runs[-1][1].append(dot)
    return runs


def _text(name: Name) -> str:
    label = name.label
    x, y = f"{label.x:.1f}", f"{label.y:.1f}"
    turn = f' transform="rotate({label.turn:.1f} {x} {y})"' if label.turn else ""
    bold = ' font-weight="bold"' if name.bold else ""
    return (
        f'<text x="{x}" y="{y}" dy=".35em" font-size="{label.size:g}" fill="{name.colour}" '
        f'text-anchor="{label.anchor}"{bold}{turn}>{escape(label.text)}</text>'
    )


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _write(image: Image.Image, name: Name, k: float) -> None:
    """Write a name with a white border over the image, `k` pixels to one of the picture."""
    label = name.label
    font = _font(max(1, round(k * label.size)))
    border, bold = max(1, round(1.5 * k)), round(k * label.size / 28) if name.bold else 0
    length = math.ceil(font.getlength(label.text)) + 2 * (border + bold)
    height = math.ceil(1.6 * k * label.size) + 2 * border
    tile = Image.new("RGBA", (length, height), name.colour)
    masks = [Image.new("L", tile.size, 0) for _ in range(2)]
    for mask, stroke in zip(masks, (border + bold, bold), strict=True):
        at = (length / 2, height / 2)
        ImageDraw.Draw(mask).text(at, label.text, 255, font, anchor="mm", stroke_width=stroke)
    tile.paste("#ffffff", mask=Image.eval(masks[1], lambda value: 255 - value))
    tile.putalpha(masks[0])
    turned = tile.rotate(-label.turn, Image.Resampling.BICUBIC, expand=True)
    away = {"start": length / 2, "middle": 0.0, "end": -length / 2}[label.anchor]
    angle = math.radians(label.turn)
    x, y = k * label.x + away * math.cos(angle), k * label.y + away * math.sin(angle)
    corner = (round(x - turned.width / 2), round(y - turned.height / 2))
    image.paste(turned, corner, turned)
