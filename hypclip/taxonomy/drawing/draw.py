"""A taxonomy and its points as a picture of the Poincaré disk."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.errors import InputError, first_few
from hypclip.geometry import lorentz, poincare
from hypclip.geometry.rings import rings
from hypclip.taxonomy.drawing.labels import Label, Room, shown
from hypclip.taxonomy.drawing.picture import Arcs, Dot, Name, Picture, Point, Ring
from hypclip.taxonomy.drawing.tree import Tree
from hypclip.taxonomy.graph import Taxonomy

SIDE, REACH = 1100, 430
MOST = 1200
"""Phrases of a picture: all of WordNet's mammals."""


def _mixed(colour: str, share: float = 0.45) -> str:
    """Return a colour with white in it."""
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 + share * (part - 255)):02x}" for part in parts)


COLOURS = (
    "#1b6ca8",
    "#c0392b",
    "#2e8b57",
    "#8e5ea2",
    "#c77d0a",
    "#2f8f8f",
    "#a0522d",
    "#5b6abf",
    "#7a8b2d",
    "#b0457b",
    "#3b7a57",
    "#7d5a9b",
)
INK, GREY = "#22262c", "#6b7480"
_PALE = {colour: _mixed(colour) for colour in (*COLOURS, GREY)}
"""Colours of lines."""
_DOTS = (6.5, 5.0, 4.0, 3.2, 2.6, 2.1)
"""Radii by steps from the centre; the last one from there on."""
_LEAF = 2.0
"""The largest radius of a phrase that nothing drawn is beyond."""
_SIZES = (19.0, 14.0, 12.0, 10.5, 9.5, 8.5)
"""Heights of names by steps, the same."""
_NEAR_RIM = 0.74
"""Share of the disk's radius from which on names stand along the ray of their point."""
_FAR = 0.93
"""Where in the disk the farthest twentieth of the points begins, when its scale is free."""
_FARTHEST, _FARTHEST_BESIDE = 0.985, 0.9975
"""And where the farthest point is at most; farther out where it is not below the centre."""
_SYNSET = re.compile(r"(.+)\.[nvars]\.\d\d")


def phrase_name(phrase: str) -> str:
    """Return how a picture names a phrase: that of WordNet's `domestic_dog.n.01` is "domestic dog"."""
    synset = _SYNSET.fullmatch(phrase)
    return synset[1].replace("_", " ") if synset else phrase


def disk_picture(
    taxonomy: Taxonomy,
    phrases: Sequence[str],
    x: Float[Tensor, "n d"],
    curv: float = 1.0,
    *,
    centre: str | None = None,
    most: int = MOST,
    depth: int | None = None,
    hollow: Collection[str] = (),
    name: Callable[[str], str] = phrase_name,
) -> Picture:
    """Draw a taxonomy in the Poincaré disk, the centre in the middle and what is below it around it.

    Points of two dimensions are drawn where they are, moved by the isometry that takes the centre to the origin. Of
    more dimensions their distances to the centre are true, on a scale that the rings tell; angles come from the
    taxonomy alone, in which each phrase has a sector by the number of phrases beyond it. Lines are geodesics of the
    disk, and a phrase of several parents has a line to each that is drawn.

    Args:
        taxonomy: of a large one up to `most` phrases are drawn: what is below the centre, and the most general ones.
        phrases: of the points, in their order.
        x: space components on the hyperboloid.
        curv: c > 0.
        centre: a phrase; by default the origin, around which a root is.
        most: phrases to draw.
        depth: most steps from the centre, or from the root.
        hollow: phrases whose dots are hollow.
        name: how a phrase is named.

    Raises:
        InputError: the centre is not in the taxonomy, a phrase of the taxonomy has no point, or points are not finite.
    """
    row = {phrase: i for i, phrase in enumerate(phrases)}
    if x.dim() != 2 or x.shape[1] < 2 or len(x) != len(phrases):
        raise InputError(f"points of {len(phrases)} phrases have shape (N, D ≥ 2), got {tuple(x.shape)}")
    if not x.isfinite().all():
        raise InputError("points to draw have components that are NaN or infinite")
    tree = Tree.of(taxonomy, centre, most, depth)
    if unknown := [phrase for phrase in tree.phrases if phrase not in row]:
        raise InputError(f"phrases of the taxonomy have no point: {first_few(unknown)}")
    points = x[[row[phrase] for phrase in tree.phrases]].double()
    middle = points[0] if centre is not None else torch.zeros_like(points[0])
    distance = lorentz.dist(middle.expand_as(points), points, curv)
    scale = _scale(distance, tree) if x.shape[1] > 2 else math.sqrt(curv) / 2
    spread = _spread(tree, distance, scale) if x.shape[1] > 2 else _moved(points, middle, curv)
    at: dict[str, Point] = dict(zip(tree.phrases, spread, strict=True))
    colour = _colours(tree, at)
    picture = Picture(
        title=_title(taxonomy, tree, centre, name),
        side=SIDE,
        reach=REACH,
        rings=[Ring(math.tanh(scale * r), f"{r:g}") for r in rings(float(distance.max()))],
        arcs=_arcs(taxonomy, tree, at, colour),
        dots=_dots(tree, at, colour, dict(zip(tree.phrases, distance.tolist(), strict=True)), hollow, name),
        names=[],
    )
    return replace(picture, names=_names(tree, picture, at, colour, name))


