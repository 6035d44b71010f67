"""Probabilities of classes that also use what stands above them: names of kinds and families speak for classes below.

The score of a class is a weighted sum of evidence: its own similarity, and for each level of the tree how deep the
image lies in the region of the class's ancestor there, by the model's own rule of entailment; the lowest level has the
class's own region. The weights are the ones that make labelled images most likely, which calibrates the probabilities
too. They are as few as the tree has levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hypclip.data.quickstart.scenes import article
from hypclip.errors import DataError, InputError, first_few
from hypclip.evaluation.label_tree import LabelTree
from hypclip.evaluation.zero_shot import DEFAULT_TEMPLATES, embed_classes
from hypclip.geometry.entailment import pairwise_score
from hypclip.model import HypCLIP

_NO_MISTAKE = 1e-5
"""A loss below it says that greater weights would always be better: the right class always has the most evidence."""
_MOST_STEPS = 60
_LEAST = 1e-10


@dataclass(frozen=True)
class Evidence:
    """The texts of a task, embedded, ready to be compared with images.

    Args:
        model: whose similarity and rule of entailment are asked.
        tree: the classes and what stands above them.
        classes: their embeddings.
        inner: embeddings of the nodes that stand for classes at some level.
        numbers: the levels of the tree below what is above all classes.
        levels: for each of these, which of the nodes stand for a class, its column summing to 1.
    """

    model: HypCLIP
    tree: LabelTree
    classes: Float[Tensor, "classes d"]
    inner: Float[Tensor, "inner d"]
    numbers: tuple[int, ...]
    levels: Float[Tensor, "levels inner classes"]

    @classmethod
    def of(
        cls,
        model: HypCLIP,
        tree: LabelTree,
        names: Sequence[Sequence[str]],
        templates: Sequence[str] = DEFAULT_TEMPLATES,
        node_texts: Mapping[str, str] | None = None,
    ) -> Evidence:
        """Embed the names of the classes in the templates, and the texts of what stands above them as they are.

        Args:
            model: the model.
            tree: the classes and what stands above them.
            names: one or more a class, in the order of `tree.classes`.
            templates: prompts, with {} for the name of a class.
            node_texts: what nodes are called; one that is missing is called what its key says behind the last colon,
                with an article: a fruit for kind:fruit.

        Raises:
            DataError: a text is given for what is no node.
        """
        texts = dict(node_texts or {})
        if unknown := [node for node in texts if node not in tree.rows]:
            raise DataError(f"texts are given for what stands above no class: {first_few(list(map(repr, unknown)))}")
        numbers, shares = _by_level(tree, own=model.metric.has_cones)
        asked = shares.sum((0, 2)).nonzero().squeeze(1).tolist()
        own = embed_classes(model, names, templates)
        column = {row: i for i, row in enumerate(tree.of_class.tolist())}
        called = {
            row: texts.get(tree.nodes[row]) or article(tree.nodes[row].rpartition(":")[2].strip())
            for row in asked
            if row not in column
        }
        embedded = dict(zip(called, model.embed_text(list(called.values())), strict=True))
        above = [own[column[row]] if row in column else embedded[row] for row in asked]
        return cls(model, tree, own, torch.stack(above) if above else own[:0], tuple(numbers), shares[:, asked])

    def of_images(self, images: Float[Tensor, "n d"]) -> Float[Tensor, "evidence n classes"]:
        """Return the similarity with each class, then by level the depth in the regions of what it is there."""
        own = self.model.similarity(images, self.classes).double()
        if not len(self.levels):
            return own[None]
        if self.model.metric.has_cones:
            rule, curv = self.model.config.entailment, self.model.curv.detach().double()
            depth = pairwise_score(rule, self.inner.double(), images.double(), self.model.metric, curv).T
        else:
            depth = self.model.similarity(images, self.inner).double()
        return torch.cat([own[None], depth @ self.levels])

    def probabilities(self, images: Float[Tensor, "n d"], weights: Sequence[float]) -> Float[Tensor, "n classes"]:
        """Return the softmax over classes of the weighted sum of the evidence.

        Raises:
            InputError: there are not as many weights as there is evidence.
        """
        if len(weights) != 1 + len(self.levels):
            raise InputError(
                f"expected {1 + len(self.levels)} weights, of the similarity and of each of {len(self.levels)} levels, "
                f"got {len(weights)}"
            )
        return torch.softmax(torch.einsum("k,knc->nc", torch.tensor(weights).double(), self.of_images(images)), 1)


def fit_weights(evidence: Float[Tensor, "evidence n classes"], labels: Sequence[int]) -> list[float]:
    """Return the weights that make the labels most likely: those of a multinomial logit model, which is convex.

    With the similarity alone the weight is the inverse temperature of Guo et al. 2017, arXiv:1706.04599.

    Raises:
        InputError: no labels; no weights are best, as where the right class always has the most evidence; or the
            similarity counts against the right class.
    """
    if not len(labels):
        raise InputError("weights need labelled images to be fitted to, got none")
    truth = torch.tensor(labels)
    size = evidence.std(dim=(1, 2)).clamp(min=1e-12)
    scaled = evidence / size[:, None, None]
    own = scaled.gather(2, truth.expand(len(scaled), -1)[..., None]).squeeze(2)

    def loss(weights: Tensor) -> Tensor:
        return nn.functional.cross_entropy(torch.einsum("k,knc->nc", weights, scaled), truth)

    found = torch.zeros(len(evidence), dtype=torch.float64)
    found[0] = 1
    at = loss(found)
    for _ in range(_MOST_STEPS):  # Newton's, halved as long as they do not descend
        p = torch.softmax(torch.einsum("k,knc->nc", found, scaled), 1)
        mean = torch.einsum("nc,knc->kn", p, scaled)
        gradient = (mean - own).mean(1)
        second = torch.einsum("nc,knc,jnc->kj", p, scaled, scaled) - mean @ mean.T
        step = torch.linalg.solve(second / len(truth) + _LEAST * torch.eye(len(found)).double(), gradient)
        while (there := loss(found - step)) > at and step.norm() > _LEAST:
            step = step / 2
        if step.norm() <= _LEAST or at < _NO_MISTAKE:
            break
        found, at = found - step, there
    if at < _NO_MISTAKE:
        raise InputError(
            f"the {len(labels)} labelled images fit no weights, since the right class always has the most evidence: "
            "give more images, or weights"
        )
    if found[0] <= 0:
        raise InputError(f"similarity counts against the right class of the {len(labels)} labelled images: check them")
    return [float(weight) for weight in found / size]


def _by_level(tree: LabelTree, *, own: bool) -> tuple[list[int], Float[Tensor, "levels nodes classes"]]:
    """Return the levels of the tree below what is above all, and the share of each node in what a class has there.

    A class that stands above a level is there itself, so that classes near the root have as much evidence as others.
    Every class below a level has something there, since levels are counted by the longest way.

    Args:
        tree: the tree.
        own: whether levels count that have classes alone: where depth is the similarity, they would add nothing.
    """
    inner = tree.information > 0
    if not own:
        inner[tree.of_class] = False
    numbers = sorted(set(tree.levels[inner].tolist()))
    found: list[Tensor] = []
    for level in numbers:
        share = tree.below * (tree.levels == level)[:, None]
        share = share / share.sum(0).clamp(min=1)
        early = (tree.levels[tree.of_class] < level).nonzero().squeeze(1)
        share[tree.of_class[early], early] = 1
        found.append(share)
    return numbers, torch.stack(found) if found else torch.zeros(0, len(tree.nodes), len(tree.classes)).double()
