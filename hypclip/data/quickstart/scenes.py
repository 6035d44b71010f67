"""Compose drawings into scenes with a caption, grounded phrases and boxes, deterministically by seed.

A scene is a pure function of (seed, split, index). `shards.py` beside this file writes thousands of them to disk.
"""

from __future__ import annotations

import functools
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from hypclip.data.quickstart.art import HELD_OUT_STYLES, TRAIN_STYLES, Concept, concepts
from hypclip.data.quickstart.sprites import Sprite, sprites
from hypclip.errors import DataError

SIDE = 96
"""Width and height of a scene in pixels."""

Split = Literal["train", "validation"]
Colour = tuple[int, int, int]
Row = tuple[int, int, float, float, float, float, float]
"""start, end (character offsets into the caption), x0, y0, x1, y1 (fractions of the side), score in (0, 1]."""

COLOURS = {
    "white": (246, 246, 244),
    "black": (22, 22, 26),
    "grey": (140, 142, 146),
    "red": (204, 48, 44),
    "orange": (238, 142, 48),
    "yellow": (246, 216, 80),
    "green": (74, 158, 76),
    "teal": (40, 140, 140),
    "blue": (58, 104, 200),
    "light blue": (150, 200, 240),
    "purple": (128, 72, 164),
    "pink": (242, 160, 190),
    "brown": (130, 88, 56),
    "beige": (226, 208, 176),
}
_COUNT_WEIGHTS = (0.3, 0.3, 0.25, 0.15)
_SIZE_RANGE = ((0.45, 0.95), (0.36, 0.58), (0.30, 0.48), (0.27, 0.42))
_LEVELS = ("name", "kind", "family")
_LEVEL_WEIGHTS = (0.72, 0.18, 0.10)
_MAX_COVERED = 0.3
_TEXTURES = ("striped", "checked", "dotted")
_AFTER_HEAD = re.compile(" (?:and|at|behind|blowing|from|holding|in|of|on|or|over|screaming|showing|with|without) ")
_NO_ARTICLE = re.compile(
    "food|nature|money|clothing|scenery|sky|sports gear|tableware|luggage|bacon|badminton|baguette bread|bowling|"
    "bread|broccoli|building construction|butter|camping|canned food|construction|cooked rice|cooking|coral|"
    "curry rice|custard|dashing away|dizzy|dna|field hockey|fire|fog|foggy|garlic|high voltage|ice|ice hockey|"
    "lacrosse|light rail|locked|mate|meat|milky way|mount fuji|oden|ping pong|popcorn|pouring liquid|rolling|sake|"
    "salt|shaved ice|soap|spaghetti|star-struck|sushi|tennis|tokyo tower|unlocked|wood|yarn|zzz"
)


@dataclass(frozen=True)
class Scene:
    """An image, its caption, and phrases of the caption tied to boxes, as GRIT has them."""

    image: Image.Image
    caption: str
    noun_chunks: list[Row]
    ref_exps: list[Row]


@dataclass(frozen=True)
class _Item:
    """One drawing on the canvas: the phrase that names it and its box in pixels."""

    phrase: str
    box: tuple[int, int, int, int]

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


def compose(seed: int, split: Split, index: int, styles: Sequence[str] = TRAIN_STYLES, side: int = SIDE) -> Scene:
    """Draw scene number `index` of a split.

    Args:
        seed: any integer; the same seed gives the same scenes.
        split: the two splits draw from separate random streams.
        index: scene number, from 0.
        styles: the artwork to draw with.
        side: width and height in pixels.

    Raises:
        DataError: no style, an unknown one, or a held-out one in the training split.
    """
    rng = random.Random(f"{seed}/{split}/{index}")
    artwork = _artwork(split, tuple(styles))
    canvas, ground = _ground(rng, side)
    count = rng.choices((1, 2, 3, 4), _COUNT_WEIGHTS)[0]
    items: list[_Item] = []
    for _ in range(count):
        items.append(_draw(rng, canvas, items, artwork, count))
    return _describe(rng, canvas, items, ground)


@functools.cache
def _artwork(split: Split, styles: tuple[str, ...]) -> tuple[tuple[Concept, tuple[Sprite, ...]], ...]:
    """Return every concept that some of the styles draw, with its drawings."""
    known = (*TRAIN_STYLES, *HELD_OUT_STYLES)
    if not styles or not set(styles) <= set(known):
        raise DataError(f"styles must name some of {', '.join(known)}, got {', '.join(styles) or 'none'}")
    if split == "train" and (held_out := set(styles) & set(HELD_OUT_STYLES)):
        raise DataError(
            f"styles {sorted(held_out)} are held out for evaluation: the train split cannot be drawn in them"
        )
    drawn = (tuple(filter(None, row)) for row in zip(*(sprites(style) for style in styles), strict=True))
    return tuple((concept, row) for concept, row in zip(concepts(), drawn, strict=True) if row)


