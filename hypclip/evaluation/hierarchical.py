"""Hierarchical zero-shot classification: the class that is least wrong, and answers that stop where evidence ends.

Beside the flat answer, the most similar class, stand

- joint: the class that is the most probable by all evidence of the tree, see `hypclip.evaluation.joint`;
- least_wrong: the class with the fewest expected steps of the tree to the right one;
- stop_90: the node, a class or one above, that is right for 90 of 100 images, see `hypclip.evaluation.answers`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import networkx as nx
import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.errors import ConfigError, DataError
from hypclip.evaluation.answers import Rule, answer, answer_scores, calibration_errors, fit_rule, least_wrong
from hypclip.evaluation.hierarchy import hierarchy_scores
from hypclip.evaluation.joint import Evidence, fit_weights
from hypclip.evaluation.label_tree import LabelTree
from hypclip.evaluation.zero_shot import DEFAULT_TEMPLATES, LabelledImages, embed_files
from hypclip.files import read_text
from hypclip.model import HypCLIP

ACCURACIES = (0.8, 0.9)
"""Shares of answers that shall be right where they may stop above classes."""
MOST_TO_FIT = 4096
"""Calibration images that are used; of more, a fixed random sample."""
_CHUNK = 1024


class Fitted(NamedTuple):
    """What answers are made with.

    Args:
        weights: of the evidence, see `Evidence.probabilities`.
        rule: how far answers go down.
        values: its parameter, by the share of answers that shall be right.
    """

    weights: list[float]
    rule: Rule
    values: dict[float, float]


@dataclass(frozen=True)
class Hierarchical:
    """How a taxonomy of classes is used, whatever the model.

    Args:
        graph: is-a edges child → parent over class keys and inner nodes.
        data: the images to classify, and the classes.
        templates: prompts, with {} for the name of a class.
        node_texts: what nodes above classes are called, see `Evidence.of`.
        calibration: other images of the same classes, which weights and answers are fitted to: at most `MOST_TO_FIT`.
        weights: in place of fitted ones; without either they are the model's logit scale, and 0 for levels.
        accuracies: shares of answers that shall be right. Without images to fit to, an answer is the most specific node
            that is at least as probable.

    Raises:
        ConfigError: an accuracy is out of range, or the classes of the calibration images are others.
        DataError: what `LabelTree` refuses.
    """

    graph: nx.DiGraph
    data: LabelledImages
    templates: Sequence[str] = DEFAULT_TEMPLATES
    node_texts: Mapping[str, str] = field(default_factory=dict)
    calibration: LabelledImages | None = None
    weights: Sequence[float] | None = None
    accuracies: Sequence[float] = ACCURACIES
    tree: LabelTree = field(init=False)

    def __post_init__(self) -> None:
        if wrong := [accuracy for accuracy in self.accuracies if not 0 < accuracy <= 1]:
            raise ConfigError(f"accuracies must be above 0 and at most 1, got {wrong[0]:g}")
        if self.calibration and self.calibration.keys != self.data.keys:
            raise ConfigError(
                "images to fit to must be of the same classes.json as those to classify: their keys differ"
            )
        object.__setattr__(self, "tree", LabelTree(self.graph, self.data.keys))

    def fit(self, evidence: Evidence) -> Fitted:
        """Fit weights and heights of answers to the calibration images, or take what stands in for them."""
        if self.calibration is None:
            start = [evidence.model.logit_scale.item(), *[0.0] * len(evidence.levels)]
            weights = start if self.weights is None else list(self.weights)
            return Fitted(weights, "threshold", {accuracy: accuracy for accuracy in self.accuracies})
        chosen = torch.randperm(len(self.calibration.files), generator=torch.Generator().manual_seed(0))[:MOST_TO_FIT]
        images = embed_files(evidence.model, [self.calibration.files[i] for i in chosen])
        labels = [self.calibration.labels[i] for i in chosen]
        weights = fit_weights(evidence.of_images(images), labels) if self.weights is None else list(self.weights)
        posteriors = self.tree.posteriors(evidence.probabilities(images, weights))
        values = {one: fit_rule(posteriors, labels, self.tree, "hedge", one) for one in self.accuracies}
        return Fitted(weights, "hedge", values)

    def scores(self, model: HypCLIP, images: Float[Tensor, "n d"]) -> Iterator[tuple[str, int | float]]:
        """Yield the scores of flat and hierarchical answers, as `answer/score`.

        Args:
            model: the model.
            images: embeddings of the files of `data`.
        """
        evidence = Evidence.of(model, self.tree, self.data.names, self.templates, self.node_texts)
        fitted = self.fit(evidence)
        labels = self.data.labels
        parts = [self._answers(evidence, fitted, chunk) for chunk in torch.split(images, _CHUNK)]
        for name in ("flat", "joint", "least_wrong"):
            predicted = torch.cat([classes[name] for classes, _, _ in parts])
            yield f"{name}/top1", (predicted == torch.tensor(labels)).double().mean().item()
            keys = self.data.keys
            measured = hierarchy_scores(self.graph, [keys[i] for i in predicted.tolist()], [keys[i] for i in labels])
            for measure, value in measured:
                if measure in ("tie", "lca", "jaccard"):
                    yield f"{name}/{measure}", value
        for accuracy in self.accuracies:
            nodes = torch.cat([stopped[accuracy] for _, stopped, _ in parts])
            for measure, value in answer_scores(nodes, labels, self.tree):
                yield f"stop_{100 * accuracy:g}/{measure}", value
        posteriors = torch.cat([posterior for _, _, posterior in parts])
        for level, error in calibration_errors(posteriors, labels, self.tree):
            if level:
                yield f"calibration_error/level_{level}", error
        for name, weight in zip(("similarity", *map("level_{}".format, evidence.numbers)), fitted.weights, strict=True):
            yield f"weight/{name}", weight

    def _answers(
        self, evidence: Evidence, fitted: Fitted, images: Float[Tensor, "n d"]
    ) -> tuple[dict[str, Tensor], dict[float, Tensor], Tensor]:
        """Return answered classes by the kind of answer, nodes by the accuracy wished, and posteriors of the nodes."""
        p = evidence.probabilities(images, fitted.weights)
        posteriors = self.tree.posteriors(p)
        classes = {
            "flat": evidence.model.similarity(images, evidence.classes).argmax(1),
            "joint": p.argmax(1),
            "least_wrong": least_wrong(p, self.tree),
        }
        stopped = {one: answer(posteriors, self.tree, fitted.rule, value) for one, value in fitted.values.items()}
        return classes, stopped, posteriors.float()


def read_node_texts(path: Path) -> dict[str, str]:
    """Read what nodes above classes are called from a JSON file {"kind:fruit": "a fruit"}.

    Raises:
        DataError: it cannot be read, or is of another form.
    """
    try:
        texts = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read texts of nodes from {path}: {error}") from error
    if not isinstance(texts, dict) or not all(isinstance(text, str) and text.strip() for text in texts.values()):
        raise DataError(f'{path} must hold {{"node": "what it is called", ...}}')
    return texts
