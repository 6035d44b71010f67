"""Zero-shot classification: probabilities of labels, and paths from the root of a taxonomy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from hypclip.errors import DataError
from hypclip.geometry.metric import Geometry, Metric
from hypclip.taxonomy import acyclic
from serve.errors import InvalidRequest


def prompts(labels: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Return every label in every template, the templates of a label together.

    Raises:
        InvalidRequest: a template has no place for the label or several, or a label comes twice.
    """
    for template in templates:
        if template.count("{}") != 1:
            raise InvalidRequest(f"templates: {template!r} must have {{}} once, where the label goes")
    if len(set(labels)) < len(labels):
        twice = next(label for i, label in enumerate(labels) if label in labels[:i])
        raise InvalidRequest(f"labels: {twice!r} comes twice")
    return [template.replace("{}", label) for label in labels for template in templates]


def probabilities(
    x: Float[Tensor, "n d"],
    prompt_points: Float[Tensor, "prompts d"],
    labels: int,
    curv: float,
    logit_scale: float,
    geometry: Geometry,
) -> Float[Tensor, "n labels"]:
    """Return softmax(logit_scale · similarity) over the labels, each the mean of its prompts; float64 throughout."""
    prompt_points = prompt_points.double()
    metric = Metric(geometry)
    classes = metric.mean(prompt_points.view(labels, -1, prompt_points.shape[-1]), curv)
    return torch.softmax(logit_scale * metric.pairwise_similarity(x.double(), classes, curv), dim=-1)


@dataclass(frozen=True)
class Taxonomy:
    """A hierarchy of labels: its leaves, and the parent of every node on a shortest path to a root.

    `parents` lists every node after its parent. A node with several parents counts below one of them only.
    """

    leaves: list[str]
    parents: Mapping[str, str | None]

    def paths(self, scores: NDArray[Any], min_probability: float) -> list[list[tuple[str, float]]]:
        """Return for each row of leaf probabilities (n, leaves) the nodes from a root down, with their probabilities.

        A node is as probable as the leaves below it together. The path goes to the most probable child, and ends before
        one that is less probable than `min_probability`.
        """
        place = {node: i for i, node in enumerate(self.parents)}
        mass = np.zeros((len(place), len(scores)))
        mass[[place[leaf] for leaf in self.leaves]] = scores.T
        children: dict[str | None, list[str]] = {}
        for node, parent in self.parents.items():
            children.setdefault(parent, []).append(node)
        for node, parent in reversed(list(self.parents.items())):
            if parent is not None:
                mass[place[parent]] += mass[place[node]]
        return [
            self._path(dict(zip(place, column, strict=True)), children, min_probability) for column in mass.T.tolist()
        ]

    @staticmethod
    def _path(
        mass: Mapping[str, float], children: Mapping[str | None, Sequence[str]], min_probability: float
    ) -> list[tuple[str, float]]:
        path: list[tuple[str, float]] = []
        below = children[None]
        while below:
            best = max(below, key=mass.__getitem__)
            if mass[best] < min_probability:
                break
            path.append((best, min(1.0, mass[best])))
            below = children.get(best, [])
        return path


def taxonomy(edges: Sequence[tuple[str, str]]) -> Taxonomy:
    """Build a taxonomy from edges (child, parent); a node may have several parents, and there may be several roots.

    Raises:
        InvalidRequest: the edges form a cycle.
    """
    try:
        graph = acyclic(edges)
    except DataError as error:
        raise InvalidRequest(f"taxonomy: edges [child, parent] must not form a cycle: {error}") from error
    parents: dict[str, str | None] = {node: None for node, degree in graph.out_degree if degree == 0}
    frontier = list(parents)
    while frontier:
        below = [(node, child) for node in frontier for child in graph.predecessors(node)]
        frontier = []
        for node, child in below:
            if child not in parents:
                parents[child] = node
                frontier.append(child)
    return Taxonomy([node for node in graph if graph.in_degree(node) == 0], parents)
