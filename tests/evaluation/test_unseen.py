"""Scores of unseen classes, with points and prototypes placed by hand."""

from __future__ import annotations

import pytest
import torch

from hypclip.errors import DataError
from hypclip.evaluation.hierarchy import build_taxonomy
from hypclip.evaluation.label_tree import LabelTree
from hypclip.evaluation.unseen import unseen_scores

CLASSES = ["dog", "cat", "owl", "gull"]
EDGES = [("dog", "mammal"), ("cat", "mammal"), ("owl", "bird"), ("gull", "bird"), ("mammal", "root"), ("bird", "root")]
TREE = LabelTree(build_taxonomy(EDGES), CLASSES)
PLACES = {
    "root": [0.0, 0.0], "mammal": [1.0, 0.0], "bird": [-1.0, 0.0],
    "dog": [2.0, 1.0], "cat": [2.0, -1.0], "owl": [-2.0, 1.0], "gull": [-2.0, -1.0],
}  # fmt: skip
PROTOTYPES = torch.tensor([PLACES[node] for node in TREE.nodes])
SEEN = torch.tensor([True, False, True, False])


def scores(images: list[list[float]], labels: list[int], seen: torch.Tensor = SEEN) -> dict:
    return dict(unseen_scores(torch.tensor(images), labels, PROTOTYPES, TREE, seen))


def test_an_image_at_its_place_is_recognised_in_every_way() -> None:
    assert scores([PLACES["cat"], PLACES["gull"]], [1, 3]) == {
        "n": 2,
        "classes": 2,
        "chance": 0.5,
        "top1": 1,
        "top5": 1,
        "generalised": 1,
        "above_1": 1,
        "above_1_by_class": 1,
    }


def test_scores_by_hand() -> None:
    """A cat like a dog, a cat like an owl, a gull beside the cat, and a dog, whose class is seen."""
    found = scores([[2.0, 0.9], [-2.0, 0.9], [2.0, -0.9], [2.0, 1.0]], [1, 1, 3, 0])
    assert found["n"] == 3
    assert found["top1"] == pytest.approx(1 / 3)  # of the unseen ones the first is nearest to the cat, rightly
    assert found["top5"] == 1  # there are but two
    assert found["generalised"] == 0  # it is nearer to a dog
    assert found["generalised_seen"] == 1
    assert found["above_1"] == pytest.approx(1 / 3)
    assert found["above_1_by_class"] == pytest.approx(1 / 3)


def test_nodes_have_places_of_their_own() -> None:
    """Seen is the dog alone; a gull near the birds' place is a bird, though the nearest seen class is no bird."""
    found = scores([[-1.1, 0.0]], [3], torch.tensor([True, False, False, False]))
    assert (found["above_1"], found["above_1_by_class"]) == (1, 0)


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(DataError, match="no image is of an unseen class"):
        scores([PLACES["dog"]], [0])
    with pytest.raises(DataError, match="no class is seen"):
        scores([PLACES["dog"]], [0], torch.zeros(4, dtype=torch.bool))
