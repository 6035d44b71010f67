"""The emoji artwork that ships with the package: sprite sheets, names and the is-a hierarchy.

Licences of the artwork and of the names: art/README.md.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources

from PIL import Image

TRAIN_STYLES = ("noto", "noto-v1", "twemoji", "emojione")
HELD_OUT_STYLES = ("fluent", "fluent-flat")
"""One design in two renderings. For evaluation alone: no training scene is ever drawn with them."""


@dataclass(frozen=True)
class Concept:
    """One drawing's meaning: a `name` (red apple) is a `kind` (fruit) is a `family` (food)."""

    index: int
    code: str
    name: str
    kind: str
    family: str
    styles: tuple[str, ...]


@functools.cache
def concepts() -> tuple[Concept, ...]:
    """Return every concept, in the order of the tiles."""
    entries = json.loads(_file("emoji.json").read_text(encoding="utf-8"))["concepts"]
    return tuple(Concept(e["index"], e["code"], e["name"], e["kind"], e["family"], tuple(e["styles"])) for e in entries)


@functools.cache
def tiles(style: str) -> tuple[Image.Image | None, ...]:
    """Return the 64 × 64 RGBA drawings of `style`, one per concept, None where the style lacks it."""
    layout = json.loads(_file("emoji.json").read_text(encoding="utf-8"))
    side, columns = layout["tile"], layout["columns"]
    with _file(f"{style}.webp").open("rb") as stream:
        sheet = Image.open(stream).convert("RGBA")
    result: list[Image.Image | None] = []
    for concept in concepts():
        if style in concept.styles:
            left, top = concept.index % columns * side, concept.index // columns * side
            result.append(sheet.crop((left, top, left + side, top + side)))
        else:
            result.append(None)
    return tuple(result)


def taxonomy() -> list[tuple[str, str]]:
    """Return the is-a edges (child, parent): concept code → kind → family → root.

    Inner nodes are written `kind:…` and `family:…`, since nine names are also the name of a kind.
    """
    edges = {}
    for c in concepts():
        edges[c.code] = f"kind:{c.kind}"
        edges[f"kind:{c.kind}"] = f"family:{c.family}"
        edges[f"family:{c.family}"] = "root"
    return list(edges.items())


def _file(name: str) -> resources.abc.Traversable:
    return resources.files("hypclip.data.quickstart").joinpath("art", name)
