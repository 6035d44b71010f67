"""Evidence of a tree beside that of the classes' own names, on models whose points are known."""

from __future__ import annotations

import pytest
import torch

from hypclip.errors import DataError, InputError
from hypclip.evaluation.hierarchy import build_taxonomy
from hypclip.evaluation.joint import Evidence, _by_level, fit_weights
from hypclip.evaluation.label_tree import LabelTree
from hypclip.geometry.entailment import Plane, pairwise_score
from hypclip.model import HypCLIP, ModelConfig
from tests.support.models import TOWERS

EDGES = [
    ("dog", "kind:mammal"),
    ("cat", "kind:mammal"),
    ("owl", "kind:bird"),
    ("kind:mammal", "animal"),
    ("kind:bird", "animal"),
    ("animal", "root"),
    ("car", "root"),
]
CLASSES = ["dog", "cat", "owl", "car"]
TREE = LabelTree(build_taxonomy(EDGES), CLASSES)


class Spoken(HypCLIP):
    """A model whose texts lie where a table says."""

    def __init__(self, places: dict[str, list[float]], **config: object):
        super().__init__(ModelConfig(towers=TOWERS, **config))
        self.places, self.dim = places, 2

    def embed_text(self, texts, batch_size=256):
        return torch.tensor([self.places[text] for text in texts])


PLACES = {
    "a dog": [1.0, 0.2], "a cat": [1.0, -0.2], "a owl": [0.2, 1.0], "a car": [-1.0, 0.0],
    "a mammal": [0.6, 0.0], "an animal": [0.2, 0.2], "a bird": [0.1, 0.6],
}  # fmt: skip


@pytest.fixture
def evidence() -> Evidence:
    return Evidence.of(Spoken(PLACES, entailment=Plane()), TREE, [[name] for name in CLASSES])


def test_all_but_what_is_above_all_is_asked_by_what_its_key_says(evidence: Evidence) -> None:
    asked = ["an animal", "a car", "a bird", "a mammal", "a cat", "a dog", "a owl"]
    torch.testing.assert_close(evidence.inner, torch.tensor([PLACES[text] for text in asked]))
    assert evidence.numbers == (1, 2, 3)


def test_a_class_above_a_level_is_there_itself(evidence: Evidence) -> None:
    """Columns are dog, cat, owl and car."""
    nodes = ["animal", "car", "bird", "mammal", "cat", "dog", "owl"]
    at = [{node: row for node, row in zip(nodes, level.tolist(), strict=True) if any(row)} for level in evidence.levels]
    assert at[0] == {"animal": [1, 1, 1, 0], "car": [0, 0, 0, 1]}
    assert at[1] == {"mammal": [1, 1, 0, 0], "bird": [0, 0, 1, 0], "car": [0, 0, 0, 1]}
    assert at[2] == {"dog": [1, 0, 0, 0], "cat": [0, 1, 0, 0], "owl": [0, 0, 1, 0], "car": [0, 0, 0, 1]}


def test_parents_share_a_level() -> None:
    """A bat is a mammal and a flyer; an earthworm an animal, and by a longer way ringed."""
    edges = [
        ("bat", "mammal"), ("bat", "flyer"), ("mammal", "animal"), ("flyer", "animal"), ("animal", "root"),
        ("earthworm", "worm"), ("worm", "ringed"), ("ringed", "root"), ("earthworm", "animal"), ("car", "root"),
    ]  # fmt: skip
    tree = LabelTree(build_taxonomy(edges), ["bat", "earthworm", "car"])
    numbers, shares = _by_level(tree, own=False)
    assert numbers == [1, 2]
    at = {node: shares[:, tree.rows[node]].tolist() for node in tree.nodes}
    assert at["flyer"] == at["mammal"] == [[0, 0, 0], [0.5, 0, 0]]
    assert at["animal"] == [[1, 0.5, 0], [0, 0, 0]]
    assert at["ringed"] == [[0, 0.5, 0], [0, 0, 0]]
    assert at["worm"] == [[0, 0, 0], [0, 1, 0]]
    assert at["car"] == [[0, 0, 1], [0, 0, 1]]


