"""Where points lie when training begins, and the threshold of half-spaces when it ends."""

import math

import pytest
import torch

from hypclip.errors import TrainingError
from hypclip.geometry import planes
from hypclip.geometry.entailment import Plane
from hypclip.model import HypCLIP, ModelConfig
from hypclip.objective import Objective
from hypclip.taxonomy import Taxonomy
from hypclip.training.calibration import FirstRadii, calibrate, calibrate_threshold
from tests.support.models import TOWERS, tiny_model
from tests.support.training import HIERARCHY, make_batch, with_taxonomy


@pytest.mark.parametrize("space", [{}, {"curv_init": 3.0}, {"geometry": "euclidean"}])
@pytest.mark.parametrize("boxes", [None, (2, 0, 3)])
def test_the_first_batch_has_the_radii_wanted(space, boxes):
    model = tiny_model(**space).train()
    recipe = {**HIERARCHY, "geometry": space.get("geometry", "lorentz"), "max_boxes": 3 if boxes else 1}
    objective = Objective.from_recipe(recipe)
    batch = with_taxonomy(make_batch(boxes))
    calibrate(FirstRadii(image=0.3, text=0.15), model, model, objective, batch, "fp32")
    output = model(batch.images, batch.texts)
    for kind, wanted in (("image", 0.3), ("text", 0.15)):
        points = torch.cat([x for role, x in output.features.items() if kind in role])
        rho = model.metric.radius(points, output.curv) * (output.curv.sqrt() if not space.get("geometry") else 1)
        assert rho.mean().item() == pytest.approx(wanted, rel=1e-4)
    assert model.log_image_scale.requires_grad


def test_scales_do_not_exceed_one():
    model = tiny_model()
    batch = make_batch()
    calibrate(FirstRadii(image=1e6, text=0.1), model, model, Objective.from_recipe("hycoclip"), batch, "fp32")
    assert model.log_image_scale.item() == 0
    assert model.log_text_scale.item() < 0


def test_features_of_no_length_are_named():
    model = tiny_model()
    with torch.no_grad():
        model.text_tower.text_projection.zero_()
    with pytest.raises(TrainingError, match=r"text features of mean √c · radius 0"):
        calibrate(FirstRadii(1.0, 1.0), model, model, Objective.from_recipe("hycoclip"), make_batch(), "fp32")


# The threshold --------------------------------------------------------------------------------------------------------


PLACES = {"a shape": (0.3, 0.0), "a square": (0.6, 0.2), "a red square": (0.8, 0.4), "a disc": (0.7, -0.9)}


class Known(HypCLIP):
    """A model that looks phrases up."""

    def embed_text(self, texts, batch_size: int = 256) -> torch.Tensor:
        rows = torch.zeros(len(texts), self.dim)
        for row, text in zip(rows, texts, strict=True):
            radius, angle = PLACES[text]
            row[:2] = math.sinh(radius) * torch.tensor([math.cos(angle), math.sin(angle)])
        return rows


def test_the_threshold_of_a_model_parts_what_is_above_from_what_is_not():
    model = Known(ModelConfig(towers=TOWERS, entailment=Plane(threshold=9.0)))
    taxonomy = Taxonomy([("a square", "a shape"), ("a red square", "a square"), ("a disc", "a shape")])
    calibrate_threshold(model, taxonomy)
    heights = {
        (general, specific): planes.height(*model.embed_text([general, specific]).double(), 1.0).item()
        for general in ("a shape", "a square")
        for specific in PLACES
        if general != specific
    }
    true = {(g, s) for g, s in heights if g in taxonomy.ancestors(s)}
    assert len(true) == 4
    lowest, highest = min(heights[pair] for pair in true), max(z for pair, z in heights.items() if pair not in true)
    assert lowest > highest  # they can be told apart
    threshold = model.config.entailment.threshold
    assert threshold == pytest.approx((lowest + highest) / 2, abs=1e-6)
    found = model.entails(model.embed_text(["a shape"]), model.embed_text(list(PLACES)))
    assert found.tolist() == [[False, True, True, True]]


def test_of_a_large_taxonomy_a_part_takes_part(monkeypatch):
    seen = []
    model = Known(ModelConfig(towers=TOWERS, entailment=Plane()))
    monkeypatch.setattr("hypclip.taxonomy.calibration.MOST_PHRASES", 1)
    monkeypatch.setattr(
        Known, "embed_text", lambda self, texts: seen.append(list(texts)) or torch.eye(len(texts), self.dim)
    )
    calibrate_threshold(model, Taxonomy([("a red square", "a square"), ("a square", "a shape"), ("a disc", "a shape")]))
    (phrases,) = seen
    assert 1 < len(phrases) < 4
    assert "a shape" in phrases
