"""One update in one pass and in parts: the same loss and gradients, those of curvature and scales counted once."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hypclip.data.batch import Batch
from hypclip.model import HypCLIP, Output
from hypclip.objective import Loss, Objective
from hypclip.training.step import Embedded, forward_backward
from tests.support.models import TOWERS, tiny_model
from tests.support.training import HIERARCHY, ROLES, SCALES, make_batch, stand_in, tokens_of, with_taxonomy

FEW_BOXES = (2, 0, 3, 1, 1, 2)
CASES: dict[str, tuple[Any, Callable[[], Batch]]] = {
    "clip": ("clip", make_batch),
    "hycoclip": ({"base": "hycoclip", "skip_duplicates": True}, make_batch),
    "phyclip": ("phyclip", make_batch),
    "uncha": ({"base": "uncha", "max_boxes": 3}, functools.partial(make_batch, FEW_BOXES)),
    "hierarchy": ({**HIERARCHY, "max_boxes": 3}, lambda: with_taxonomy(make_batch(FEW_BOXES))),
    "argent": ({"base": "argent", "max_boxes": 3}, functools.partial(make_batch, FEW_BOXES)),
}
SCALARS = ("log_curv", "log_logit_scale", "log_other_scales.box_scale", "log_other_scales.box_whole_scale")


class Dropping(nn.Module):
    """A text tower that drops out at random, as open_clip's own does not."""

    def __init__(self, tower: nn.Module):
        super().__init__()
        self.tower = tower

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = nn.functional.dropout(self.tower(tokens), 0.3, self.training)
        return out


def model_for(case: str, *, random: bool = False) -> HypCLIP:
    """Return a model in training; `random` drops patches of pictures and features of texts."""
    objective = objective_for(case)
    vision = {**TOWERS["vision_cfg"], "patch_dropout": 0.5 if random else 0.0}
    recipe = objective.recipe
    model = tiny_model(
        towers={**TOWERS, "vision_cfg": vision},
        geometry=recipe.geometry,
        distance=recipe.distance,
        factor_dim=recipe.factor_dim,
        curv_init=1.3,
        logit_scale_init=recipe.scales["logit_scale"],
        other_scales=SCALES if case == "uncha" else {},
    )
    if random:
        model.text_tower = Dropping(model.text_tower)
    return model.train()


def objective_for(case: str) -> Objective:
    return Objective.from_recipe(CASES[case][0])


def batch_for(case: str) -> Batch:
    batch = CASES[case][1]()
    roles = objective_for(case).recipe.roles
    roles |= {"concept"} if batch.levels is not None else set()
    images, content = ({r: x for r, x in part.items() if r in roles} for part in (batch.images, batch.content))
    texts = batch.texts.part(dict.fromkeys(roles, slice(None)))
    return replace(batch, images=images, texts=texts, content=content)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Return the gradients there are, and take them out of the parameters."""
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for parameter in model.parameters():
        parameter.grad = None
    return found


def step(model: HypCLIP, case: str, parts: int, batch: Batch | None = None) -> tuple[Loss, Embedded, dict[str, Tensor]]:
    loss, seen = forward_backward(model, model, objective_for(case), batch or batch_for(case), parts)
    return loss, seen, gradients(model)


def assert_close(got: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> None:
    """Compare whole tensors by the length of the difference; a scalar's gradient is a sum of much that cancels."""
    assert got.keys() == want.keys()
    for name, value in want.items():
        tolerance = 1e-5 if value.dim() > 1 else 1e-4
        assert (got[name] - value).norm() <= tolerance * value.norm() + 1e-7, name