@functools.cache
def article(phrase: str) -> str:
    """Return a phrase with its indefinite article ("a red apple", "an owl").

    None stands before plurals ("gloves"), what cannot be counted ("money") and what is no noun ("locked"). The words up
    to the first preposition decide, so that a face with tears is one face.
    """
    head = _AFTER_HEAD.split(phrase, maxsplit=1)[0]
    if _NO_ARTICLE.fullmatch(head) or (head.endswith("s") and not head.endswith(("ss", "us", "os"))):
        return phrase
    vowel = phrase.startswith(("hour", "x-ray")) or (
        phrase[0] in "aeiou" and not phrase.startswith(("unicorn", "uniform", "euro", "ewe", "one-"))
    )
    return f"{'an' if vowel else 'a'} {phrase}"


def _draw(
    rng: random.Random,
    canvas: Image.Image,
    placed: list[_Item],
    artwork: tuple[tuple[Concept, tuple[Sprite, ...]], ...],
    count: int,
) -> _Item:
    """Paste one drawing, above those already placed, where it hides little of them."""
    concept, drawings = rng.choice(artwork)
    sprite = rng.choice(drawings)
    mirrored = rng.random() < 0.5
    angle = rng.uniform(-18, 18) if rng.random() < 0.6 else 0.0
    side = canvas.width
    image = sprite.draw(rng.uniform(*_SIZE_RANGE[count - 1]) * side, angle, mirrored)
    width, height = image.size
    least, best = math.inf, (0, 0, width, height)
    for _ in range(12):
        x, y = int(rng.random() * (side - width + 1)), int(rng.random() * (side - height + 1))
        box = (x, y, x + width, y + height)
        covered = max([_covered(other.box, box) for other in placed], default=0.0)
        if covered < least:
            least, best = covered, box
        if covered < _MAX_COVERED:
            break
    canvas.paste(image, best[:2], image)
    level = rng.choices(_LEVELS, _LEVEL_WEIGHTS)[0]
    return _Item(article(getattr(concept, level)), best)


def _covered(below: tuple[int, int, int, int], above: tuple[int, int, int, int]) -> float:
    """Return the fraction of the box `below` that the box `above` covers."""
    width = min(below[2], above[2]) - max(below[0], above[0])
    height = min(below[3], above[3]) - max(below[1], above[1])
    return max(0, width) * max(0, height) / ((below[2] - below[0]) * (below[3] - below[1]))


def _relation(rng: random.Random, items: list[_Item], first: int, second: int) -> str:
    """Say where the first item is, seen from the second; always true of the image."""
    a, b = items[first], items[second]
    if max(_covered(a.box, b.box), _covered(b.box, a.box)) > 0.08:
        return "in front of" if first > second else "behind"
    dx, dy = a.centre[0] - b.centre[0], a.centre[1] - b.centre[1]
    if abs(dx) >= abs(dy):
        return rng.choice(("next to", "beside", "to the left of" if dx < 0 else "to the right of"))
    return rng.choice(("above", "over") if dy < 0 else ("below", "under"))


def _place_in_words(item: _Item, side: int) -> str:
    x, y = (c / side - 0.5 for c in item.centre)
    if abs(x) < 0.15 and abs(y) < 0.15:
        return "in the middle"
    if abs(x) >= abs(y):
        return "on the left" if x < 0 else "on the right"
    return "at the top" if y < 0 else "at the bottom"


