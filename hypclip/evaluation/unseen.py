"""How well images of classes that no training has seen are recognised by the places of these classes in a tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hypclip.errors import DataError
from hypclip.evaluation.label_tree import LabelTree
from hypclip.geometry import lorentz


def unseen_scores(
    images: Float[Tensor, "n d"],
    labels: Sequence[int],
    prototypes: Float[Tensor, "nodes d"],
    tree: LabelTree,
    seen: Bool[Tensor, " classes"],
) -> Iterator[tuple[str, int | float]]:
    """Yield scores of images of unseen classes, by the nearest prototypes.

    n: such images. classes: unseen classes, among which `top1` and `top5` are sought; `chance` is one in so many.
    generalised: the right one is the nearest of all classes, the seen ones too. above_K: the right node of level K of
    the tree is the nearest of its level; above_K_by_class: the node of level K above the nearest seen class is right,
    which needs no prototypes of nodes. Images of seen classes are left out but for `generalised_seen`.

    Args:
        images: their points on the hyperboloid of curvature −1.
        labels: the class of each, by its place in `tree.classes`.
        prototypes: of the nodes of the tree, in their order, on the same hyperboloid.
        tree: the classes and what stands above them.
        seen: which of the classes training has seen.

    Raises:
        DataError: there is no image of an unseen class, or no seen class.
    """
    truth = torch.tensor(labels)
    new = ~seen[truth]
    if not bool(new.any()):
        raise DataError("no image is of an unseen class: there is nothing to recognise")
    if not bool(seen.any()):
        raise DataError("no class is seen: a head has to be trained on some")
    to_class = lorentz.pairwise_dist(images.float(), prototypes[tree.of_class].float(), 1.0)
    nearest = to_class.argmin(1)
    d, right = to_class[new], truth[new]
    among = to_class.masked_fill(seen, torch.inf)[new]
    count = int((~seen).sum())
    ranked = among.topk(min(5, count), dim=1, largest=False).indices
    yield "n", len(right)
    yield "classes", count
    yield "chance", 1 / count
    yield "top1", _mean(ranked[:, 0] == right)
    yield "top5", _mean((ranked == right[:, None]).any(1))
    yield "generalised", _mean(nearest[new] == right)
    if bool((~new).any()):
        yield "generalised_seen", _mean(nearest[~new] == truth[~new])
    known = d.masked_fill(~seen, torch.inf).argmin(1)
    for level, rows, above in _levels(tree):
        at = lorentz.pairwise_dist(images[new].float(), prototypes[rows].float(), 1.0).argmin(1)
        yield f"above_{level}", _mean(above[at, right])
        yield f"above_{level}_by_class", _mean((above[:, known] & above[:, right]).any(0))


def neighbour_scores(
    features: Float[Tensor, "n f"],
    labels: Sequence[int],
    seen_features: Float[Tensor, "m f"],
    seen_labels: Sequence[int],
    tree: LabelTree,
) -> Iterator[tuple[str, float]]:
    """Yield `above_K_by_class` of images of unseen classes, by the class of the most similar image of a seen one.

    Similar is by the cosine of features that are standardised as those of the seen classes are. It is what features
    tell of kinds without a head, and so what a head has to be better than.

    Args:
        features: of images.
        labels: the class of each, by its place in `tree.classes`; those of `seen_labels` are left out.
        seen_features: of images of seen classes.
        seen_labels: the class of each.
        tree: the classes and what stands above them.
    """
    known, truth = torch.tensor(seen_labels), torch.tensor(labels)
    new = ~torch.isin(truth, known)
    mean, deviation = seen_features.mean(0), seen_features.std(0, correction=0).clamp(min=1e-6)
    own, others = (torch.nn.functional.normalize((x - mean) / deviation, dim=1) for x in (features[new], seen_features))
    nearest = known[torch.cat([(rows @ others.T).argmax(1) for rows in torch.split(own, 1024)])]
    for level, _, above in _levels(tree):
        yield f"above_{level}_by_class", _mean((above[:, nearest] & above[:, truth[new]]).any(0))


def _levels(tree: LabelTree) -> Iterator[tuple[int, Int[Tensor, " nodes"], Bool[Tensor, "nodes classes"]]]:
    """Yield the levels between the root and the deepest, their nodes, and which classes are below each or are it."""
    for level in range(1, int(tree.levels.max())):
        rows = (tree.levels == level).nonzero().squeeze(1)
        yield level, rows, tree.below[rows] > 0


def _mean(hit: Bool[Tensor, " n"]) -> float:
    return hit.double().mean().item()
