"""Entailment by cones and by half-spaces, in every geometry, and by a model."""

import math

import numpy as np
import pytest
import torch

from hypclip import checkpoint
from hypclip.config import build
from hypclip.errors import ConfigError, InputError
from hypclip.geometry import cones, lorentz, planes
from hypclip.geometry.entailment import Cone, Plane, coincident, pairwise_score
from hypclip.geometry.metric import Metric
from hypclip.model import ModelConfig
from tests.support.models import SPACES, tiny_model
from tests.support.search import unchecked


def points(n: int, seed: int, dim: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return lorentz.exp_map0(torch.randn(n, dim, generator=generator, dtype=torch.float64), 1.0)


def test_a_cone_scores_its_scaled_aperture_minus_the_angle():
    x, y = points(5, 1), points(6, 2)
    found = pairwise_score(Cone(eta=0.7, min_radius=0.3), x, y, Metric(), 1.0)
    wanted = 0.7 * cones.half_aperture(x, 1.0, 0.3)[:, None] - cones.pairwise_oxy_angle(x, y, 1.0)
    assert torch.allclose(found, wanted, atol=1e-12)


def test_a_plane_scores_the_height_above_its_threshold():
    x, y = points(5, 1), points(6, 2)
    found = pairwise_score(Plane(threshold=0.25), x, y, Metric(), 1.0)
    assert torch.allclose(found, planes.pairwise_height(x, y, 1.0) - 0.25, atol=1e-12)


def test_in_flat_space_regions_are_euclidean():
    flat = Metric("euclidean")
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([[1.5, 3.0], [0.9, 0.0], [4.0, 1.0]], dtype=torch.float64)
    assert pairwise_score(Plane(), x, y, flat, 1.0).tolist() == pytest.approx(np.array([[0.5, -0.1, 3.0]]))
    found = pairwise_score(Cone(min_radius=0.5), x, y, flat, 1.0)
    angles = [math.atan2(3, 0.5), math.pi, math.atan2(1, 3)]
    assert found.tolist() == pytest.approx(np.array([[math.asin(0.5) - a for a in angles]]))


@pytest.mark.parametrize("metric", [Metric(), Metric("euclidean")])
def test_a_mask_of_equal_points_changes_no_score(metric):
    x = torch.cat([points(5, 1), torch.zeros(1, 4, dtype=torch.float64)])
    y = torch.cat([x[2:], points(6, 2)])
    given = coincident(x, y)
    found = pairwise_score(Cone(), x, y, metric, 1.0, given)
    assert torch.equal(found, pairwise_score(Cone(), x, y, metric, 1.0))
    assert given.nonzero().tolist() == [[2, 0], [3, 1], [4, 2], [5, 3]]


def test_a_product_has_the_mean_of_its_factors():
    x, y = points(3, 3), points(4, 4)
    both = Metric("product", "l1", 4)
    found = pairwise_score(Plane(), torch.cat([x, x], 1), torch.cat([y, 2 * y], 1), both, torch.tensor([1.0, 1.0]))
    wanted = (planes.pairwise_height(x, y, 1.0) + planes.pairwise_height(x, 2 * y, 1.0)) / 2
    assert torch.allclose(found, wanted, atol=1e-12)


def test_the_sphere_has_no_general_points():
    with pytest.raises(ConfigError, match="sphere"):
        pairwise_score(Plane(), points(2, 1), points(2, 2), Metric("sphere"), 1.0)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Cone, {"eta": 0.0}),
        (Cone, {"eta": math.nan}),
        (Cone, {"min_radius": -1.0}),
        (Plane, {"threshold": math.inf}),
    ],
)
def test_what_is_no_rule_is_refused_by_name(kind, values):
    with pytest.raises(InputError, match=f"{next(iter(values))} of a"):
        kind(**values)


def test_a_threshold_may_be_a_number_of_numpy_or_torch():
    with unchecked():
        assert Plane(threshold=np.float32(0.5)) == Plane(threshold=torch.tensor(0.5)) == Plane(threshold=0.5)
        with pytest.raises(InputError, match="threshold of a plane must be a number, got str 'high'"):
            Plane(threshold="high")


def test_a_model_has_its_rule_from_its_config_and_keeps_it_on_disk(tmp_path):
    model = tiny_model(entailment={"form": "plane", "threshold": 0.5})
    assert model.config.entailment == Plane(threshold=0.5)
    checkpoint.save(model, tmp_path)
    assert checkpoint.load(tmp_path).config.entailment == Plane(threshold=0.5)


def test_a_checkpoint_without_a_rule_has_the_cones_of_meru(tmp_path, caplog):
    checkpoint.save(tiny_model(), tmp_path)
    config = (tmp_path / "config.yaml").read_text()
    rule = "  entailment:\n    eta: 1.0\n    min_radius: 0.1\n    strict: true\n    form: cone\n"
    assert rule in config
    (tmp_path / "config.yaml").write_text(config.replace(rule, ""))
    with caplog.at_level("WARNING"):
        assert checkpoint.load(tmp_path).config.entailment == Cone()
        checkpoint.load(tmp_path)
    assert [r.getMessage() for r in caplog.records] == [
        f"{tmp_path} does not say what entails what: it is taken to be by the cones of MERU, eta 1 and min_radius 0.1"
    ]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"form": "plane", "eta": 1.0}, "eta"),
        ({"form": "ball"}, "form"),
        ({"form": "cone", "eta": -1.0}, "eta of a cone must be positive"),
    ],
)
def test_a_wrong_rule_in_a_config_is_named(rule, said):
    with pytest.raises(ConfigError, match=said):
        build(ModelConfig, {"towers": "ViT-B-32", "entailment": rule}, "model")


def test_entails_is_by_the_models_rule_and_another_may_be_given():
    model = tiny_model(entailment={"form": "plane"})
    general = torch.zeros(1, model.dim)
    general[0, 0] = 0.5
    specific = torch.zeros(3, model.dim)
    specific[0, 0], specific[1, 0], specific[2, 1] = 0.5, 1.0, 1.0  # at its place, behind it, across
    assert model.entails(general, specific).tolist() == [[False, True, False]]
    assert model.entails(general, specific, Plane(strict=False)).tolist() == [[True, True, False]]
    assert model.entails(general, specific, Plane(threshold=0.9)).tolist() == [[False, False, False]]
    assert model.entails(specific, general).tolist() == [[False], [False], [False]]


def test_entails_refuses_what_are_no_rows_or_no_rule():
    model = tiny_model()
    with unchecked(), pytest.raises(InputError, match="specific must be a tensor"):
        model.entails(torch.zeros(1, model.dim), torch.zeros(1, model.dim + 1))
    with unchecked(), pytest.raises(InputError, match="a Cone or a Plane"):
        model.entails(torch.zeros(1, model.dim), torch.zeros(1, model.dim), "plane")


@pytest.mark.parametrize("space", SPACES)
def test_every_space_but_the_sphere_entails(space):
    model = tiny_model(**SPACES[space])
    x = model.embed_text(["an animal", "a dog"])
    if space == "sphere":
        with pytest.raises(ConfigError, match="sphere"):
            model.entails(x, x)
    else:
        assert model.entails(x, x).diagonal().tolist() == [False, False]
