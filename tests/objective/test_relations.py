"""The row-wise part of objectives at the places where textbook formulas divide by zero, and how far out it reaches."""

import math

import pytest
import torch
from torch import Tensor

from hypclip.errors import InputError
from hypclip.objective import Contrast, Edge, Objective, Recipe
from tests.support.objective import CURVED, DIM, SETTINGS, apply, assert_near, gradients, leaves, samples, textbook
from tests.support.training import ROLES

each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
each_name = pytest.mark.parametrize("name", SETTINGS)


def assert_finite(name: str, features: dict[str, Tensor], curv: float = 1.0) -> dict[str, Tensor]:
    inputs = leaves(features, curv, {"logit_scale": 100.0, "box_scale": 100.0, "box_whole_scale": 100.0})
    loss = apply(Objective.from_recipe(SETTINGS[name]), inputs)
    assert loss.loss.isfinite()
    assert all(part.isfinite() for part in loss.parts.values())
    found = gradients(loss.loss, inputs)
    for key, gradient in found.items():
        assert gradient.isfinite().all(), key
    return found


def unit(dtype: torch.dtype, rows: int = 6, dim: int = DIM) -> Tensor:
    return torch.nn.functional.normalize(samples(rows, dim=dim)["image"].to(dtype), dim=1)


@each_dtype
@each_name
@pytest.mark.parametrize("curv", [0.1, 1.0, 10.0])
def test_gradients_are_finite_where_points_coincide(name, curv, dtype):
    one = unit(dtype, dim=64)
    same = dict.fromkeys(ROLES, one)
    assert_finite(name, same, curv)
    assert_finite(name, dict.fromkeys(ROLES, one[:1].expand(6, -1)), curv)
    assert_finite(
        name, {**same, "box_text": one[:, None].expand(-1, 2, -1), "box_image": one[:, None].expand(-1, 2, -1)}
    )


@each_dtype
@each_name
def test_gradients_are_finite_at_the_origin(name, dtype):
    one = unit(dtype)
    zero = torch.zeros_like(one)
    assert_finite(name, dict.fromkeys(ROLES, zero))
    for role in ROLES:
        assert_finite(name, {**dict.fromkeys(ROLES, one), role: zero})
    some = one * (torch.arange(6) % 2).unsqueeze(1)
    assert_finite(name, {"image": one, "text": some, "box_image": some, "box_text": zero})
    assert_finite(name, dict.fromkeys(ROLES, one * (torch.arange(DIM) < 2)))  # all but the first factor are there


@each_dtype
@each_name
def test_gradients_are_finite_at_opposite_points_and_on_one_ray(name, dtype):
    one = unit(dtype)
    assert_finite(name, {"image": one, "text": -one, "box_image": -one, "box_text": one})
    assert_finite(name, {"image": 3 * one, "text": -one, "box_image": 2 * one, "box_text": -0.5 * one})
    assert_finite(name, {"image": 3 * one, "text": one, "box_image": 2 * one, "box_text": 0.5 * one})
    assert_finite(name, {"image": 0.5 * one, "text": one, "box_image": 2 * one, "box_text": 3 * one})


@each_dtype
@each_name
def test_gradients_are_finite_on_the_edge_of_a_half_space_and_of_a_cone(name, dtype):
    """√c|x| = 2K, where the aperture's slope is infinite, and points that lie on the surface of the cone itself."""
    one = unit(dtype)
    for bound in (0.1, 0.2, math.nextafter(0.2, 1)):
        assert_finite(name, {"image": one, "text": bound * one, "box_image": bound * one, "box_text": bound * one})
    x = torch.zeros(6, DIM, dtype=dtype)
    x[:, 0] = 2.0 ** torch.arange(-1, 5)
    aperture = torch.asin(0.2 / x[:, 0])
    side = torch.zeros_like(x)
    side[:, 0], side[:, 1] = aperture.cos(), aperture.sin()
    assert_finite(name, {"image": x + 1e-3 * side, "text": x, "box_image": x + side, "box_text": x / 2})


@each_dtype
@each_name
def test_nearly_coincident_pairs_have_gradients_of_their_usual_size(name, dtype):
    """At 1e-6 from each other the acos form gives 1e3 and more; the unit vectors of a distance stay unit vectors."""
    one = unit(dtype)
    near = {role: one + 1e-6 * k * unit(dtype).roll(1, 0) for k, role in enumerate(ROLES)}
    inputs = leaves(near, scales=dict.fromkeys(("logit_scale", "box_scale", "box_whole_scale"), 1.0))
    objective = Objective.from_recipe(SETTINGS[name])
    contrast_only = Objective(Recipe(**{
        field: getattr(objective.recipe, field)
        for field in ("geometry", "contrast", "distance", "factor_dim", "scales")
    }))  # fmt: skip
    found = gradients(apply(contrast_only, inputs).loss, inputs)
    assert all(found[role].norm(dim=1).amax() < 10 for role in ROLES)