def _scale(distance: Tensor, tree: Tree) -> float:
    """Return s for which a distance d is drawn at tanh(s d): most of what is below the centre fills the disk."""
    upwards = tree.upwards
    beside = torch.tensor([phrase in upwards for phrase in tree.phrases])
    below = distance if beside[1:].all() else distance[~beside]
    rim = _FARTHEST if not beside.any() else _FARTHEST_BESIDE
    return min(
        math.atanh(_FAR) / (float(below.quantile(0.95)) or 1.0), math.atanh(rim) / (float(distance.max()) or 1.0)
    )


def _spread(tree: Tree, distance: Tensor, scale: float) -> list[Point]:
    """Return places at true distances, in the directions of the tree."""
    angles = tree.angles()
    rays = zip((angles[phrase] for phrase in tree.phrases), torch.tanh(scale * distance).tolist(), strict=True)
    return [(r * math.cos(angle), r * math.sin(angle)) for angle, r in rays]


def _moved(points: Tensor, middle: Tensor, curv: float) -> list[Point]:
    """Return places of points of two dimensions in the unit disk, after the isometry that takes one to the origin."""
    ball, to = (poincare.from_lorentz(z, curv) for z in (points, -middle))
    moved = poincare.mobius_add(to.expand_as(ball), ball, curv) * math.sqrt(curv)
    return [(p, q) for p, q in moved.tolist()]


def _colours(tree: Tree, at: Mapping[str, Point]) -> dict[str, str]:
    """Return the colour of each phrase: neighbours on the circle have different ones."""
    heads = {head for head in tree.group.values() if head is not None}
    around = sorted(heads, key=lambda head: math.atan2(at[head][1], at[head][0]))
    of_head = {head: COLOURS[i % len(COLOURS)] for i, head in enumerate(around)}
    return {phrase: GREY if head is None else of_head[head] for phrase, head in tree.group.items()}


def _arcs(taxonomy: Taxonomy, tree: Tree, at: Mapping[str, Point], colour: Mapping[str, str]) -> list[Arcs]:
    """Return lines from each phrase to its parents, thinner ones to those that are not its neighbour in the tree."""
    others: list[tuple[Point, Point]] = []
    near: dict[str, list[tuple[Point, Point]]] = {}
    for phrase in tree.phrases:
        beyond = tree.parent[phrase]
        if beyond is not None:
            near.setdefault(colour[phrase], []).append((at[beyond], at[phrase]))
        for up in taxonomy.parents(phrase):
            if up in at and up != beyond and tree.parent[up] != phrase:
                others.append((at[up], at[phrase]))
    thin = [Arcs(others, _PALE[GREY], 0.5)] if others else []
    return thin + [Arcs(pairs, _PALE[shade], 0.9) for shade, pairs in near.items()]


