"""Where points lie when training begins."""

import pytest
import torch
from training_helpers import HIERARCHY, make_batch, tiny_model, with_taxonomy

from hypclip.errors import TrainingError
from hypclip.objective import Objective
from hypclip.training.calibration import FirstRadii, calibrate


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
