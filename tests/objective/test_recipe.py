"""Recipes as they are published, as files, as plain data, and with mistakes."""

import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml

import hypclip
from hypclip.errors import ConfigError
from hypclip.geometry.metric import Metric
from hypclip.objective import RECIPES, Contrast, Edge, Objective, Recipe, recipe_from
from tests.support.objective import samples

WHOLE = {("image", "text"): 0.5, ("text", "image"): 0.5}
FOUR = {("image", "text"): 0.25, ("text", "image"): 0.25, ("box_image", "text"): 0.25, ("box_text", "image"): 0.25}
CONES = {
    ("text", "image"): (0.7, 0.1),
    ("box_text", "box_image"): (0.7, 0.1),
    ("box_image", "image"): (1.2, 0.1),
    ("box_text", "text"): (1.2, 0.1),
}


def contrasts(recipe: Recipe) -> dict[tuple[str, str], float]:
    return {(term.query, term.key): term.weight for term in recipe.contrast}


def edges(recipe: Recipe) -> dict[tuple[str, str], tuple[float, float]]:
    return {(term.general, term.specific): (term.eta, term.weight) for term in recipe.edges}


# As published ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "metric", "contrast", "cones"),
    [
        ("clip", Metric("sphere"), WHOLE, {}),
        ("euclip", Metric("euclidean", "squared"), WHOLE, {}),
        ("meru", Metric("lorentz"), WHOLE, {("text", "image"): (1.0, 0.2)}),
        ("hycoclip", Metric("lorentz"), FOUR, CONES),
        ("hce", Metric("lorentz"), WHOLE, dict.fromkeys(CONES, (1.0, 0.1))),
        ("phyclip", Metric("product", "l1", 8), FOUR, CONES),
    ],
)
def test_a_recipe_of_plain_cones_is_as_published(name, metric, contrast, cones):
    recipe = recipe_from(name)
    assert recipe.metric == metric
    assert contrasts(recipe) == contrast
    assert edges(recipe) == cones
    assert recipe.roles == {role for pair in (*contrast, *cones) for role in pair}
    assert not any(edge.angle_weight or edge.calibration or edge.penalty != "cone" for edge in recipe.edges)
    assert not any(term.soften for term in recipe.contrast)
    assert recipe.regularisers == ()


def test_uncha_is_as_published():
    """Total = L_g + L_l + L_gl + 0.2 L_ent, L_ent = ½ r + ½ r + ½ (½ r + ½ r) + cal + cal, cal = 10 (…)."""
    recipe = recipe_from("uncha")
    assert recipe.metric == Metric("lorentz")
    assert recipe.max_boxes == 5
    pairs = {
        ("image", "text"): ("logit_scale", False),
        ("box_image", "box_text"): ("box_scale", False),
        ("box_image", "text"): ("box_whole_scale", True),
    }
    pairs |= {("text", "image"): pairs["image", "text"], ("box_text", "box_image"): pairs["box_image", "box_text"]}
    pairs |= {("box_text", "image"): pairs["box_image", "text"]}
    assert {(t.query, t.key): (t.scale, t.soften) for t in recipe.contrast} == pairs
    assert contrasts(recipe) == dict.fromkeys(pairs, 0.5)
    assert {(e.general, e.specific): (e.eta, e.weight, e.calibration) for e in recipe.edges} == {
        ("text", "image"): (0.7, 0.2 / 2, 0),
        ("box_text", "box_image"): (0.7, 0.2 / 2, 0),
        ("box_image", "image"): (1.2, 0.2 / 4, 0.2 * 10),
        ("box_text", "text"): (1.2, 0.2 / 4, 0.2 * 10),
    }
    assert {edge.angle_weight for edge in recipe.edges} == {0.1}


def test_argent_has_angles_and_no_apertures():
    recipe = recipe_from("argent")
    assert recipe.metric == Metric("lorentz")
    assert contrasts(recipe) == FOUR
    assert {edge.huber for edge in recipe.edges} == {1.0}
    assert {(e.general, e.specific): (e.penalty, e.weight) for e in recipe.edges} == {
        ("text", "image"): ("angle", 0.1),
        ("box_text", "box_image"): ("angle", 0.1),
        ("box_image", "image"): ("adaptive_angle", 0.05),
        ("box_text", "text"): ("adaptive_angle", 0.05),
    }
    assert {(r.kind, r.role, r.weight) for r in recipe.regularisers} == {("norm", role, 0.01) for role in recipe.roles}