def _describe(rng: random.Random, canvas: Image.Image, items: list[_Item], ground: str) -> Scene:
    """Write the caption and keep the character span of every phrase."""
    side = canvas.width
    order = rng.sample(range(len(items)), len(items))
    # A caption is a list of parts: an int stands for the phrase of that item, a str for the words between.
    parts: list[int | str]
    referring: list[tuple[int, int]] = []  # positions (first, last) in `parts` of a longer phrase about parts[first]
    if len(items) == 1:
        before, after = rng.choice(
            (("", f" on {ground}"), ("", f" against {ground}"), ("a picture of ", f" on {ground}"),
             ("", f", {ground} behind it"), (f"on {ground}, ", ""), ("here is ", f" on {ground}"))
        )  # fmt: skip
        parts = [before, order[0], after]
    else:
        first, second, *rest = order
        parts = [first, f" {_relation(rng, items, first, second)} ", second]
        referring = [(0, 2)]
        if rest and rng.random() < 0.6:
            for item in rest:
                parts += [" and " if item == rest[-1] else ", ", item, f" {_place_in_words(items[item], side)}"]
                referring.append((len(parts) - 2, len(parts) - 1))
        elif len(rest) == 1:
            parts += [" with ", rest[0]]
        elif rest:
            parts += [" and ", rest[0], f" {_relation(rng, items, rest[0], rest[1])} ", rest[1]]
            referring.append((len(parts) - 3, len(parts) - 1))
        pattern = rng.randrange(4)
        if pattern == 0:
            parts = [f"on {ground}, ", *parts]
            referring = [(a + 1, b + 1) for a, b in referring]
        else:
            parts += (f" on {ground}", f", {ground} behind them", f" against {ground}")[pattern - 1 : pattern]
    words = [items[p].phrase if isinstance(p, int) else p for p in parts]
    starts = [0]
    for word in words:
        starts.append(starts[-1] + len(word))

    def row(item: int, first: int, last: int) -> Row:
        x0, y0, x1, y1 = (round(c / side, 4) for c in items[item].box)
        return starts[first], starts[last + 1], x0, y0, x1, y1, round(_visible(items, item), 3)

    chunks = [row(p, i, i) for i, p in enumerate(parts) if isinstance(p, int)]
    expressions = [row(p, a, b) for a, b in referring if isinstance(p := parts[a], int) and rng.random() < 0.25]
    return Scene(canvas, "".join(words), chunks, expressions)


def _visible(items: list[_Item], index: int) -> float:
    """Return a score as a detector would: high for a drawing in plain view, lower as others hide it."""
    hidden = sum(_covered(items[index].box, other.box) for other in items[index + 1 :])
    return max(0.3, 0.99 - hidden)


def _ground(rng: random.Random, side: int) -> tuple[Image.Image, str]:
    """Paint a background of one or two colours and name it."""
    name_a, name_b = rng.sample(tuple(COLOURS), 2)
    a, b = _jitter(rng, COLOURS[name_a]), _jitter(rng, COLOURS[name_b])
    canvas = Image.new("RGB", (side, side), a)
    kind = rng.choice(("flat", "flat", "gradient", "noise", "pattern"))
    match kind:
        case "flat":
            return canvas, article(f"plain {name_a} background")
        case "gradient":
            mask, name = _gradient(side, rng.randrange(4)), f"a background fading from {name_a} to {name_b}"
        case "noise":
            mask, name = _window(rng, _noise(rng.randrange(3)), side), article(f"rough {name_a} background")
            b = _mix(a, b, 0.3)
        case _:
            texture = rng.choice(_TEXTURES)
            mask = _window(rng, _pattern(texture, rng.choice((6, 9, 13, 18)), rng.choice((0, 30, 45, 90))), side)
            name = article(f"{texture} {name_a} and {name_b} background")
    canvas.paste(b, mask=mask)
    return canvas, name


def _jitter(rng: random.Random, colour: Colour) -> Colour:
    r, g, b = (min(255, max(0, c + int(29 * rng.random()) - 14)) for c in colour)
    return r, g, b


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    r, g, b_ = (round((1 - share) * p + share * q) for p, q in zip(a, b, strict=True))
    return r, g, b_


def _window(rng: random.Random, texture: Image.Image, side: int) -> Image.Image:
    """Cut a random square out of a texture, which is at least as large."""
    if side > texture.width:
        texture = texture.resize((side, side))
    x, y = rng.randint(0, texture.width - side), rng.randint(0, texture.height - side)
    return texture.crop((x, y, x + side, y + side))


@functools.cache
def _gradient(side: int, quarter_turns: int) -> Image.Image:
    return Image.linear_gradient("L").resize((side, side)).rotate(90 * quarter_turns)


@functools.cache
def _noise(octave: int) -> Image.Image:
    """Return a 384 × 384 mask of random grain; a higher octave is coarser."""
    coarse = 384 >> octave
    grain = np.random.default_rng(octave).integers(0, 256, (coarse, coarse), dtype=np.uint8)
    return Image.fromarray(grain).resize((384, 384), Image.Resampling.BILINEAR)


@functools.cache
def _pattern(texture: str, period: int, angle: int) -> Image.Image:
    """Return a 384 × 384 mask of stripes, checks or dots, `period` pixels apart, turned by `angle` degrees."""
    x, y = np.meshgrid(np.arange(384), np.arange(384))
    turn = math.radians(angle)
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    match texture:
        case "striped":
            wave = u % (2 * period) < period
        case "checked":
            wave = (u % (2 * period) < period) ^ (v % (2 * period) < period)
        case _:
            wave = (u % (2 * period) - period) ** 2 + (v % (2 * period) - period) ** 2 < (0.55 * period) ** 2
    return Image.fromarray((wave * 255).astype(np.uint8))
