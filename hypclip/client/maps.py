"""The calls that draw a collection, and what they return."""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2

from .asking import Asking, Returning, collection_path, to_json
from .items import Item, Rule
from .results import Result

ANCESTOR, DESCENDANT, ITSELF = 1, 2, 4
"""Flags of a point of a `Focus`: it entails the point of the focus, is entailed by it, lies where that lies."""

_TYPES = {"uint32": "I" if array("I").itemsize == 4 else "L", "float32": "f", "uint8": "B"}
_DrawnT = TypeVar("_DrawnT", bound=Result)


@dataclass(frozen=True)
class Map(Result):
    """Places of the points of a collection on a disk, in columns that ascend by key.

    `radius` is the true distance to the root; `angle`, from 0 to 2π, is such that near points have near angles.
    `modality` are indices into `modalities`. `version` changes with every write; `layout` counts how often the angles
    have been made anew. Where `sampled` is true the columns have fewer than `count` points.
    """

    version: str
    layout: int
    model: str
    curv: float
    dim: int
    entailment: Rule
    count: int
    sampled: bool
    max_radius: float
    modalities: list[str]
    key: array[int]
    radius: array[float]
    angle: array[float]
    modality: array[int]


@dataclass(frozen=True)
class Focus(Result):
    """All points of a collection as seen from one, in columns that ascend by key; all of it exact.

    `seen_from` tells radius, modality and place on the map of that point, `rule` what entails what. `radius` is the
    distance to the root and `angle` the true angle there between the two points, −π to π. With a target `radius` is the
    distance to the point, `angle` the angle there from the direction of the target, and `root` the place of the root.
    `flags` are sums of ANCESTOR, DESCENDANT and ITSELF. `above` is the margin of the point of the focus in the cone of
    the other, `below` that of the other in its cone: inside where ≤ 0.
    """

    version: str
    curv: float
    seen_from: dict[str, Any]
    rule: Rule
    half_aperture: float
    counts: dict[str, int]
    key: array[int]
    radius: array[float]
    angle: array[float]
    flags: array[int]
    above: array[float]
    below: array[float]
    target: dict[str, float] | None = None
    root: dict[str, float] | None = None


class Drawing(Asking):
    """The calls that draw a collection."""

    def map(self, collection: str = "default") -> Returning[Map]:
        """Return the places of all points on a disk, also of a collection of another model."""
        return self._send("GET", f"{collection_path(collection)}/map", None, lambda answer: _drawn(Map, answer))

    def renew_map(self, collection: str = "default") -> Returning[int]:
        """Give all points new angles, from the points that there are now; return the number of the layout."""
        return self._ask("PUT", f"{collection_path(collection)}/map", None, lambda answer: int(answer["layout"]))

    def focus(
        self,
        of: Item,
        target: Item | None = None,
        *,
        rule: Rule | None = None,
        aperture_scale: float = 1.0,
        reflexive: bool = False,
        collection: str = "default",
    ) -> Returning[Focus]:
        """Return where every point lies seen from an item, what entails it and what it entails.

        Args:
            of: the item.
            target: another: places are then in the plane of the two, in place of the plane with the root.
            rule: what makes one point more general than another; None is the rule of the model.
            aperture_scale: a factor on how wide cones are; below 1 is stricter.
            reflexive: let a point be its own ancestor.
            collection: what to look at.
        """
        body = {"of": of, "target": target, "aperture_scale": aperture_scale, "reflexive": reflexive}
        content = to_json(body if rule is None else {**body, "rule": rule})
        return self._send("POST", f"{collection_path(collection)}/focus", content, lambda answer: _drawn(Focus, answer))


def _drawn(kind: type[_DrawnT], response: httpx2.Response) -> _DrawnT:
    """Read the length of a header, the header in JSON, and the columns behind it."""
    content = response.content
    start = 4 + int.from_bytes(content[:4], "little")
    header: Mapping[str, Any] = json.loads(content[4:start])
    columns: dict[str, array[Any]] = {}
    for column in header["columns"]:
        numbers: array[Any] = array(_TYPES[column["type"]])
        first = start + column["offset"]
        numbers.frombytes(content[first : first + numbers.itemsize * column["length"]])
        if len(numbers) != column["length"]:
            raise ValueError("the answer is cut short")
        if sys.byteorder == "big":
            numbers.byteswap()
        columns[column["name"]] = numbers
    return kind.of({**header, "seen_from": header.get("of"), **columns})