@pytest.mark.parametrize("name", RECIPES)
def test_what_recipes_have_in_common(name):
    recipe = recipe_from(name)
    assert recipe.min_radius == 0.1
    ours = name == "hypclip"
    assert (recipe.skip_duplicates, recipe.skip_related, recipe.learn_curv) == (ours, ours, not ours)
    assert recipe.max_boxes == (5 if name == "uncha" else 1)


def test_scales_start_as_published():
    assert recipe_from("euclip").scales == {"logit_scale": 1.0}
    for name in ("clip", "meru", "hycoclip", "hce", "argent"):
        assert recipe_from(name).scales == pytest.approx({"logit_scale": 1 / 0.07})
    assert recipe_from("phyclip").scales == pytest.approx({"logit_scale": 1 / 0.07 / 64})
    uncha = {"logit_scale": 1 / 0.07, "box_scale": 1 / 0.05, "box_whole_scale": 1 / 0.06}
    assert recipe_from("uncha").scales == pytest.approx(uncha)


# Plain data and files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_being_plain_data_and_a_file(name, tmp_path):
    recipe = recipe_from(name)
    assert recipe_from(asdict(recipe)) == recipe
    assert recipe_from({"base": name}) == recipe
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(_lists(asdict(recipe))))
    assert recipe_from(str(file)) == recipe


def _lists(data: object) -> object:
    """YAML has no tuples."""
    if isinstance(data, dict):
        return {key: _lists(value) for key, value in data.items()}
    return [_lists(value) for value in data] if isinstance(data, (list, tuple)) else data


def test_plain_data_makes_a_recipe():
    recipe = recipe_from(
        {
            "geometry": "lorentz",
            "contrast": [{"query": "box_image", "key": "box_text", "weight": 2}],
            "edges": [{"general": "box_text", "specific": "text"}],
            "min_radius": 0.2,
        }
    )
    contrast, edge = Contrast("box_image", "box_text", 2.0), Edge("box_text", "text")
    assert recipe == Recipe("lorentz", (contrast,), (edge,), min_radius=0.2)
    assert recipe.roles == {"box_image", "box_text", "text"}
    assert recipe.scales == pytest.approx({"logit_scale": 1 / 0.07})


def test_a_role_of_a_regulariser_alone_is_needed_too():
    recipe = recipe_from({"base": "meru", "regularisers": [{"kind": "norm", "role": "box_text", "weight": 1}]})
    assert recipe.roles == {"image", "text", "box_text"}


def test_a_base_gives_what_is_not_said():
    edge = {"general": "text", "specific": "image", "eta": 0.9, "weight": 0.3}
    recipe = recipe_from({"base": "hycoclip", "edges": [edge], "skip_duplicates": True})
    assert recipe.contrast == recipe_from("hycoclip").contrast
    assert edges(recipe) == {("text", "image"): (0.9, 0.3)}
    assert recipe.skip_duplicates


def test_a_base_is_left_as_it_was():
    data = {"base": "meru", "min_radius": 0.5, "scales": {"logit_scale": 2.0}}
    assert recipe_from(data).min_radius == 0.5
    assert data == {"base": "meru", "min_radius": 0.5, "scales": {"logit_scale": 2.0}}
    assert recipe_from("meru").min_radius == 0.1
    assert recipe_from("meru").scales == pytest.approx({"logit_scale": 1 / 0.07})


NEW = """
geometry: product
distance: l2
factor_dim: 3
max_boxes: 4
scales: {wide: 2.0, narrow: 9}
contrast:
  - {query: image, key: text, scale: wide}
  - {query: box_text, key: text, scale: narrow, soften: true, weight: 0.3}
edges:
  - {general: box_text, specific: text, penalty: adaptive_angle, calibration: 0.1}
regularisers:
  - {kind: norm, role: box_text, weight: 0.02}
"""