# Parts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "parts"), [*itertools.product(CASES, (2, 3, 4)), ("hycoclip", 6), ("hycoclip", 50)])
def test_parts_have_the_loss_and_gradients_of_the_whole(case: str, parts: int) -> None:
    """Six samples in parts of 3, of 2, of 1 or 2, of 1, and in more parts than there are samples."""
    model = model_for(case)
    whole, seen_whole, wanted = step(model, case, 1)
    loss, seen, found = step(model, case, parts)
    torch.testing.assert_close(loss.loss, whole.loss, rtol=1e-5, atol=1e-6)
    assert loss.parts.keys() == whole.parts.keys()
    for name, value in whole.parts.items():
        torch.testing.assert_close(loss.parts[name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert_close(found, wanted)
    assert_close(seen.features, seen_whole.features)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == wanted.keys()
    assert all(gradient.any() for gradient in wanted.values())


@pytest.mark.parametrize("case", ["hycoclip", "phyclip", "uncha"])
def test_the_gradients_of_curvature_and_scales_are_counted_once(case: str) -> None:
    """Against float64 and one pass. Peers that let every part add them have as many times the gradient of a scale."""
    objective, batch = objective_for(case), batch_for(case)
    exact = model_for(case).double()
    output = Output(*_in_double(exact, batch, objective))
    torch.autograd.backward(evaluate(objective, output, batch).loss)
    wanted = {name: gradient for name, gradient in gradients(exact).items() if name in SCALARS}
    assert wanted.keys() == {name for name in SCALARS if case == "uncha" or "other" not in name}
    model = model_for(case)
    for parts in (1, 2, 3):
        _, _, found = step(model, case, parts)
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[name].double(), gradient, rtol=1e-4, atol=1e-7, msg=f"{name}, {parts}")
            assert (found[name].double() - parts * gradient).norm() > 0.4 * gradient.norm() or parts == 1


def _in_double(model: HypCLIP, batch: Batch, objective: Objective) -> Output:
    """Return what the model's forward does, whose features are float32 by design, in float64."""

    def lift(features: Tensor, scale: Tensor) -> Tensor:
        return model.metric.lift(features, scale.exp(), model.curv)

    features = {r: lift(model.image_tower(x.double()), model.log_image_scale) for r, x in batch.images.items()}
    features |= {r: lift(model.text_tower(x), model.log_text_scale) for r, x in tokens_of(batch.texts).items()}
    if batch.box_rows is not None:
        boxes = objective.recipe.max_boxes
        for role in ("box_image", "box_text"):
            padded = torch.zeros(batch.size * boxes, model.dim, dtype=torch.float64)
            features[role] = padded.index_copy(0, batch.box_rows, features[role]).view(batch.size, boxes, model.dim)
    return Output(features, model.curv, model.scales)


def evaluate(objective: Objective, output: Output, batch: Batch) -> Loss:
    return objective(
        output.features,
        curv=output.curv,
        logit_scale=output.scales,
        content=batch.content,
        box_weight=batch.box_weight,
    )


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("case", ["hycoclip", "uncha"])
def test_what_towers_drop_at_random_is_dropped_again(case: str, parts: int) -> None:
    """The gradients are those of the features that the loss saw, not of others drawn anew; and the generator moves on
    as far as one pass over the parts takes it."""
    model, objective, batch = model_for(case, random=True), objective_for(case), batch_for(case)
    torch.manual_seed(3)
    outputs = [model(c.images, c.texts, (c.size, objective.recipe.max_boxes), c.box_rows) for c in batch.split(parts)]
    after = torch.get_rng_state()
    features = {role: torch.cat([output.features[role] for output in outputs]) for role in outputs[0].features}
    whole = evaluate(objective, Output(features, outputs[0].curv, outputs[0].scales), batch)
    torch.autograd.backward(whole.loss)
    wanted = gradients(model)

    torch.manual_seed(3)
    loss, seen, found = step(model, case, parts)
    torch.testing.assert_close(loss.loss, whole.loss, rtol=1e-5, atol=1e-6)
    assert_close(seen.features, {role: x.detach() for role, x in features.items()})
    assert_close(found, wanted)
    assert torch.equal(torch.get_rng_state(), after)
    torch.manual_seed(4)
    other, _, _ = step(model, case, parts)
    assert (other.loss - loss.loss).abs() > 1e-3 * loss.loss


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_a_part_may_be_without_any_box(parts: int) -> None:
    """With few boxes that is a matter of chance; vision transformers do not take empty batches."""
    model, batch = model_for("uncha"), make_batch((2, 1, 3, 0, 0, 0))
    whole, _, wanted = step(model, "uncha", 1, batch)
    loss, _, found = step(model, "uncha", parts, batch)
    torch.testing.assert_close(loss.loss, whole.loss, rtol=1e-5, atol=1e-6)
    assert_close(found, wanted)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_a_whole_batch_may_be_without_any_box(parts: int) -> None:
    model = model_for("uncha")
    batch = stand_in(make_batch((0, 0, 0, 0)))
    loss, _, found = step(model, "uncha", parts, batch)
    whole, _, wanted = step(model, "uncha", 1, batch)
    torch.testing.assert_close(loss.loss, whole.loss, rtol=1e-5, atol=1e-6)
    assert loss.loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert_close(found, wanted)


def test_gradients_add_to_what_is_there() -> None:
    """As those of any backward pass do."""
    model = model_for("hycoclip")
    _, _, once = step(model, "hycoclip", 2)
    for _ in range(2):
        forward_backward(model, model, objective_for("hycoclip"), batch_for("hycoclip"), 2)
    assert_close(gradients(model), {name: 2 * gradient for name, gradient in once.items()})


def test_parts_keep_the_graph_of_one_part_at_a_time() -> None:
    """What the parts are for: no pass with a graph has more rows than a part has."""
    model, seen = model_for("hycoclip"), []
    forward = model.forward

    def noting(*args: Any) -> Output:
        output: Output = forward(*args)
        seen.append((len(output.features["image"]), output.features["image"].requires_grad))
        return output

    model.forward = noting  # type: ignore[method-assign]
    step(model, "hycoclip", 3)
    assert seen == [(2, False)] * 3 + [(2, True)] * 3


def test_what_the_objective_saw_is_handed_out_without_a_graph() -> None:
    model, batch = model_for("uncha"), batch_for("uncha")
    for parts in (1, 2):
        _, seen, _ = step(model, "uncha", parts, batch)
        assert {role: x.shape for role, x in seen.features.items()} == {
            role: (6, 3, 16) if "box" in role else (6, 16) for role in ROLES
        }
        assert not any(x.requires_grad for x in (*seen.features.values(), seen.curv))
        assert torch.equal(seen.curv, model.curv)
        assert seen.known["box_weight"] is batch.box_weight
        assert seen.known["content"] == batch.content


def test_a_frozen_curvature_has_no_gradient() -> None:
    model = tiny_model(learn_curv=False)
    for parts in (1, 2):
        _, _, found = step(model, "hycoclip", parts)
        assert "log_curv" not in found
        assert "log_logit_scale" in found


def test_towers_in_half_precision_leave_weights_and_gradients_in_full() -> None:
    model = model_for("hycoclip")
    _, _, full = step(model, "hycoclip", 1)
    loss, _ = forward_backward(model, model, objective_for("hycoclip"), batch_for("hycoclip"), precision="bf16")
    assert 0 < loss.loss < 10
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    halved = gradients(model)
    assert {gradient.dtype for gradient in halved.values()} == {torch.float32}
    assert any(not torch.equal(halved[name], gradient) for name, gradient in full.items())


# Numbers that are none ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("case", ["hycoclip", "uncha"])
def test_a_loss_that_is_not_finite_is_returned_as_it_is(case: str, parts: int) -> None:
    model, batch = model_for(case), batch_for(case)
    batch.images["image"][3, 0, 0, 0] = torch.nan
    loss, seen, found = step(model, case, parts, batch)
    assert not loss.loss.isfinite()
    assert any(not gradient.isfinite().all() for gradient in found.values())
    assert seen.features["image"].isnan().any(1).tolist() == [False, False, False, True, False, False]
