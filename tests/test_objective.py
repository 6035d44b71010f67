"""The losses against float64 formulas as papers print them, with acosh, acos and loops, and none of our geometry."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from training_helpers import ROLES, points

from hypclip.errors import InputError
from hypclip.objective import RECIPES, Contrast, Edge, Objective, Recipe
from hypclip.roles import MISSING

MIN_RADIUS = 0.1


# The textbook ---------------------------------------------------------------------------------------------------------


def time_of(x: Tensor, c: Tensor) -> Tensor:
    return (1 / c + x @ x).sqrt()


def lorentz_inner(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    return x @ y - time_of(x, c) * time_of(y, c)


def distance(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    return torch.acosh(-c * lorentz_inner(x, y, c)) / c.sqrt()


def cosine(x: Tensor, y: Tensor) -> Tensor:
    return x @ y / (x.norm() * y.norm())


def angle(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    product = c * lorentz_inner(x, y, c)
    return torch.acos((time_of(y, c) + time_of(x, c) * product) / (x.norm() * (product**2 - 1).sqrt()))


def aperture(x: Tensor, c: Tensor) -> Tensor:
    ratio = 2 * MIN_RADIUS / (c.sqrt() * x.norm())
    return torch.asin(ratio) if ratio < 1 else torch.tensor(math.pi / 2, dtype=x.dtype)


def cross_entropy(queries: Tensor, keys: Tensor, s: Tensor, similarity, candidates=None, rows=None) -> Tensor:
    """The mean over `rows` of −log softmax at the own key; `candidates(i)` are the keys row i chooses from."""
    terms = []
    for i in range(len(queries)) if rows is None else rows:
        chosen = range(len(keys)) if candidates is None else candidates(i)
        logits = torch.stack([s * similarity(queries[i], keys[j]) for j in chosen])
        terms.append(logits.exp().sum().log() - s * similarity(queries[i], keys[i]))
    return torch.stack(terms).mean()


def violation(general: Tensor, specific: Tensor, c: Tensor, eta: float, rows=None) -> Tensor:
    terms = []
    for i in range(len(general)) if rows is None else rows:
        excess = angle(general[i], specific[i], c) - eta * aperture(general[i], c)
        terms.append(excess if excess > 0 else 0 * excess)
    return torch.stack(terms).mean()


def textbook(recipe: str, f: dict[str, Tensor], c: Tensor, s: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """maths.md section 3, the sums written out."""
    image, text, box_image, box_text = (f[role] for role in ROLES)

    def minus_distance(x, y):
        return -distance(x, y, c)

    similarity = cosine if recipe == "clip" else minus_distance
    parts = {
        "contrast/image-text": cross_entropy(image, text, s, similarity),
        "contrast/text-image": cross_entropy(text, image, s, similarity),
    }
    pairs = 0.5 * (parts["contrast/image-text"] + parts["contrast/text-image"])
    if recipe == "clip":
        return pairs, parts
    if recipe == "meru":
        parts["entail/text-image"] = violation(text, image, c, 1.0)
        return pairs + 0.2 * parts["entail/text-image"], parts
    parts["contrast/box_image-text"] = cross_entropy(box_image, text, s, similarity)
    parts["contrast/box_text-image"] = cross_entropy(box_text, image, s, similarity)
    contrast = sum(parts.values()) / 4
    edges = {
        "entail/text-image": violation(text, image, c, 0.7),
        "entail/box_text-box_image": violation(box_text, box_image, c, 0.7),
        "entail/box_image-image": violation(box_image, image, c, 1.2),
        "entail/box_text-text": violation(box_text, text, c, 1.2),
    }
    return contrast + 0.2 * 0.5 * sum(edges.values()), parts | edges


# Helpers --------------------------------------------------------------------------------------------------------------


def leaves(
    features: dict[str, Tensor], curv: float = 1.0, scale: float = 3.0
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    dtype = next(iter(features.values())).dtype
    f = {role: x.clone().requires_grad_() for role, x in features.items()}
    c, s = (torch.tensor(v, dtype=dtype, requires_grad=True) for v in (curv, scale))
    return f, c, s


def gradients(loss: Tensor, f: dict[str, Tensor], c: Tensor, s: Tensor) -> dict[str, Tensor]:
    inputs = {**f, "curv": c, "logit_scale": s}
    found = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(inputs, found, strict=True))


def assert_same(got: dict[str, Tensor], want: dict[str, Tensor], **tolerance: float) -> None:
    assert got.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], msg=lambda m, name=name: f"{name}: {m}", **tolerance)


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


@pytest.mark.parametrize("recipe", ["clip", "meru", "hycoclip"])
@pytest.mark.parametrize("curv", [0.1, 1.0, 4.3])
def test_a_published_recipe_is_its_formula(recipe, curv):
    features, c, s = leaves(points(7, curv=curv), curv, scale=4.2)
    loss = Objective.from_recipe(recipe)(features, curv=c, logit_scale=s)
    expected, parts = textbook(recipe, features, c, s)
    torch.testing.assert_close(loss.loss, expected, rtol=1e-9, atol=0)
    assert_same(loss.parts, {name: part.detach() for name, part in parts.items()}, rtol=1e-9, atol=0)
    assert_same(gradients(loss.loss, features, c, s), gradients(expected, features, c, s), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("recipe", ["clip", "meru", "hycoclip"])
def test_float32_is_the_formula_to_single_precision(recipe):
    exact, c, s = leaves(points(9, dim=32, radius=0.7), 1.0, 1 / 0.07)
    features = {role: x.detach().float().requires_grad_() for role, x in exact.items()}
    c32, s32 = (v.detach().float().requires_grad_() for v in (c, s))
    loss = Objective.from_recipe(recipe)(features, curv=c32, logit_scale=s32).loss
    expected, _ = textbook(recipe, exact, c, s)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=2e-6, atol=0)
    got = {name: g.double() for name, g in gradients(loss, features, c32, s32).items()}
    assert_same(got, gradients(expected, exact, c, s), rtol=1e-4, atol=1e-5)


def test_wide_cones_and_points_inside_them_cost_nothing():
    """Within √c|x| ≤ 2K a cone is a half-space; a specific point outside along the same ray violates nothing."""
    general = points(5, radius=0.01, roles=["text"])["text"]
    features = {"text": general, "image": general * 30, "box_image": general}
    loss = Objective(Recipe(geometry="lorentz", contrast=(Contrast("image", "text"),), edges=(Edge("text", "image"),)))(
        features, curv=1.0, logit_scale=1.0
    )
    assert loss.parts["entail/text-image"] == 0


def test_parts_are_unweighted_and_carry_no_gradient():
    features, c, s = leaves(points(4))
    loss = Objective.from_recipe("hycoclip")(features, curv=c, logit_scale=s)
    recipe = RECIPES["hycoclip"]
    weights = {f"contrast/{t.query}-{t.key}": t.weight for t in recipe.contrast}
    weights |= {f"entail/{t.general}-{t.specific}": t.weight for t in recipe.edges}
    assert loss.parts.keys() == weights.keys()
    assert not any(part.requires_grad for part in loss.parts.values())
    total = sum(weights[name] * part for name, part in loss.parts.items())
    torch.testing.assert_close(total, loss.loss.detach(), rtol=1e-12, atol=0)


def test_plain_numbers_do_for_curv_and_scale():
    features, c, s = leaves(points(4), 0.7, 2.0)
    objective = Objective.from_recipe("meru")
    with_tensors = objective(features, curv=c, logit_scale=s).loss
    torch.testing.assert_close(objective(features, curv=0.7, logit_scale=2.0).loss, with_tensors, rtol=1e-12, atol=0)


@settings(max_examples=15)
@given(st.permutations(range(5)), st.sampled_from(sorted(RECIPES)))
def test_the_order_of_the_samples_makes_no_difference(order, recipe):
    features, shuffled = points(5), {role: x[list(order)] for role, x in points(5).items()}
    objective = Objective.from_recipe(recipe)
    expected = objective(features, curv=1.0, logit_scale=5.0).loss
    torch.testing.assert_close(objective(shuffled, curv=1.0, logit_scale=5.0).loss, expected, rtol=1e-12, atol=0)


# Boxes that are their own parent --------------------------------------------------------------------------------------


def test_a_phrase_that_is_the_caption_orders_nothing():
    features, c, s = leaves(points(4))
    content = {"text": ids(10, 11, 12, 13), "box_text": ids(10, 21, 12, 23)}
    loss = one_edge("box_text", "text")(features, curv=c, logit_scale=s, content=content)
    expected = violation(features["box_text"], features["text"], c, 0.3, rows=[1, 3])
    torch.testing.assert_close(loss.parts["entail/box_text-text"], expected.detach(), rtol=1e-9, atol=0)
    gradient = gradients(loss.loss, features, c, s)["box_text"]
    assert (gradient[[0, 2]] == 0).all()
    assert (gradient[[1, 3]].abs().sum(1) > 0).all()


def test_a_box_that_is_the_picture_orders_nothing():
    features, c, s = leaves(points(4))
    content = {"image": ids(1, 2, 3, 4), "box_image": ids(5, 2, 3, 6), "box_text": ids(7, 7, 7, 7)}
    objective = Objective(
        Recipe(
            geometry="lorentz", contrast=(Contrast("text", "box_text"),), edges=(Edge("box_image", "image", eta=0.3),)
        )
    )
    loss = objective(features, curv=c, logit_scale=s, content=content)
    expected = violation(features["box_image"], features["image"], c, 0.3, rows=[0, 3])
    torch.testing.assert_close(loss.parts["entail/box_image-image"], expected.detach(), rtol=1e-9, atol=0)
    gradient = gradients(loss.loss, features, c, s)
    for role in ("box_image", "image"):
        assert (gradient[role][[1, 2]] == 0).all()
        assert (gradient[role][[0, 3]].abs().sum(1) > 0).all()


def test_equal_content_of_other_rows_or_other_roles_keeps_the_edge():
    """Row 0's phrase is row 1's caption, and its picture has the same id as its phrase: both edges stay."""
    features, c, s = leaves(points(2))
    content = {"text": ids(1, 2), "box_text": ids(2, 3), "image": ids(2, 9)}
    loss = one_edge("box_text", "text")(features, curv=c, logit_scale=s, content=content)
    expected = violation(features["box_text"], features["text"], c, 0.3)
    torch.testing.assert_close(loss.parts["entail/box_text-text"], expected.detach(), rtol=1e-9, atol=0)


def test_a_batch_of_such_boxes_alone_costs_nothing():
    features, c, s = leaves(points(3))
    features["box_text"] = features["text"].detach().clone().requires_grad_()
    same = ids(1, 2, 3)
    loss = one_edge("box_text", "text")(features, curv=c, logit_scale=s, content={"text": same, "box_text": same})
    assert loss.parts["entail/box_text-text"] == 0
    assert (gradients(loss.loss, features, c, s)["box_text"] == 0).all()


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
    features, c, s = leaves(points(5))
    loss = Objective(BOXES)(features, curv=c, logit_scale=s, content=WITH_GAPS)
    image, text, box_image, box_text = (features[role] for role in ROLES)

    def similarity(x, y):
        return -distance(x, y, c)

    def with_box(_):
        return HAVE

    parts = {
        "contrast/box_image-text": cross_entropy(box_image, text, s, similarity, rows=HAVE),
        "contrast/text-box_image": cross_entropy(text, box_image, s, similarity, with_box, HAVE),
        "contrast/box_text-box_image": cross_entropy(box_text, box_image, s, similarity, with_box, HAVE),
        "entail/box_text-box_image": violation(box_text, box_image, c, 0.3, HAVE),
        "entail/box_image-image": violation(box_image, image, c, 0.3, HAVE),
    }
    assert_same(loss.parts, {name: part.detach() for name, part in parts.items()}, rtol=1e-9, atol=0)
    found = gradients(loss.loss, features, c, s)
    assert_same(found, gradients(sum(parts.values()), features, c, s), rtol=1e-7, atol=1e-10)
    for role in ("box_image", "box_text"):
        assert (found[role][[1, 4]] == 0).all()


def test_what_stands_in_a_missing_row_makes_no_difference():
    features = points(5)
    objective = Objective(BOXES)
    expected = objective(features, curv=1.0, logit_scale=3.0, content=WITH_GAPS)
    for role in ("box_image", "box_text"):
        features[role] = features[role].clone()
        features[role][[1, 4]] = 40.0
    again = objective(features, curv=1.0, logit_scale=3.0, content=WITH_GAPS)
    assert_same(again.parts, expected.parts, rtol=0, atol=0)


def test_a_batch_without_boxes_trains_the_rest():
    features, c, s = leaves(points(3))
    content = dict.fromkeys(("box_image", "box_text"), ids(MISSING, MISSING, MISSING))
    loss = Objective.from_recipe("hycoclip")(features, curv=c, logit_scale=s, content=content)
    _, parts = textbook("hycoclip", features, c, s)
    for name, part in loss.parts.items():
        assert part == (0 if "box" in name else pytest.approx(parts[name].item(), rel=1e-9)), name
    found = gradients(loss.loss, features, c, s)
    assert all(g.isfinite().all() for g in found.values())
    assert (found["image"].abs().sum(1) > 0).all()
    assert (found["box_image"] == 0).all()
    assert (found["box_text"] == 0).all()


# Duplicates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skip", [True, False])
def test_equal_content_is_a_negative_unless_skipped(skip):
    """Rows 0 and 2 say the same, rows 1 and 3 show the same: neither is a negative of the other, both ways."""
    features, c, s = leaves(points(5))
    content = {"text": ids(1, 2, 1, 4, 5), "image": ids(6, 7, 8, 7, 10)}
    recipe = Recipe(geometry="sphere", contrast=(Contrast("image", "text"),), skip_duplicates=skip)
    loss = Objective(recipe)(features, curv=c, logit_scale=s, content=content).loss
    candidates = {0: [0, 1, 3, 4], 1: [0, 1, 2, 4], 2: [1, 2, 3, 4], 3: [0, 2, 3, 4], 4: [0, 1, 2, 3, 4]}
    expected = cross_entropy(features["image"], features["text"], s, cosine, candidates.__getitem__ if skip else None)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    assert_same(gradients(loss, features, c, s), gradients(expected, features, c, s), rtol=1e-7, atol=1e-10)


def test_a_batch_of_one_phrase_has_no_negatives():
    features, c, s = leaves(points(3))
    recipe = Recipe(geometry="lorentz", contrast=(Contrast("image", "text"),), skip_duplicates=True)
    loss = Objective(recipe)(features, curv=c, logit_scale=s, content={"text": ids(1, 1, 1)}).loss
    assert loss == 0
    assert all((g == 0).all() for g in gradients(loss, features, c, s).values())


# Shares of processes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("skip", [True, False])
def test_the_shares_of_processes_average_to_the_whole(processes, skip):
    content = {
        "image": ids(*range(8)),
        "text": ids(10, 11, 12, 13, 10, 15, 11, 17),
        "box_image": ids(20, MISSING, MISSING, 23, 24, 25, 6, MISSING),
        "box_text": ids(30, MISSING, MISSING, 13, 34, 30, 11, MISSING),
    }
    plain = {"base": "hycoclip", "skip_duplicates": skip}
    objective = Objective.from_recipe(plain)
    features, c, s = leaves(points(8))
    whole = objective(features, curv=c, logit_scale=s, content=content)
    size = 8 // processes
    shares = [
        objective(features, curv=c, logit_scale=s, content=content, local=slice(p * size, (p + 1) * size))
        for p in range(processes)
    ]
    mean = torch.stack([share.loss for share in shares]).mean()
    torch.testing.assert_close(mean, whole.loss, rtol=1e-12, atol=0)
    parts = {name: torch.stack([share.parts[name] for share in shares]).mean() for name in whole.parts}
    assert_same(parts, whole.parts, rtol=1e-12, atol=1e-15)
    assert_same(gradients(mean, features, c, s), gradients(whole.loss, features, c, s), rtol=1e-10, atol=1e-14)


# Numerics -------------------------------------------------------------------------------------------------------------


def assert_finite(recipe: str, features: dict[str, Tensor], curv: float) -> None:
    f, c, s = leaves(features, curv, 100.0)
    loss = Objective.from_recipe(recipe)(f, curv=c, logit_scale=s).loss
    assert loss.isfinite()
    for name, gradient in gradients(loss, f, c, s).items():
        assert gradient.isfinite().all(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("curv", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("recipe", ["meru", "hycoclip"])
def test_gradients_are_finite_where_points_coincide(recipe, curv, dtype):
    one = points(6, dim=512, radius=1.0, roles=["image"])["image"].to(dtype)
    assert_finite(recipe, dict.fromkeys(ROLES, one), curv)
    assert_finite(recipe, dict.fromkeys(ROLES, one[:1].expand(6, -1)), curv)
    assert_finite(recipe, dict.fromkeys(ROLES, torch.zeros_like(one)), curv)


@pytest.mark.parametrize("recipe", ["clip", "meru", "hycoclip"])
@pytest.mark.parametrize("radius", [1e-6, 1.0, 8.0])
def test_gradients_are_finite_near_the_origin_at_init_and_far_out(recipe, radius):
    features = {role: x.float() for role, x in points(16, dim=512, radius=radius).items()}
    assert_finite(recipe, features, 1.0)


@pytest.mark.parametrize("recipe", ["clip", "meru", "hycoclip"])
def test_an_outer_autocast_changes_nothing(recipe):
    features, c, s = leaves({role: x.float() for role, x in points(8, dim=64).items()})
    objective = Objective.from_recipe(recipe)
    plain = objective(features, curv=c, logit_scale=s)
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        inside = objective(features, curv=c, logit_scale=s)
    assert inside.loss.dtype == torch.float32
    assert_same({"loss": inside.loss, **inside.parts}, {"loss": plain.loss, **plain.parts}, rtol=0, atol=0)
    assert_same(gradients(inside.loss, features, c, s), gradients(plain.loss, features, c, s), rtol=0, atol=0)


# Mistakes -------------------------------------------------------------------------------------------------------------


def refused(match: str, features: dict[str, Tensor], content: dict[str, Tensor] | None = None) -> None:
    with pytest.raises(InputError, match=match):
        Objective.from_recipe("hycoclip")(features, curv=1.0, logit_scale=1.0, content=content)


def test_a_missing_role_is_named():
    refused(r"lack \['box_image', 'box_text'\].*got \['image', 'text'\]", points(3, roles=["image", "text"]))


def test_roles_a_recipe_does_not_need_are_left_alone():
    features = points(3)
    features["box_image"] = torch.full((1, 2, 3), torch.nan)
    loss = Objective.from_recipe("meru")(features, curv=1.0, logit_scale=1.0).loss
    assert loss.isfinite()


@pytest.mark.parametrize(
    "wrong",
    [torch.zeros(2, 6), torch.zeros(3, 5), torch.zeros(3, 6, 1), torch.zeros(6)],
    ids=lambda t: str(tuple(t.shape)),
)
def test_shapes_that_differ_are_named(wrong):
    refused(r"one shape for every role.*'box_text': \(" + str(wrong.shape[0]), {**points(3), "box_text": wrong})


def test_content_of_another_length_is_named():
    refused(r"content\['text'\] must have shape \(3,\), got \(2,\)", points(3), {"text": ids(1, 2)})


def test_half_precision_points_are_refused():
    refused("float32 or float64", {role: x.bfloat16() for role, x in points(3).items()})