def test_evidence_is_the_similarity_and_the_depth_in_the_regions_above(evidence: Evidence) -> None:
    images = torch.tensor([[1.5, 0.1], [-1.2, 0.3]])
    found = evidence.of_images(images)
    model = evidence.model
    torch.testing.assert_close(found[0].float(), model.similarity(images, evidence.classes))
    depth = pairwise_score(Plane(), evidence.inner.double(), images.double(), model.metric, model.curv.detach())
    torch.testing.assert_close(found[1], torch.stack([depth[0], depth[0], depth[0], depth[1]], 1))
    torch.testing.assert_close(found[2], torch.stack([depth[3], depth[3], depth[2], depth[1]], 1))
    torch.testing.assert_close(found[3], torch.stack([depth[5], depth[4], depth[6], depth[1]], 1))
    assert found[2, 0, 0] > 0 > found[2, 1, 0]


def test_a_kind_may_decide_between_classes_that_are_as_similar(evidence: Evidence) -> None:
    """The image is as far from a dog as from an owl, and nearer to a mammal than to any animal else."""
    image = torch.tensor([[0.8, 0.8]])
    flat = evidence.probabilities(image, [5.0, 0.0, 0.0, 0.0])
    assert flat[0, 0] == pytest.approx(float(flat[0, 2]))
    assert flat[0, 0] != pytest.approx(float(evidence.probabilities(image, [5.0, 0.0, 4.0, 0.0])[0, 0]))
    assert flat.sum() == pytest.approx(1)


def test_texts_may_be_given(evidence: Evidence) -> None:
    places = PLACES | {"something furry": [0.5, -0.1]}
    texts = {"kind:mammal": "something furry"}
    named = Evidence.of(Spoken(places, entailment=Plane()), TREE, [[name] for name in CLASSES], node_texts=texts)
    assert named.inner[3].tolist() == pytest.approx([0.5, -0.1])
    with pytest.raises(DataError, match="what stands above no class: 'kind:fish'"):
        Evidence.of(evidence.model, TREE, [[name] for name in CLASSES], node_texts={"kind:fish": "a fish"})


def test_on_the_sphere_nodes_are_compared_as_classes_are() -> None:
    model = Spoken(PLACES, geometry="sphere")
    found = Evidence.of(model, TREE, [[name] for name in CLASSES]).of_images(torch.tensor([[1.0, 0.0]]))
    assert len(found) == 3  # no level of classes alone: it would be the similarity once more
    assert found[2, 0, 0] == pytest.approx(1)  # the cosine of the mammal
    assert found[1, 0, 0] == pytest.approx(0.5**0.5)


def test_without_inner_nodes_there_are_the_classes_alone() -> None:
    tree = LabelTree(build_taxonomy([(name, "root") for name in CLASSES]), CLASSES)
    names = [[name] for name in CLASSES]
    assert Evidence.of(Spoken(PLACES), tree, names).of_images(torch.tensor([[1.0, 0.0]])).shape == (2, 1, 4)
    evidence = Evidence.of(Spoken(PLACES, geometry="sphere"), tree, names)
    assert evidence.of_images(torch.tensor([[1.0, 0.0]])).shape == (1, 1, 4)
    with pytest.raises(InputError, match=r"expected 1 weights, .* got 2"):
        evidence.probabilities(torch.tensor([[1.0, 0.0]]), [1.0, 2.0])


def test_a_scale_by_hand() -> None:
    """Of two classes .5 apart, right in three of four cases: p = 3/4 where scale · .5 = log 3."""
    similarity = torch.tensor([[0.0, -0.5]], dtype=torch.float64).repeat(4, 1)
    assert fit_weights(similarity[None], [0, 0, 0, 1]) == pytest.approx([2.19722], rel=1e-4)


def test_the_weights_that_data_was_drawn_with_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    evidence = torch.randn(3, 8000, 6, generator=generator, dtype=torch.float64)
    p = torch.softmax(3 * evidence[0] + 0.5 * evidence[1], 1)
    labels = torch.multinomial(p, 1, generator=generator).squeeze(1).tolist()
    assert fit_weights(evidence, labels) == pytest.approx([3, 0.5, 0], abs=0.12)


@pytest.mark.parametrize(
    ("similarity", "labels", "said"),
    [
        (torch.zeros(0, 3), [], "got none"),
        (torch.eye(3), [0, 1, 2], "always has the most evidence"),
        (torch.eye(3), [1, 2, 0], "counts against the right class"),
    ],
)
def test_what_fits_no_weights_is_refused(similarity: torch.Tensor, labels: list[int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        fit_weights(similarity[None].double(), labels)