@each_name
@pytest.mark.parametrize("radius", [1e-6, 1.0, 8.0])
def test_gradients_are_finite_near_the_origin_at_init_and_far_out(name, radius):
    features = samples(16, dim=512, radius=math.sinh(radius), spread=1.0)
    assert_finite(name, {role: x.float() for role, x in features.items()})


# Far out --------------------------------------------------------------------------------------------------------------


def at_radius(radius: float, dtype: torch.dtype, curv: float = 1.0) -> dict[str, Tensor]:
    """Put every factor of two dimensions, and so every point, at least that far out."""
    length = math.sinh(radius) / math.sqrt(curv)
    found = {}
    for seed, role in enumerate(ROLES):
        x = samples(6, seed=seed)[role].unflatten(1, (-1, 2))
        found[role] = (torch.nn.functional.normalize(x, dim=-1) * length).flatten(1).to(dtype)
    return found


@pytest.mark.parametrize("name", CURVED)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 44.0), (torch.float64, 354.0)])
@pytest.mark.parametrize("curv", [0.1, 1.0, 10.0])
def test_points_beyond_what_their_precision_holds_are_refused(name, dtype, limit, curv):
    root_of_factors = 1.0 if name.startswith("phyclip") else math.sqrt(3)
    below = {role: x / root_of_factors for role, x in at_radius(0.9 * limit, dtype, curv).items()}
    assert_finite(name, below, curv)
    for role in Objective.from_recipe(SETTINGS[name]).recipe.roles:
        far = {**below, role: at_radius(limit + 1, dtype, curv)[role]}
        with pytest.raises(InputError, match=rf"features\['{role}'\] .* radius {limit:.0f}.*{dtype}"):
            assert_finite(name, far, curv)


def test_flat_recipes_have_no_such_limit():
    assert_finite("euclip-geodesic", {role: 1e15 * x.float() for role, x in samples(5).items()})


@pytest.mark.parametrize("radius", [10.0, 20.0, 30.0, 40.0])
@pytest.mark.parametrize("name", ["meru", "hycoclip", "phyclip"])
def test_gradients_far_out_are_those_of_float64(name, radius):
    """With respect to tangent vectors, the way the lift hands them over: lengths grow by cosh of the radius."""
    features = at_radius(radius, torch.float32)
    if not name.startswith("phyclip"):
        features = {role: x / math.sqrt(3) for role, x in features.items()}
    single = leaves(features, scales=dict.fromkeys(("logit_scale",), 1.0))
    double = {key: x.detach().double().requires_grad_() for key, x in single.items()}
    objective = Objective.from_recipe(SETTINGS[name])
    found = gradients(apply(objective, single).loss, single)
    expected = gradients(apply(objective, double).loss, double)
    assert_near(
        {role: found[role] * math.cosh(radius) for role in ROLES},
        {role: expected[role] * math.cosh(radius) for role in ROLES},
        1e-3,
    )


def test_far_out_in_float64_the_textbook_still_holds():
    inputs = leaves({role: x / math.sqrt(3) for role, x in at_radius(10.0, torch.float64).items()})
    loss, (expected, _) = apply(Objective.from_recipe("hycoclip"), inputs).loss, textbook("hycoclip", inputs)
    torch.testing.assert_close(loss, expected, rtol=1e-7, atol=0)


def test_an_edge_and_a_contrast_of_one_pair_share_their_relation():
    """A pair is one pair in both orders, and of two edges each has the angle at its own general point."""
    recipe = Recipe(
        "lorentz", (Contrast("text", "image"),), (Edge("text", "image", eta=0.1), Edge("image", "text", eta=0.1))
    )
    features = samples(5)
    swapped = {**features, "text": features["image"], "image": features["text"]}
    parts = [Objective(recipe)(f, curv=1.0, logit_scale=1.0).parts for f in (features, swapped)]
    assert parts[0]["entail/text-image"] != parts[0]["entail/image-text"]
    torch.testing.assert_close(parts[0]["entail/text-image"], parts[1]["entail/image-text"], rtol=1e-12, atol=0)
    torch.testing.assert_close(parts[0]["entail/image-text"], parts[1]["entail/text-image"], rtol=1e-12, atol=0)