def _dots(
    tree: Tree,
    at: Mapping[str, Point],
    colour: Mapping[str, str],
    distance: Mapping[str, float],
    hollow: Collection[str],
    name: Callable[[str], str],
) -> list[Dot]:
    """Return the dots, the nearest to the centre last, so that they lie on top."""
    return [
        Dot(
            at[phrase],
            _radius(tree, phrase),
            colour[phrase] if tree.steps[phrase] else INK,
            f"{name(phrase)}, {distance[phrase]:.2f}",
            phrase in hollow,
        )
        for phrase in sorted(tree.phrases, key=lambda each: (-tree.steps[each], colour[each]))
    ]


def _names(
    tree: Tree, picture: Picture, at: Mapping[str, Point], colour: Mapping[str, str], name: Callable[[str], str]
) -> list[Name]:
    """Return as many names as have room: of the first steps, then of the groups, then those with most beyond them."""
    room = Room(picture.side)
    for phrase, step in tree.steps.items():
        if step <= 1:
            room.take(*picture.place(at[phrase]), _of_step(_DOTS, step))
    heads = set(tree.group.values())
    names = []
    for phrase in sorted(tree.phrases, key=lambda each: (_rank(tree, each, each in heads), -tree.size[each])):
        step = _rank(tree, phrase, phrase in heads)
        words, size = shown(name(phrase)), _of_step(_SIZES, step)
        candidates = _candidates(picture, at[phrase], words, size, _radius(tree, phrase), is_end=tree.size[phrase] == 1)
        placed = room.first_free(candidates)
        if placed is not None:
            names.append(Name(placed, _shade(colour[phrase], step), bold=step <= 1))
    return names


def _rank(tree: Tree, phrase: str, is_head: bool) -> int:
    """Return what counts as the step of a name: the head of a group has at most 1."""
    return min(tree.steps[phrase], 1) if is_head else tree.steps[phrase]


def _radius(tree: Tree, phrase: str) -> float:
    radius = _of_step(_DOTS, tree.steps[phrase])
    return radius if tree.size[phrase] > 1 or not tree.steps[phrase] else min(radius, _LEAF)


def _candidates(
    picture: Picture, at: Point, words: str, size: float, radius: float, *, is_end: bool
) -> Iterator[Label]:
    """Yield the places of a name: around its dot; near the rim outwards, and inwards of what is not at an end."""
    x, y = picture.place(at)
    away, across = radius + 0.3 * size, radius + 0.62 * size
    if math.hypot(*at) < _NEAR_RIM:
        yield Label(words, x, y - across, size, "middle")
        yield Label(words, x, y + across, size, "middle")
        yield Label(words, x + away, y, size, "start")
        yield Label(words, x - away, y, size, "end")
        return
    angle = math.atan2(-at[1], at[0])  # clockwise, as the picture has it
    is_left = math.cos(angle) < 0
    turn = math.degrees(angle) + (180 if is_left else 0)
    for out in (1,) if is_end else (1, -1):
        anchor = "end" if is_left == (out == 1) else "start"
        place = (x + out * away * math.cos(angle), y + out * away * math.sin(angle))
        yield Label(words, *place, size, anchor, (turn + 180) % 360 - 180)


def _shade(colour: str, step: int) -> str:
    return INK if step == 0 or (colour == GREY and step <= 2) else colour


def _of_step(values: Sequence[float], step: int) -> float:
    return values[min(step, len(values) - 1)]


def _title(taxonomy: Taxonomy, tree: Tree, centre: str | None, name: Callable[[str], str]) -> str:
    count = (
        f"{len(tree.phrases):,}"
        if len(tree.phrases) == len(taxonomy)
        else f"{len(tree.phrases):,} of {len(taxonomy):,}"
    )
    around = "its root" if centre is None else shown(name(tree.phrases[0]), 80)
    return f"{count} phrases of a taxonomy in the Poincaré disk, around {around}"
