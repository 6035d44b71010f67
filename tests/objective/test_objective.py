"""Every recipe against its formula, and what missing parts and duplicates change about it."""

import json
import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hypclip.objective import Contrast, Edge, Objective, Recipe, recipe_from
from hypclip.roles import MISSING
from tests.support.environment import environment
from tests.support.objective import (
    BOXED,
    CURVED,
    SCALES,
    SETTINGS,
    angle,
    aperture,
    apply,
    assert_near,
    assert_same,
    cosine,
    cross_entropy,
    distance,
    factors,
    gradients,
    hinge,
    leaves,
    samples,
    textbook,
    violation,
)
from tests.support.training import ROLES


def made(name: str) -> Objective:
    return Objective.from_recipe(SETTINGS[name])


def curvs(name: str, curv: float = 1.0) -> float | list[float]:
    """One curvature, or three for the three factors of a product."""
    return [0.3 * curv, curv, 2 * curv] if name.startswith("phyclip") else curv


def one_edge(general: str = "box_text", specific: str = "text", eta: float = 0.3) -> Objective:
    """An objective whose only term on boxes is one edge of weight 1."""
    return Objective(
        Recipe(
            geometry="lorentz",
            contrast=(
                Contrast("image", "text") if "text" not in (general, specific) else Contrast("image", "box_image"),
            ),
            edges=(Edge(general, specific, eta=eta),),
        )
    )


def ids(*rows: int) -> Tensor:
    return torch.tensor(rows)


# Against the textbook -------------------------------------------------------------------------------------------------


def check(name: str, inputs: dict[str, Tensor], box_weight: Tensor | None = None) -> None:
    loss = apply(made(name), inputs, box_weight=box_weight)
    expected, parts = textbook(name, inputs, box_weight)
    torch.testing.assert_close(loss.loss, expected, rtol=1e-9, atol=0)
    assert_same(loss.parts, {part: value.detach() for part, value in parts.items()}, rtol=1e-9, atol=0)
    found = gradients(loss.loss, inputs)
    assert_same(found, gradients(expected, inputs), rtol=1e-7, atol=1e-10)
    for scale in made(name).recipe.scales:
        assert found[scale] != 0
    assert (found["curv"] != 0).all() or name not in CURVED


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("curv", [0.1, 1.0, 4.3])
def test_a_recipe_is_its_formula(name, curv):
    check(name, leaves(samples(7), curvs(name, curv)))


@pytest.mark.parametrize("name", BOXED)
def test_a_recipe_with_several_boxes_is_its_formula(name):
    check(name, leaves(samples(4, boxes=3), curvs(name)))


@pytest.mark.parametrize("name", BOXED)
def test_boxes_count_by_weight_and_some_samples_have_none(name):
    weight = torch.tensor([[1, 0, 2], [0.5, 1, 1], [0, 0, 0], [0, 3, 0], [1, 1, 1]], dtype=torch.float64)
    check(name, leaves(samples(5, boxes=3), curvs(name)), weight)


@pytest.mark.parametrize("name", SETTINGS)
def test_float32_is_the_formula_to_single_precision(name):
    exact = leaves(samples(9, radius=0.7), curvs(name), {**SCALES, "logit_scale": 1 / 0.07})
    inputs = {key: x.detach().float().requires_grad_() for key, x in exact.items()}
    loss = apply(made(name), inputs).loss
    expected, _ = textbook(name, exact)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=2e-6, atol=0)
    near_pairs = 1e-4 if name.startswith("phyclip") else 1e-5  # in one factor of two dimensions, some are close
    assert_near(gradients(loss, inputs), gradients(expected, exact), near_pairs)


def test_one_curvature_serves_all_factors():
    one, three = leaves(samples(5), 0.7), leaves(samples(5), [0.7] * 3)
    loss, expected = apply(made("phyclip"), one).loss, apply(made("phyclip"), three).loss
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients(loss, one)["curv"], gradients(expected, three)["curv"].sum())


