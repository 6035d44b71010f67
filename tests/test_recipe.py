from dataclasses import asdict

import pytest

from hypclip.errors import ConfigError
from hypclip.objective import RECIPES, Contrast, Edge, Recipe, recipe_from


def contrasts(recipe: Recipe) -> dict[tuple[str, str], float]:
    return {(term.query, term.key): term.weight for term in recipe.contrast}


def edges(recipe: Recipe) -> dict[tuple[str, str], tuple[float, float]]:
    return {(term.general, term.specific): (term.eta, term.weight) for term in recipe.edges}


def test_clip_is_as_published():
    recipe = RECIPES["clip"]
    assert recipe.geometry == "sphere"
    assert contrasts(recipe) == {("image", "text"): 0.5, ("text", "image"): 0.5}
    assert recipe.edges == ()
    assert recipe.roles == {"image", "text"}


def test_meru_is_as_published():
    recipe = RECIPES["meru"]
    assert recipe.geometry == "lorentz"
    assert recipe.min_radius == 0.1
    assert contrasts(recipe) == {("image", "text"): 0.5, ("text", "image"): 0.5}
    assert edges(recipe) == {("text", "image"): (1.0, 0.2)}
    assert recipe.roles == {"image", "text"}


def test_hycoclip_is_as_published():
    recipe = RECIPES["hycoclip"]
    assert recipe.geometry == "lorentz"
    assert recipe.min_radius == 0.1
    assert contrasts(recipe) == {
        ("image", "text"): 0.25,
        ("text", "image"): 0.25,
        ("box_image", "text"): 0.25,
        ("box_text", "image"): 0.25,
    }
    assert edges(recipe) == {
        ("text", "image"): (0.7, 0.1),
        ("box_text", "box_image"): (0.7, 0.1),
        ("box_image", "image"): (1.2, 0.1),
        ("box_text", "text"): (1.2, 0.1),
    }
    assert recipe.roles == {"image", "text", "box_image", "box_text"}


def test_published_recipes_count_duplicates_as_negatives():
    assert not any(recipe.skip_duplicates for recipe in RECIPES.values())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_being_plain_data(name):
    assert recipe_from(name) is RECIPES[name]
    assert recipe_from(asdict(RECIPES[name])) == RECIPES[name]


def test_plain_data_makes_a_recipe():
    recipe = recipe_from(
        {
            "geometry": "lorentz",
            "contrast": [{"query": "box_image", "key": "box_text", "weight": 2}],
            "edges": [{"general": "box_text", "specific": "text"}],
            "min_radius": 0.2,
        }
    )
    assert recipe == Recipe("lorentz", (Contrast("box_image", "box_text", 2.0),), (Edge("box_text", "text"),), 0.2)
    assert recipe.roles == {"box_image", "box_text", "text"}


def test_a_base_gives_what_is_not_said():
    edge = {"general": "text", "specific": "image", "eta": 0.9, "weight": 0.3}
    recipe = recipe_from({"base": "hycoclip", "edges": [edge], "skip_duplicates": True})
    assert recipe.contrast == RECIPES["hycoclip"].contrast
    assert edges(recipe) == {("text", "image"): (0.9, 0.3)}
    assert recipe.skip_duplicates


def test_a_base_is_left_as_it_was():
    data = {"base": "meru", "min_radius": 0.5}
    recipe_from(data)
    assert data == {"base": "meru", "min_radius": 0.5}
    assert RECIPES["meru"].min_radius == 0.1


CONTRAST = {"query": "image", "key": "text"}
EDGE = {"general": "text", "specific": "image"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("hycoklip", "no recipe named 'hycoklip'; known: clip, meru, hycoclip"),
        ({"base": "hycoklip"}, "no recipe named 'hycoklip'"),
        ({"base": ["meru"]}, r"no recipe named \['meru'\]"),
        ({"contrast": [CONTRAST]}, "lacks 'objective.geometry'"),
        ({"geometry": "lorentz"}, "lacks 'objective.contrast'"),
        ({"base": "meru", "geometry": "ball"}, "objective.geometry: .*'lorentz' or 'sphere', got 'ball'"),
        ({"base": "meru", "geometry": "sphere"}, "objective: edges need the lorentz geometry"),
        ({"base": "meru", "contrast": []}, "objective: contrast is empty"),
        ({"base": "meru", "contrast": CONTRAST}, "objective.contrast: .*tuple"),
        ({"base": "meru", "edgess": []}, "unknown key 'objective.edgess', did you mean 'edges'"),
        ({"base": "meru", "min_radius": 0}, "objective.min_radius: .*greater than 0, got 0"),
        ({"base": "meru", "skip_duplicates": "maybe"}, "objective.skip_duplicates: .*got 'maybe'"),
        ({"base": "meru", "contrast": [{**CONTRAST, "key": "video"}]}, r"objective.contrast.0.key: .*got 'video'"),
        ({"base": "meru", "contrast": [{**CONTRAST, "key": "image"}]}, r"objective.contrast.0: .*two roles.*'image'"),
        ({"base": "meru", "contrast": [{**CONTRAST, "weight": -1}]}, "objective.contrast.0.weight: .*greater than 0"),
        ({"base": "meru", "contrast": [{"query": "image"}]}, "lacks 'objective.contrast.0.key'"),
        ({"base": "meru", "edges": [EDGE, {**EDGE, "etta": 1}]}, "'objective.edges.1.etta', did you mean 'eta'"),
        ({"base": "meru", "edges": [EDGE, {**EDGE, "x": 1}]}, "'objective.edges.1.x', known: general, specific, eta"),
        ({"base": "meru", "edges": [{**EDGE, "eta": 0}]}, "objective.edges.0.eta: .*greater than 0, got 0"),
        ({"base": "meru", "edges": [{**EDGE, "general": "image"}]}, "objective.edges.0: .*two roles"),
    ],
)
def test_mistakes_are_named(data, message):
    with pytest.raises(ConfigError, match=message) as caught:
        recipe_from(data)
    assert "\n" not in str(caught.value)
