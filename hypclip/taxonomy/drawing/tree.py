"""The part of a taxonomy that a picture has room for, as a tree from its centre, with an angle for every phrase."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hypclip.errors import InputError
from hypclip.taxonomy.embedding.closed_form import first_parents
from hypclip.taxonomy.graph import Taxonomy, same_phrase

_BELOW = 0.6
"""Share of the phrases of a picture that may be below its centre where the taxonomy has more."""
_UPWARDS = 1 / 3
"""Most of the circle for what is not below the centre, where something is."""
_GROUPS = 9
_LARGE, _SMALL = 0.2, 0.015
"""Shares of the phrases of a picture: a larger group is divided, a smaller one is none."""

Node = str | None
"""A phrase; None is the origin, where several roots meet."""


@dataclass(frozen=True)
class Tree:
    """Phrases to draw, each after its neighbour on the way from the centre.

    Args:
        parent: of each phrase its neighbour on the way from the centre; of the centre, and of roots that meet at the
            origin, None.
        steps: of each phrase the steps from the centre; those of roots that meet at the origin are 1.
        size: of each phrase how many are drawn beyond it, with itself.
        group: of each phrase the phrase whose colour it has; None of those that belong to no group.
    """

    parent: Mapping[str, Node]
    steps: Mapping[str, int]
    size: Mapping[str, int]
    group: Mapping[str, Node]
    _children: Mapping[Node, Sequence[str]]
    _upwards: str | None

    @classmethod
    def of(cls, taxonomy: Taxonomy, centre: str | None, most: int, depth: int | None) -> Tree:
        """Choose up to `most` phrases: what is below the centre, what is above it, and the most general ones.

        Args:
            taxonomy: of which the first parents that the edges name make a tree.
            centre: a phrase; None for the root, or for the origin that several roots are around.
            most: at least 1.
            depth: most steps from the centre; None for any.

        Raises:
            InputError: the centre is not in the taxonomy, or a number is below 1.
        """
        for name, value in (("most", most), ("depth", depth)):
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        up = first_parents(taxonomy)
        below: dict[Node, list[str]] = {}
        for phrase, parent in up.items():
            below.setdefault(parent, []).append(phrase)
        middle = _found(taxonomy, centre)
        if middle is None and len(below[None]) == 1:
            middle = below[None][0]
        chosen = set(_chosen(up, below, middle, most))
        beside = {
            node: [each for each in (*below.get(node, ()), up.get(node) if node else None) if each in chosen]
            for node in (None, *chosen)
        }
        if len(below[None]) > 1:
            beside[None] = [root for root in below[None] if root in chosen]
        parent_of: dict[str, Node] = {}
        steps: dict[str, int] = {}
        children: dict[Node, list[str]] = {}
        reached: list[Node] = [middle]
        if middle is not None:
            parent_of[middle], steps[middle] = None, 0
        for node in reached:
            here = steps.get(node, 0) if node is not None else 0
            if depth is not None and here == depth:
                continue
            # From a phrase in the centre the origin is not a way to other roots.
            for other in beside[node]:
                if other not in parent_of:
                    parent_of[other], steps[other] = node, here + 1
                    children.setdefault(node, []).append(other)
                    reached.append(other)
        phrases = [node for node in reached if node is not None]
        size = dict.fromkeys(phrases, 1)
        for phrase in reversed(phrases):
            if (parent := parent_of[phrase]) is not None:
                size[parent] += size[phrase]
        upwards = up[middle] if middle is not None else None
        group = _groups(phrases, parent_of, children, size, middle, upwards)
        return cls(parent_of, steps, size, group, children, upwards)

    @property
    def phrases(self) -> list[str]:
        """The phrases, from the centre on."""
        return list(self.parent)

    @property
    def upwards(self) -> frozenset[str]:
        """The phrases that the way from the centre leads to upwards: what is above it, and what is beside it."""
        found: set[Node] = set()
        for phrase, before in self.parent.items():  # each after its neighbour
            if phrase == self._upwards or before in found:
                found.add(phrase)
        return frozenset(phrase for phrase in found if phrase is not None)

    def angles(self) -> dict[str, float]:
        """Return the direction of every phrase: the middle of its sector, in which what is beyond it has its share.

        A share goes by the number of phrases at the ends. What is above the centre is at the top.
        """
        ends: dict[Node, float] = {}
        for node in (*reversed(self.phrases), None):
            ends[node] = sum(ends[child] for child in self._children.get(node, ())) or 1.0
        middle = next((phrase for phrase, step in self.steps.items() if step == 0), None)
        first = list(self._children.get(middle, ()))
        others = sum(ends[child] for child in first if child != self._upwards)
        if self._upwards in first and others:
            ends[self._upwards] = min(ends[self._upwards], others * _UPWARDS / (1 - _UPWARDS))
        whole = sum(ends[child] for child in first)
        turn = math.pi / 2
        if self._upwards in first:
            first.remove(self._upwards)
            first.insert(0, self._upwards)
            turn += math.pi * ends[self._upwards] / whole
        found = dict.fromkeys([] if middle is None else [middle], math.pi / 2)
        sectors: list[tuple[Node, float, float]] = [(middle, turn, turn - 2 * math.pi)]
        for node, start, end in sectors:
            children = first if node == middle else self._children.get(node, ())
            step = (end - start) / (sum(ends[child] for child in children) or 1)
            for child in children:
                width = step * ends[child]
                found[child] = start + width / 2
                sectors.append((child, start, start + width))
                start += width
        return found


def _found(taxonomy: Taxonomy, centre: str | None) -> str | None:
    """Return the phrase of the taxonomy that is meant.

    Raises:
        InputError: there is none.
    """
    if centre is None or centre in taxonomy:
        return None if centre is None else same_phrase(centre)
    close = difflib.get_close_matches(same_phrase(centre), taxonomy.phrases, n=3)
    first = f"{same_phrase(centre).replace(' ', '_')}.n.01"  # of WordNet
    meant = list(dict.fromkeys([first, *close] if first in taxonomy else close))[:3]
    advice = f"; did you mean {', '.join(map(repr, meant))}?" if meant else ""
    raise InputError(f"the centre {centre!r} is not in the taxonomy{advice}")


def _chosen(up: Mapping[str, Node], below: Mapping[Node, Sequence[str]], centre: str | None, most: int) -> list[str]:
    """Return up to `most` phrases, so that what is between any of them and the centre is there too."""
    if len(up) <= most:
        return list(up)
    weight: dict[Node, int] = {}
    for phrase in reversed(list(up)):  # parents come first
        weight[phrase] = weight.get(phrase, 1)
        weight[up[phrase]] = weight.get(up[phrase], 1) + weight[phrase]

    def general_first(start: Node) -> Iterator[str]:
        """Yield what is below, level by level, what more is below of first."""
        level = sorted(below.get(start, ()), key=lambda each: (-weight[each], each))
        while level:
            yield from level
            level = sorted((e for each in level for e in below.get(each, ())), key=lambda each: (-weight[each], each))

    chosen: dict[str, None] = {}
    way: list[str] = []
    if centre is not None:
        node: Node = centre
        while node is not None:
            way.append(node)
            node = up[node]
        chosen = dict.fromkeys(way[: max(1, most)])
        room = len(chosen) + int(_BELOW * most)
        for phrase in general_first(centre):
            if len(chosen) >= min(room, most):
                break
            chosen[phrase] = None
        for sibling in below.get(up[centre], ()) if up[centre] in chosen else ():
            if len(chosen) >= most:
                break
            chosen[sibling] = None
    for phrase in general_first(way[-1] if way else None):
        if len(chosen) >= most:
            break
        chosen[phrase] = None
    return list(chosen)


def _groups(
    phrases: Sequence[str],
    parent: Mapping[str, Node],
    children: Mapping[Node, Sequence[str]],
    size: Mapping[str, int],
    middle: Node,
    upwards: Node,
) -> dict[str, Node]:
    """Divide what is around the centre, and the largest of its parts again, until there are enough for the colours."""
    heads = [child for child in children.get(middle, ()) if child != upwards]
    while heads:
        largest = max(heads, key=lambda head: size[head])
        if size[largest] < _LARGE * len(phrases) or not children.get(largest):
            break
        if len([head for head in heads if size[head] >= _SMALL * len(phrases)]) > _GROUPS:
            break
        heads.remove(largest)
        heads += children[largest]
    kept = {head for head in heads if size[head] >= max(2, _SMALL * len(phrases))}
    group: dict[str, Node] = {}
    for phrase in phrases:
        above = parent[phrase]
        group[phrase] = phrase if phrase in kept else None if above is None else group[above]
    return group