@pytest.mark.parametrize("combine", ["l1", "l1_mean", "l2"])
def test_a_product_of_one_factor_is_that_factor(combine):
    product = Objective.from_recipe({"base": "phyclip", "factor_dim": 6, "distance": combine})
    inputs = leaves(samples(5), 2.0)
    loss, expected = apply(product, inputs).loss, apply(made("hycoclip"), inputs).loss
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    assert_near(gradients(loss, inputs), gradients(expected, inputs), 1e-10)


def test_edges_in_flat_space_have_cones_of_half_the_width():
    """Chou and Alam 2024: φ = acos((y − x)·x / |y − x||x|), ω = asin(min(1, K/|x|))."""
    recipe = {"base": "euclip", "edges": [{"general": "text", "specific": "image", "eta": 0.7, "weight": 0.3}]}
    inputs = leaves(samples(7, radius=0.3, spread=0.1))
    loss = apply(Objective.from_recipe(recipe), inputs).loss
    contrast, _ = textbook("euclip", inputs)
    terms = []
    for x, y in zip(inputs["text"], inputs["image"], strict=True):
        phi = torch.acos((y - x) @ x / ((y - x).norm() * x.norm()))
        terms.append(hinge(phi - 0.7 * torch.asin(0.1 / x.norm())))
    expected = contrast + 0.3 * torch.stack(terms).mean()
    assert any(term == 0 for term in terms)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    assert_same(gradients(loss, inputs), gradients(expected, inputs), rtol=1e-7, atol=1e-10)


def test_wide_cones_and_points_inside_them_cost_nothing():
    """Within √c|x| ≤ 2K a cone is a half-space; a specific point outside along the same ray violates nothing."""
    general = samples(5, radius=0.01)["text"]
    features = {"text": general, "image": general * 30, "box_image": general}
    loss = Objective(Recipe(geometry="lorentz", contrast=(Contrast("image", "text"),), edges=(Edge("text", "image"),)))(
        features, curv=1.0, logit_scale=1.0
    )
    assert loss.parts["entail/text-image"] == 0


@pytest.mark.parametrize("name", SETTINGS)
def test_parts_are_unweighted_and_carry_no_gradient(name):
    recipe = made(name).recipe
    loss = apply(made(name), leaves(samples(4), curvs(name)))
    weights = {f"contrast/{t.query}-{t.key}": t.weight for t in recipe.contrast}
    weights |= {f"entail/{t.general}-{t.specific}": t.weight for t in (*recipe.edges, *recipe.entail)}
    weights |= {f"order/{t.general}-{t.specific}": t.weight for t in recipe.order}
    weights |= {f"anchor/{t.role}": t.weight for t in recipe.anchors}
    weights |= {f"calibrate/{t.general}-{t.specific}": t.calibration for t in recipe.edges if t.calibration}
    weights |= {f"{t.kind}/{t.role}": t.weight for t in recipe.regularisers}
    assert loss.parts.keys() == weights.keys()
    assert not any(part.requires_grad for part in loss.parts.values())
    total = sum(weights[part] * value for part, value in loss.parts.items())
    torch.testing.assert_close(total, loss.loss.detach(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["meru", "uncha", "phyclip"])
def test_plain_numbers_do_for_curv_and_scale(name):
    features = samples(4)
    inputs = leaves(features, 0.7, dict.fromkeys(SCALES, 2.0))
    loss = made(name)(features, curv=0.7, logit_scale=2.0).loss
    torch.testing.assert_close(loss, apply(made(name), inputs).loss.detach(), rtol=1e-12, atol=0)


@settings(max_examples=20)
@given(st.permutations(range(5)), st.sampled_from(sorted(SETTINGS)))
def test_the_order_of_the_samples_makes_no_difference(order, name):
    features = samples(5)
    shuffled = {role: x[list(order)] for role, x in features.items()}
    expected = made(name)(features, curv=1.0, logit_scale=5.0).loss
    torch.testing.assert_close(made(name)(shuffled, curv=1.0, logit_scale=5.0).loss, expected, rtol=1e-12, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "euclip", "euclip-geodesic", "meru", "phyclip", "phyclip-l2", "argent"])