def test_a_new_recipe_is_a_file_and_no_python(tmp_path):
    file = tmp_path / "mine.yml"
    file.write_text(NEW)
    loss = Objective.from_recipe(str(file))(samples(4, boxes=3), curv=1.0, logit_scale={"wide": 2.0, "narrow": 9.0})
    names = ["contrast/image-text", "contrast/box_text-text", "entail/box_text-text", "calibrate/box_text-text"]
    assert sorted(loss.parts) == sorted([*names, "norm/box_text"])
    assert loss.loss.isfinite()
    expected = sum(
        w * loss.parts[part] for w, part in zip((1, 0.3, 1, 0.1, 0.02), [*names, "norm/box_text"], strict=True)
    )
    torch.testing.assert_close(loss.loss, expected)


def test_a_base_may_be_a_file_that_has_a_base_itself(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("base: hycoclip\nmin_radius: 0.3\nmax_boxes: 3\n")
    second.write_text(f"base: {first}\nmax_boxes: 2\n")
    recipe = recipe_from({"base": str(second), "skip_duplicates": True})
    assert (recipe.min_radius, recipe.max_boxes, recipe.skip_duplicates) == (0.3, 2, True)
    assert edges(recipe) == CONES


def test_a_base_that_is_its_own_base_is_refused(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(f"base: {second}\n")
    second.write_text(f"base: {first}\n")
    with pytest.raises(ConfigError, match="base"):
        recipe_from(str(first))
    first.write_text(f"base: {first}\n")
    with pytest.raises(ConfigError, match="base"):
        recipe_from(str(first))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no config file .*mine\.yaml"):
        recipe_from(str(tmp_path / "mine.yaml"))
    with pytest.raises(ConfigError, match=r"there is no config file .*mine\.yaml"):
        recipe_from({"base": str(tmp_path / "mine.yaml")})


def test_every_file_of_the_folder_is_a_known_recipe():
    folder = Path(hypclip.__file__).parent / "objective" / "recipes"
    assert sorted(file.stem for file in folder.iterdir()) == sorted(RECIPES)


# Mistakes -------------------------------------------------------------------------------------------------------------

CONTRAST = {"query": "image", "key": "text"}
EDGE = {"general": "text", "specific": "image"}
NORM = {"kind": "norm", "role": "image", "weight": 0.1}


def meru(**changes: object) -> dict[str, object]:
    return {"base": "meru", **changes}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("hycoklip", "no recipe named 'hycoklip'; known: clip, euclip, meru, hycoclip, hce, phyclip, uncha, argent"),
        ({"base": "hycoklip"}, "no recipe named 'hycoklip'"),
        ({"base": ["meru"]}, r"base must be .* got \['meru'\]"),
        ({"base": None}, "base must be .* got None"),
        ({"contrast": [CONTRAST]}, "lacks 'objective.geometry'"),
        ({"geometry": "lorentz"}, "lacks 'objective.contrast'"),
        (meru(geometry="ball"), "objective.geometry: .*'lorentz', 'sphere', 'euclidean' or 'product', got 'ball'"),
        (meru(geometry="sphere"), "objective: edges, entail, .* need another geometry than sphere"),
        ({"base": "clip", "regularisers": [NORM]}, "objective: edges, entail, .* need another geometry"),
        ({"base": "clip", "contrast": [{**CONTRAST, "soften": True}]}, "soften needs another geometry than sphere"),
        (meru(contrast=[]), "objective: contrast is empty"),
        (meru(contrast=CONTRAST), "objective.contrast: .*tuple"),
        (meru(edgess=[]), "unknown key 'objective.edgess', did you mean 'edges'"),
        (meru(boxes=2), "unknown key 'objective.boxes', "),
        (meru(min_radius=0), "objective.min_radius: .*greater than 0, got 0"),
        (meru(skip_duplicates="maybe"), "objective.skip_duplicates: .*got 'maybe'"),
        (meru(contrast=[{**CONTRAST, "key": "video"}]), r"objective.contrast.0.key: .*got 'video'"),
        (meru(contrast=[{**CONTRAST, "key": "image"}]), r"objective.contrast.0: .*two roles.*'image'"),
        (meru(contrast=[{**CONTRAST, "weight": -1}]), "objective.contrast.0.weight: .*greater than 0"),
        (meru(contrast=[{"query": "image"}]), "lacks 'objective.contrast.0.key'"),
        (meru(contrast=[CONTRAST, CONTRAST]), "contrast lists image-text twice"),
        (meru(contrast=[{**CONTRAST, "wieght": 1}]), "'objective.contrast.0.wieght', did you mean 'weight'"),
        (meru(edges=[EDGE, {**EDGE, "weight": 2}]), "edges and entail lists text-image twice"),
        (meru(edges=[EDGE, {**EDGE, "etta": 1}]), "'objective.edges.1.etta', did you mean 'eta'"),
        (meru(edges=[EDGE, {**EDGE, "x": 1}]), "'objective.edges.1.x', known: general, specific, eta"),
        (meru(edges=[{**EDGE, "general": "image"}]), "objective.edges.0: .*two roles"),
        (meru(edges=[{**EDGE, "general": "video"}]), "objective.edges.0.general: .*got 'video'"),
        (meru(edges=[{**EDGE, "penalty": "cones"}]), "objective.edges.0.penalty: .*'adaptive_angle', got 'cones'"),
        (meru(edges=[{**EDGE, "angle_weight": -1}]), "objective.edges.0.angle_weight: .*equal to 0, got -1"),
        (meru(edges=[{**EDGE, "calibration": math.nan}]), "objective.edges.0.calibration: .*got nan"),
        *(
            (meru(edges=[{**EDGE, "eta": eta}]), f"objective.edges.0.eta: .*got {eta}")
            for eta in (0, -1, math.inf, math.nan)
        ),
        (meru(regularisers=[NORM, NORM]), "regularisers lists norm image twice"),
        (meru(regularisers=[{**NORM, "kind": "length"}]), "objective.regularisers.0.kind: .*'norm', got 'length'"),
        (meru(regularisers=[{**NORM, "role": "video"}]), "objective.regularisers.0.role: .*got 'video'"),
        (meru(regularisers=[{**NORM, "weight": 0}]), "objective.regularisers.0.weight: .*greater than 0, got 0"),
        (meru(regularisers=[{"kind": "norm", "role": "image"}]), "lacks 'objective.regularisers.0.weight'"),
        (meru(contrast=[{**CONTRAST, "scale": "s"}]), "names the scale 's', which scales lacks; known: logit_scale"),
        (meru(contrast=[{**CONTRAST, "scale": ""}]), "objective.contrast.0.scale: "),
        (meru(scales={"logit_scale": 1, "box_scale": 2}), "no contrast names the scale box_scale"),
        (meru(scales={}), "names the scale 'logit_scale', which scales lacks"),
        (meru(scales={"logit_scale": 0}), "objective.scales.logit_scale: .*greater than 0, got 0"),
        (meru(scales={"logit_scale": math.inf}), "objective.scales.logit_scale: .*finite number, got inf"),
        (meru(distance="squared"), "distance must be one of geodesic for geometry lorentz, got 'squared'"),
        (meru(distance="cosine"), "objective.distance: .*got 'cosine'"),
        ({"base": "clip", "distance": "l1"}, "distance must be one of geodesic for geometry sphere, got 'l1'"),
        ({"base": "euclip", "distance": "l2"}, "distance must be one of geodesic, squared .*got 'l2'"),
        ({"base": "phyclip", "distance": "geodesic"}, "one of l1, l1_mean, l2 for geometry product"),
        (meru(factor_dim=4), "factor_dim.*belongs to geometry product.*got factor_dim 4 with geometry lorentz"),
        ({"base": "phyclip", "factor_dim": None}, "factor_dim.*got factor_dim None with geometry product"),
        ({"base": "phyclip", "factor_dim": 0}, "objective.factor_dim: .*greater than 0, got 0"),
        (meru(max_boxes=3), "max_boxes 3 needs a term with box_image or box_text"),
        ({"base": "hycoclip", "max_boxes": 0}, "objective.max_boxes: .*greater than 0, got 0"),
    ],
)
def test_mistakes_are_named(data, message):
    with pytest.raises(ConfigError, match=message) as caught:
        recipe_from(data)
    assert "\n" not in str(caught.value)
