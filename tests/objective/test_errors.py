"""Mistakes in what an objective is called with: typed errors that name the field."""

import pytest
import torch
from torch import Tensor

from hypclip.errors import InputError
from hypclip.objective import Objective
from tests.support.objective import SETTINGS, samples
from tests.support.training import ROLES

NAN, INF = float("nan"), float("inf")


def call(name: str = "hycoclip", features: dict[str, Tensor] | None = None, **changes: object) -> Tensor:
    arguments = {"curv": 1.0, "logit_scale": 2.0, **changes}
    return Objective.from_recipe(SETTINGS[name])(samples(3) if features is None else features, **arguments).loss


def refused(match: str, name: str = "hycoclip", features: dict[str, Tensor] | None = None, **changes: object) -> None:
    with pytest.raises(InputError, match=match):
        call(name, features, **changes)


# Features -------------------------------------------------------------------------------------------------------------


def test_a_missing_role_is_named():
    two = {role: x for role, x in samples(3).items() if role in ("image", "text")}
    refused(r"lack \['box_image', 'box_text'\].*got \['image', 'text'\]", features=two)


def test_what_a_recipe_does_not_need_is_left_alone():
    features = {**samples(3), "box_image": torch.full((1, 2, 3), NAN)}
    content = {"text": torch.arange(3), "box_text": torch.zeros(3, 5, dtype=torch.int64)}
    assert call("meru", features, content=content, box_weight=torch.ones(3, 5)) == call("meru")


@pytest.mark.parametrize("shape", [(2, 6), (3, 5), (3, 6, 1), (6,), (3, 2, 5), (2, 2, 6), ()], ids=str)
def test_shapes_that_differ_are_named(shape):
    refused(
        rf"features must be .*'box_text': \({shape[0] if shape else ''}",
        features={**samples(3), "box_text": torch.zeros(shape)},
    )


def test_numbers_of_boxes_that_differ_are_named():
    features = {**samples(3, boxes=2), "box_text": torch.zeros(3, 4, 6, dtype=torch.float64)}
    refused(r"features must be .*'box_text': \(3, 4, 6\)", features=features)
    features = {**samples(3, boxes=2), "box_text": torch.zeros(3, 6, dtype=torch.float64)}
    refused(r"features must be .*'box_text': \(3, 6\)", features=features)


def test_wholes_have_no_boxes():
    features = {**samples(3, boxes=2), "text": torch.zeros(3, 2, 6, dtype=torch.float64)}
    refused(r"features must be .*'text': \(3, 2, 6\)", features=features)


@pytest.mark.parametrize("shape", [(0, 6), (3, 0)], ids=str)
def test_an_empty_batch_is_refused(shape):
    refused("features are empty", features=dict.fromkeys(ROLES, torch.zeros(shape)))


def test_no_boxes_at_all_are_refused():
    refused(
        "features are empty|box", features={**samples(3), **dict.fromkeys(ROLES[2:], torch.zeros(3, 0, 6).double())}
    )


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_other_precisions_are_refused(name, dtype):
    features = {role: x.to(dtype) for role, x in samples(3).items()}
    refused(rf"features\['\w+'\] must be float32 or float64, got {dtype}", name, features)


def test_mixed_precisions_are_refused():
    features = samples(3)
    refused("features must be of one dtype, got", features={**features, "text": features["text"].float()})


def test_one_half_precision_role_is_named():
    features = samples(3)
    refused(r"features\['box_text'\] must be float32", features={**features, "box_text": features["box_text"].half()})


# Curvature and scales -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curv", [0.0, -1.0, NAN, INF])
@pytest.mark.parametrize("name", ["meru", "phyclip"])
def test_a_curvature_that_is_not_positive_and_finite_is_refused(name, curv):
    refused(f"curv must be positive.*got {curv}", name, curv=curv)
    refused("curv must be positive", name, curv=torch.tensor(curv))
    refused("curv must be positive", "phyclip", curv=torch.tensor([1.0, curv, 1.0]))


@pytest.mark.parametrize("shape", [(2,), (4,), (3, 1), (1, 3)], ids=str)
def test_a_product_has_one_curvature_or_one_a_factor(shape):
    refused(
        rf"curv must be one number or one per factor \(3\), got shape \({shape[0]}", "phyclip", curv=torch.ones(shape)
    )


@pytest.mark.parametrize("shape", [(2,), (3,), (6,), (3, 1)], ids=str)
@pytest.mark.parametrize("name", ["meru", "uncha"])
def test_a_single_space_has_one_curvature(name, shape):
    refused("curv", name, curv=torch.ones(shape))


def test_a_factor_that_does_not_divide_the_dimension_is_refused():
    features = {role: x[:, :5] for role, x in samples(3).items()}
    refused("5 components do not divide into factors of factor_dim 2", "phyclip", features)


@pytest.mark.parametrize("scale", [0.0, -2.0, NAN, INF])
def test_a_scale_that_is_not_positive_and_finite_is_refused(scale):
    for value in (scale, torch.tensor(scale)):
        refused(f"logit_scale must be positive and finite, got {scale}", "clip", logit_scale=value)
    several = {"logit_scale": 1.0, "box_scale": scale, "box_whole_scale": 1.0}
    refused("box_scale must be positive and finite", "uncha", logit_scale=several)


def test_a_scale_of_several_numbers_is_refused():
    refused("logit_scale", "clip", logit_scale=torch.ones(3))


def test_a_scale_that_is_not_there_is_named():
    refused(
        r"logit_scale lacks \['box_scale'\].*got \['box_whole",
        "uncha",
        logit_scale={"logit_scale": 1.0, "box_whole_scale": 1.0},
    )
    refused(r"logit_scale lacks \['logit_scale'\]", "meru", logit_scale={"scale": 1.0})


# Content, weights, and shares of processes ----------------------------------------------------------------------------


def test_content_of_another_shape_is_named():
    refused(r"content\['text'\] must have shape \(3,\), got \(2,\)", content={"text": torch.tensor([1, 2])})
    boxes = samples(3, boxes=2)
    refused(r"content\['text'\] must have shape \(3,\)", features=boxes, content={"text": torch.ones(3, 2).long()})
    refused(
        r"content\['box_text'\] must have shape \(3, 2\), got \(3,\)",
        features=boxes,
        content={"box_text": torch.arange(3)},
    )


@pytest.mark.parametrize("shape", [(3,), (3, 1), (2, 2), (3, 2, 1)], ids=str)
def test_weights_of_another_shape_are_named(shape):
    refused(
        rf"box_weight must have shape \(3, 2\), got \({shape[0]}",
        features=samples(3, boxes=2),
        box_weight=torch.ones(shape),
    )


@pytest.mark.parametrize("local", [slice(0, 0), slice(2, 1), slice(3, 5), slice(5, 9)], ids=str)
def test_a_process_without_rows_is_refused(local):
    refused("local must hold at least one of the 3 rows", local=local)


def test_rows_that_are_not_in_sequence_are_refused():
    refused("local", local=slice(0, 3, 2))


def test_describing_a_batch_refuses_the_same():
    objective = Objective.from_recipe("hycoclip")
    with pytest.raises(InputError, match="features lack"):
        objective.describe({"image": torch.ones(2, 3)}, curv=1.0)
    with pytest.raises(InputError, match="curv must be positive"):
        objective.describe(samples(3), curv=-1.0)
    with pytest.raises(InputError, match="box_weight"):
        objective.describe(samples(3), curv=1.0, box_weight=torch.ones(3, 2))