def test_gradients_are_those_of_finite_differences(name):
    """Of uncha, softened rows and calibration are not differentiated as they stand: see the formula above."""
    inputs = leaves(samples(3), curvs(name))

    def loss(*tensors: Tensor) -> Tensor:
        return apply(made(name), dict(zip(inputs, tensors, strict=True))).loss

    assert torch.autograd.gradcheck(loss, tuple(inputs.values()), eps=1e-6, atol=1e-7, rtol=1e-5)


# Compiled, and under autocast -----------------------------------------------------------------------------------------


COMPILE = """
import json, torch
from tests.support.objective import SETTINGS, Objective, apply, assert_near, gradients, leaves, samples
from hypclip.objective import RECIPES

torch.set_num_threads(1)
wrong = {}
for name in RECIPES:
    torch._dynamo.reset()
    objective = Objective.from_recipe(SETTINGS[name])
    inputs = leaves(samples(4, 2 if name == "uncha" else None), [0.5, 1.0, 2.0] if name == "phyclip" else 1.0)
    backend = "aot_eager" if name in ("clip", "uncha") else "eager"  # a fifth of the time
    compiled = torch.compile(lambda tensors: apply(objective, tensors).loss, backend=backend, fullgraph=True)
    try:
        found, expected = compiled(inputs), apply(objective, inputs).loss
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
        assert_near(gradients(found, inputs), gradients(expected, inputs), 1e-12)
    except (AssertionError, torch._dynamo.exc.TorchDynamoException) as error:
        wrong[name] = str(error)[:500]
print(json.dumps(wrong))
"""


@pytest.mark.slow
def test_a_compiled_call_has_no_graph_break_and_the_same_gradients():
    """In a process of its own: torch.compile cannot follow the signature checks that conftest puts around functions."""
    run = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == {}


@pytest.mark.parametrize("name", SETTINGS)
def test_an_outer_autocast_changes_nothing(name):
    inputs = leaves({role: x.float() for role, x in samples(8).items()}, curvs(name))
    plain = apply(made(name), inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        inside = apply(made(name), inputs)
    assert inside.loss.dtype == torch.float32
    assert_same({"loss": inside.loss, **inside.parts}, {"loss": plain.loss, **plain.parts}, rtol=0, atol=0)
    assert_same(gradients(inside.loss, inputs), gradients(plain.loss, inputs), rtol=0, atol=0)


# Boxes that are their own parent --------------------------------------------------------------------------------------


def test_a_phrase_that_is_the_caption_orders_nothing():
    inputs = leaves(samples(4))
    content = {"text": ids(10, 11, 12, 13), "box_text": ids(10, 21, 12, 23)}
    loss = apply(one_edge("box_text", "text"), inputs, content=content)
    expected = violation(inputs["box_text"], inputs["text"], inputs["curv"], 0.3, rows=[1, 3])
    torch.testing.assert_close(loss.parts["entail/box_text-text"], expected.detach(), rtol=1e-9, atol=0)
    gradient = gradients(loss.loss, inputs)["box_text"]
    assert (gradient[[0, 2]] == 0).all()
    assert (gradient[[1, 3]].abs().sum(1) > 0).all()


def test_a_box_that_is_the_picture_orders_nothing():
    inputs = leaves(samples(4))
    content = {"image": ids(1, 2, 3, 4), "box_image": ids(5, 2, 3, 6), "box_text": ids(7, 7, 7, 7)}
    objective = Objective(
        Recipe(
            geometry="lorentz", contrast=(Contrast("text", "box_text"),), edges=(Edge("box_image", "image", eta=0.1),)
        )
    )
    loss = apply(objective, inputs, content=content)
    expected = violation(inputs["box_image"], inputs["image"], inputs["curv"], 0.1, rows=[0, 3])
    torch.testing.assert_close(loss.parts["entail/box_image-image"], expected.detach(), rtol=1e-9, atol=0)
    gradient = gradients(loss.loss, inputs)
    for role in ("box_image", "image"):
        assert (gradient[role][[1, 2]] == 0).all()
        assert (gradient[role][[0, 3]].abs().sum(1) > 0).all()


def test_equal_content_of_other_rows_or_other_roles_keeps_the_edge():
    """Row 0's phrase is row 1's caption, and its picture has the same id as its phrase: both edges stay."""
    inputs = leaves(samples(2))
    content = {"text": ids(1, 2), "box_text": ids(2, 3), "image": ids(2, 9)}
    loss = apply(one_edge("box_text", "text"), inputs, content=content)
    expected = violation(inputs["box_text"], inputs["text"], inputs["curv"], 0.3)
    torch.testing.assert_close(loss.parts["entail/box_text-text"], expected.detach(), rtol=1e-9, atol=0)


def test_a_batch_of_such_boxes_alone_costs_nothing():
    features, same = samples(3), ids(1, 2, 3)
    inputs = leaves({**features, "box_text": features["text"]})
    loss = apply(one_edge("box_text", "text"), inputs, content={"text": same, "box_text": same})
    assert loss.parts["entail/box_text-text"] == 0
    assert (gradients(loss.loss, inputs)["box_text"] == 0).all()


# Missing parts --------------------------------------------------------------------------------------------------------

BOXES = Recipe(
    geometry="lorentz",
    contrast=(Contrast("box_image", "text"), Contrast("text", "box_image"), Contrast("box_text", "box_image")),
    edges=(Edge("box_text", "box_image", eta=0.3), Edge("box_image", "image", eta=0.3)),
)
HAVE = [0, 2, 3]
"""The rows of five that have a box."""
WITH_GAPS = {
    "image": ids(1, 2, 3, 4, 5),
    "text": ids(11, 12, 13, 14, 15),
    "box_image": ids(21, MISSING, 23, 24, MISSING),
    "box_text": ids(31, MISSING, 33, 34, MISSING),
}


def test_missing_rows_take_no_part():
    """A picture without a box asks nothing and is no candidate; its caption still is one for the boxes of others."""
    inputs = leaves(samples(5))
    loss = apply(Objective(BOXES), inputs, content=WITH_GAPS)
    image, text, box_image, box_text = (inputs[role] for role in ROLES)
    c, s = inputs["curv"], inputs["logit_scale"]

    def similarity(x, y):
        return -distance(x, y, c)

    have = {"candidates": lambda _: HAVE, "rows": HAVE}
    parts = {
        "contrast/box_image-text": cross_entropy(box_image, text, s, similarity, rows=HAVE),
        "contrast/text-box_image": cross_entropy(text, box_image, s, similarity, **have),
        "contrast/box_text-box_image": cross_entropy(box_text, box_image, s, similarity, **have),
        "entail/box_text-box_image": violation(box_text, box_image, c, 0.3, HAVE),
        "entail/box_image-image": violation(box_image, image, c, 0.3, HAVE),
    }
    assert_same(loss.parts, {name: part.detach() for name, part in parts.items()}, rtol=1e-9, atol=0)
    found = gradients(loss.loss, inputs)
    assert_same(found, gradients(sum(parts.values()), inputs), rtol=1e-7, atol=1e-10)
    for role in ("box_image", "box_text"):
        assert (found[role][[1, 4]] == 0).all()


@pytest.mark.parametrize("name", BOXED)
def test_missing_rows_are_boxes_of_no_weight(name):
    inputs = leaves(samples(5), curvs(name))
    boxless = {role: WITH_GAPS[role] for role in ("box_image", "box_text")}
    loss = apply(made(name), inputs, content=boxless)
    expected, _ = textbook(name, inputs, (WITH_GAPS["box_image"] != MISSING).unsqueeze(1).double())
    torch.testing.assert_close(loss.loss, expected, rtol=1e-9, atol=0)
    assert_near(gradients(loss.loss, inputs), gradients(expected, inputs), 1e-9)


def test_what_stands_in_a_missing_row_makes_no_difference():
    features = samples(5)
    objective = Objective(BOXES)
    expected = objective(features, curv=1.0, logit_scale=3.0, content=WITH_GAPS)
    for role in ("box_image", "box_text"):
        features[role] = features[role].clone()
        features[role][[1, 4]] = 40.0
    again = objective(features, curv=1.0, logit_scale=3.0, content=WITH_GAPS)
    assert_same(again.parts, expected.parts, rtol=0, atol=0)


@pytest.mark.parametrize("name", BOXED)
def test_a_batch_without_boxes_trains_the_rest(name):
    inputs = leaves(samples(3), curvs(name))
    content = dict.fromkeys(("box_image", "box_text"), ids(MISSING, MISSING, MISSING))
    loss = apply(made(name), inputs, content=content)
    _, parts = textbook(name, inputs)
    for part, value in loss.parts.items():
        assert value == (0 if "box" in part else pytest.approx(parts[part].item(), rel=1e-9)), part
    found = gradients(loss.loss, inputs)
    assert all(g.isfinite().all() for g in found.values())
    assert (found["image"].abs().sum(1) > 0).all()
    assert (found["box_image"] == 0).all()
    assert (found["box_text"] == 0).all()


# Duplicates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skip", [True, False])
def test_equal_content_is_a_negative_unless_skipped(skip):
    """Rows 0 and 2 say the same, rows 1 and 3 show the same: neither is a negative of the other, both ways."""
    inputs = leaves(samples(5))
    content = {"text": ids(1, 2, 1, 4, 5), "image": ids(6, 7, 8, 7, 10)}
    both = (Contrast("image", "text"), Contrast("text", "image", weight=2))
    loss = apply(Objective(Recipe(geometry="sphere", contrast=both, skip_duplicates=skip)), inputs, content=content)
    chosen = {0: [0, 1, 3, 4], 1: [0, 1, 2, 4], 2: [1, 2, 3, 4], 3: [0, 2, 3, 4], 4: [0, 1, 2, 3, 4]}
    candidates = chosen.__getitem__ if skip else None
    image, text, s = inputs["image"], inputs["text"], inputs["logit_scale"]
    there = cross_entropy(image, text, s, cosine, candidates=candidates)
    expected = there + 2 * cross_entropy(text, image, s, cosine, candidates=candidates)
    torch.testing.assert_close(loss.parts["contrast/image-text"], there.detach(), rtol=1e-9, atol=0)
    torch.testing.assert_close(loss.loss, expected, rtol=1e-9, atol=0)
    assert_same(gradients(loss.loss, inputs), gradients(expected, inputs), rtol=1e-7, atol=1e-10)


def test_a_batch_of_one_phrase_has_no_negatives():
    inputs = leaves(samples(3))
    recipe = Recipe(geometry="lorentz", contrast=(Contrast("image", "text"),), skip_duplicates=True)
    loss = apply(Objective(recipe), inputs, content={"text": ids(1, 1, 1)}).loss
    assert loss == 0
    assert all((g == 0).all() for g in gradients(loss, inputs).values())


# What a run looks like ------------------------------------------------------------------------------------------------


def test_describe_measures_each_edge():
    recipe = recipe_from({"base": "hycoclip", "contrast": [{"query": "image", "key": "text"}]})
    features = samples(8, radius=0.4, spread=0.1)
    content = {**WITH_GAPS, "box_text": ids(31, MISSING, 13, 34, MISSING)}  # row 2's phrase is its caption
    content = {role: torch.cat([x, x[0] + ids(50, 60, 70)]) for role, x in content.items()}
    c = torch.tensor(0.7, dtype=torch.float64)
    seen = Objective(recipe).describe(features, curv=c, content=content)
    rows = {"box_text-text": [0, 3, 5, 6, 7], "text-image": range(8)}
    states = set()
    for edge in recipe.edges:
        pair = f"{edge.general}-{edge.specific}"
        margins, clamped = [], []
        for i in rows.get(pair, [0, 2, 3, 5, 6, 7]):
            x, y = features[edge.general][i], features[edge.specific][i]
            margins.append((edge.eta * aperture(x, c) - angle(x, y, c)).item())
            clamped.append(float(0.7**0.5 * x.norm() <= 0.2))
        outside = sum(margin < 0 for margin in margins) / len(margins)
        assert seen[f"violation/{pair}"].item() == pytest.approx(outside)
        assert seen[f"margin/{pair}"].item() == pytest.approx(sum(margins) / len(margins))
        assert seen[f"clamped/{pair}"].item() == pytest.approx(sum(clamped) / len(clamped))
        states |= {0 < outside < 1, 0 < sum(clamped) < len(clamped)}
    assert True in states


def test_describe_averages_over_factors_and_weighs_boxes():
    features, weight = samples(3, boxes=2), torch.tensor([[1.0, 3.0], [0.0, 2.0], [0.0, 0.0]])
    c = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)
    seen = made("phyclip").describe(features, curv=c, box_weight=weight)
    margin = outside = 0.0
    for i, k, share in ((0, 0, 1 / 8), (0, 1, 3 / 8), (1, 1, 1 / 2)):
        sides = (factors(x, c, 2) for x in (features["box_text"][i, k], features["text"][i]))
        for (x, cp), (y, _) in zip(*sides, strict=True):
            value = (1.2 * aperture(x, cp) - angle(x, y, cp)).item()
            margin += share * value / 3
            outside += share * (value < 0) / 3
    assert seen["margin/box_text-text"].item() == pytest.approx(margin)
    assert seen["violation/box_text-text"].item() == pytest.approx(outside)


@pytest.mark.parametrize("name", CURVED)
def test_describe_gives_quantiles_of_the_distance_to_the_origin(name):
    """At the quantile q of n sorted values stands the place q (n − 1), interpolated."""
    objective, features = made(name), samples(6)
    c = torch.tensor(curvs(name, 0.7), dtype=torch.float64)
    missing = {"box_text": ids(1, MISSING, 2, 3, MISSING, 4)}
    seen = objective.describe(features, curv=c, content=missing)
    for role in objective.recipe.roles:
        radii = []
        for i, x in enumerate(features[role]):
            if role == "box_text" and i in (1, 4):
                continue
            parts = [(cp.item(), (p @ p).item()) for p, cp in factors(x, c, 2 if name.startswith("phyclip") else None)]
            d = [math.acosh(math.sqrt(1 + cp * squared)) / math.sqrt(cp) for cp, squared in parts]
            combine = {"phyclip-l1_mean": sum(d) / len(d), "phyclip-l2": math.hypot(*d)}
            radii.append(combine.get(name, sum(d)))
        radii.sort()
        for percent in (5, 50, 95):
            place = percent / 100 * (len(radii) - 1)
            low, rest = int(place), place - int(place)
            expected = radii[low] + rest * (radii[min(low + 1, len(radii) - 1)] - radii[low])
            assert seen[f"radius/{role}/q{percent:02}"].item() == pytest.approx(expected)


@pytest.mark.parametrize("name", SETTINGS)
def test_describe_needs_neither_boxes_nor_gradients(name):
    inputs = leaves(samples(3, boxes=2), curvs(name)) if name in BOXED else leaves(samples(3), curvs(name))
    weight = {"box_weight": torch.zeros(3, 2)} if name in BOXED else {}
    features = {role: inputs[role] for role in ROLES}
    seen = made(name).describe(features, curv=inputs["curv"], **weight)
    assert not any(value.requires_grad for value in seen.values())
    assert all(math.isfinite(value) for key, value in seen.items() if "box" not in key)
    for key in seen:
        if key.startswith(("violation/box", "margin/box", "clamped/box")):
            assert math.isnan(seen[key])  # no pair has that edge
