"""Entailment with negatives, order, anchors and lineage, against loops over pairs in float64."""

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from hypclip.errors import ConfigError, InputError
from hypclip.objective import Objective, recipe_from
from hypclip.roles import MISSING
from tests.support.environment import environment
from tests.support.objective import MIN_RADIUS, angle, aperture, assert_same, distance, gradients, leaves, samples

CURV = 0.7
A, B, C, D, E = 11, 12, 13, 14, 15
NONE = MISSING
CONTRAST = [{"query": "image", "key": "text", "weight": 1e-9}]
FORMS: dict[str, dict[str, Any]] = {
    "plane": {"form": "plane", "threshold": 0.1},
    "cone": {"form": "cone", "eta": 0.8},
}


def recipe(**terms: Any) -> Objective:
    return Objective.from_recipe({"geometry": "lorentz", "contrast": CONTRAST, "entailment": FORMS["plane"], **terms})


def call(objective: Objective, inputs: dict[str, Tensor], **more: Any):
    features = {name: x for name, x in inputs.items() if name in ("image", "text", "box_image", "box_text", "concept")}
    return objective(features, curv=inputs["curv"], logit_scale=inputs["logit_scale"], **more)


def score_in(form: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def score(g: Tensor, s: Tensor, c: Tensor) -> Tensor:
        if form == "cone":
            return 0.8 * aperture(g, c) - angle(g, s, c)
        root = c.sqrt()
        rho = torch.asinh(root * g.norm())
        inner = torch.cosh(rho) * (g @ s) / g.norm() - torch.sinh(rho) * (1 / c + s @ s).sqrt()
        return torch.asinh(root * inner) - 0.1

    return score


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("negatives", [0.0, 0.5])
def test_entailment_is_logistic_over_all_pairs(form, negatives):
    inputs = leaves(samples(5), CURV, {"logit_scale": 3.0})
    term = {"general": "text", "specific": "image", "weight": 2.0, "scale": 4.0, "negatives": negatives}
    found = call(recipe(entailment=FORMS[form], entail=[term]), inputs)
    score, c = score_in(form), inputs["curv"]
    z = torch.stack([torch.stack([score(g, s, c) for s in inputs["image"]]) for g in inputs["text"]])
    own = softplus(-4 * z.diagonal()).mean()
    others = softplus(4 * z)[~torch.eye(5, dtype=torch.bool)].view(5, 4).mean(1).mean()
    want = own + negatives * others
    assert_same({"value": found.parts["entail/text-image"]}, {"value": want.detach()})
    got, wanted = gradients(found.loss, inputs), gradients(2 * want, inputs)
    got.pop("logit_scale")
    wanted.pop("logit_scale")
    assert_same(got, wanted, rtol=1e-6, atol=1e-8)


def test_duplicates_and_relatives_are_no_negatives():
    inputs = leaves(samples(4), CURV, {"logit_scale": 3.0})
    # Box texts: A, A again, B above A, and C; one row of another sample is missing.
    content = {"box_text": torch.tensor([A, A, B, C]), "box_image": torch.tensor([1, 2, 3, 4])}
    ancestors = {"box_text": torch.tensor([[B], [B], [NONE], [NONE]])}
    term = {"general": "box_text", "specific": "box_image", "scale": 4.0}
    found = call(recipe(entail=[term]), inputs, content=content, ancestors=ancestors)
    score, c = score_in("plane"), inputs["curv"]
    z = torch.stack([torch.stack([score(g, s, c) for s in inputs["box_image"]]) for g in inputs["box_text"]])
    negatives = {0: [3], 1: [3], 2: [3], 3: [0, 1, 2]}
    want = softplus(-4 * z.diagonal()).mean()
    want = want + torch.stack([softplus(4 * z[i, js]).mean() for i, js in negatives.items()]).mean()
    assert found.parts["entail/box_text-box_image"].item() == pytest.approx(want.item(), rel=1e-12)


def test_with_skip_related_the_contrast_leaves_out_ancestors_and_descendants():
    x = samples(3)
    terms = {"contrast": [{"query": "box_image", "key": "box_text"}], "skip_related": True, "skip_duplicates": True}
    content = {"box_text": torch.tensor([A, B, C])}
    ancestors = {"box_text": torch.tensor([[B, C], [C, NONE], [NONE, NONE]])}
    related = recipe(**terms)(x, curv=CURV, logit_scale=3.0, content=content, ancestors=ancestors)
    assert related.loss.item() == pytest.approx(0, abs=1e-12)  # a chain: nobody is wrong for anybody
    ancestors = {"box_text": torch.tensor([[B, NONE], [NONE, NONE], [NONE, NONE]])}
    found = recipe(**terms)(x, curv=CURV, logit_scale=3.0, content=content, ancestors=ancestors)
    c = torch.tensor(CURV, dtype=torch.float64)
    logits = torch.stack([torch.stack([-3 * distance(i, t, c) for t in x["box_text"]]) for i in x["box_image"]])
    candidates = {0: [0, 2], 1: [1, 2], 2: [0, 1, 2]}
    want = torch.stack([torch.logsumexp(logits[i, js], 0) - logits[i, i] for i, js in candidates.items()]).mean()
    assert found.loss.item() == pytest.approx(want.item(), rel=1e-12)


@pytest.mark.parametrize("geometry", ["lorentz", "euclidean"])
def test_a_contrast_of_directions_is_by_their_chord_and_pushes_nothing_outwards(geometry):
    inputs = leaves(samples(4), CURV, {"logit_scale": 3.0})
    both = [{"query": "image", "key": "text"}, {"query": "text", "key": "image"}]
    found = call(Objective.from_recipe({"geometry": geometry, "contrast": both, "contrast_of": "directions"}), inputs)
    unit = {role: inputs[role] / inputs[role].norm(dim=1, keepdim=True) for role in ("image", "text")}
    logits = -3 * torch.cdist(unit["image"], unit["text"], compute_mode="donot_use_mm_for_euclid_dist")
    want = sum(torch.nn.functional.cross_entropy(one, torch.arange(4)) for one in (logits, logits.T))
    assert found.loss.item() == pytest.approx(want.item(), rel=1e-9)
    for role in ("image", "text"):
        gradient = torch.autograd.grad(found.loss, inputs[role], retain_graph=True)[0]
        assert gradient.norm(dim=1).min() > 1e-4
        assert (gradient * inputs[role]).sum(1).abs().max() < 1e-10


def test_an_order_asks_for_a_gap_of_radii():
    inputs = leaves(samples(5), CURV, {"logit_scale": 3.0})
    found = call(recipe(order=[{"general": "text", "specific": "image", "margin": 0.4}]), inputs)
    root = inputs["curv"].sqrt()
    rho = {role: torch.asinh(root * inputs[role].norm(dim=1)) for role in ("text", "image")}
    want = (rho["text"] - rho["image"] + 0.4).clamp(min=0).mean()
    assert 0 < want < 0.4
    assert found.parts["order/text-image"].item() == pytest.approx(want.item(), rel=1e-12)
    assert_same(
        {"image": gradients(found.loss, inputs)["image"]},
        {"image": gradients(want, inputs)["image"]},
        rtol=1e-6,
        atol=1e-8,
    )


def test_an_anchor_holds_each_radius():
    inputs = leaves(samples(5), CURV, {"logit_scale": 3.0})
    found = call(recipe(anchors=[{"role": "image", "radius": 2.0, "weight": 3.0}]), inputs)
    rho = torch.asinh(inputs["curv"].sqrt() * inputs["image"].norm(dim=1))
    assert found.parts["anchor/image"].item() == pytest.approx((rho - 2).square().mean().item(), rel=1e-12)
    assert found.loss.item() == pytest.approx(3 * (rho - 2).square().mean().item(), rel=1e-6)


# A taxonomy: A and B below D; D and C below E. Concepts D and C are of level 1, E of level 0.
CONCEPTS = {
    "content": torch.tensor([D, C, E, NONE]),
    "ancestors": torch.tensor([[E, NONE], [E, NONE], [NONE, NONE], [NONE, NONE]]),
    "levels": torch.tensor([1, 1, 0, 0]),
}
ABOVE = {A: [D, E], B: [D, E], C: [E, NONE], D: [E, NONE], E: [NONE, NONE], 99: [NONE, NONE]}


def taxonomy_of(*phrases: int) -> dict[str, Any]:
    return {
        "content": {"box_text": torch.tensor(phrases), "concept": CONCEPTS["content"]},
        "ancestors": {"box_text": torch.tensor([ABOVE[p] for p in phrases]), "concept": CONCEPTS["ancestors"]},
        "levels": CONCEPTS["levels"],
    }


def with_concepts(size: int, dim: int = 6, seed: int = 0) -> dict[str, Tensor]:
    concepts = torch.randn(4, dim, generator=torch.Generator().manual_seed(seed + 5), dtype=torch.float64) * 0.2
    return leaves({**samples(size, dim=dim, seed=seed), "concept": concepts}, CURV, {"logit_scale": 3.0})


def lineage_of(z: Tensor, entailed: list[int], wrong: list[int]) -> Tensor:
    """One level of one point: the scores of the concepts, which are right, and which are wrong."""
    costs = []
    for g in entailed:
        chosen = torch.stack([z[g], *(z[w] for w in wrong)])
        contrast = torch.logsumexp(6.0 * chosen, 0) - 6.0 * z[g] if wrong else 0.0
        costs.append(contrast + softplus(-4 * z[g]))
    others = torch.stack([softplus(4 * z[w]) for w in wrong]).sum() if wrong else 0.0
    return torch.stack(costs).mean() + 2 * others


@pytest.mark.parametrize("specific", ["box_text", "box_image"])
def test_lineage_is_by_level_and_leaves_out_what_is_not_known(specific):
    inputs = with_concepts(5)
    term = {"specific": specific, "scale": 4.0, "contrast_scale": 6.0, "negatives": 2.0}
    found = call(recipe(lineage=[term]), inputs, **taxonomy_of(A, C, D, E, 99))
    score, c = score_in("plane"), inputs["curv"]
    z = [[score(g, s, c) for g in inputs["concept"][:3]] for s in inputs[specific]]
    z = [torch.stack(one) for one in z]
    d, other, e = 0, 1, 2
    a = (lineage_of(z[0], [d], [other]) + lineage_of(z[0], [e], [])) / 2
    if specific == "box_text":  # a phrase does not entail itself; E has nothing above it
        want = (a + lineage_of(z[1], [e], []) + lineage_of(z[2], [e], [])) / 3
    else:
        of_c = (lineage_of(z[1], [other], [d]) + lineage_of(z[1], [e], [])) / 2
        of_d = (lineage_of(z[2], [d], [other]) + lineage_of(z[2], [e], [])) / 2
        want = (a + of_c + of_d + lineage_of(z[3], [e], [])) / 4
    assert found.parts[f"lineage/{specific}"].item() == pytest.approx(want.item(), rel=1e-9)
    got, wanted = gradients(found.loss, inputs), gradients(want, inputs)
    for name in (specific, "concept", "curv"):
        torch.testing.assert_close(got[name], wanted[name], rtol=1e-6, atol=1e-7)


def test_lineage_of_concepts_orders_the_taxonomy_itself():
    inputs = with_concepts(2)
    term = {"specific": "concept", "scale": 4.0, "contrast_scale": 6.0, "negatives": 2.0}
    found = call(recipe(lineage=[term]), inputs, **taxonomy_of(99, 99))
    score, c = score_in("plane"), inputs["curv"]
    want = [
        lineage_of(torch.stack([score(g, s, c) for g in inputs["concept"][:3]]), [2], []) for s in inputs["concept"][:2]
    ]
    assert found.parts["lineage/concept"].item() == pytest.approx(torch.stack(want).mean().item(), rel=1e-9)


def test_a_concept_that_comes_twice_counts_once():
    inputs = with_concepts(3)
    known = taxonomy_of(A, B, C)
    terms = recipe(
        lineage=[{"specific": "box_text"}, {"specific": "concept"}],
        order=[{"general": "concept", "specific": "concept"}],
        anchors=[{"role": "concept", "radius": 0.5}],
    )
    once = call(terms, inputs, **known)
    again = {**inputs, "concept": torch.cat([inputs["concept"], inputs["concept"][:2]])}
    twice = {
        "content": {**known["content"], "concept": torch.cat([CONCEPTS["content"], CONCEPTS["content"][:2]])},
        "ancestors": {**known["ancestors"], "concept": torch.cat([CONCEPTS["ancestors"], CONCEPTS["ancestors"][:2]])},
        "levels": torch.cat([CONCEPTS["levels"], CONCEPTS["levels"][:2]]),
    }
    found = call(terms, again, **twice)
    assert_same(found.parts, once.parts, rtol=1e-12, atol=1e-12)


def test_an_order_of_concepts_is_over_their_ancestors_and_those_of_phrases():
    inputs = with_concepts(3)
    order = [{"general": "concept", "specific": s, "margin": 0.3} for s in ("concept", "box_text", "box_image")]
    found = call(recipe(order=order), inputs, **taxonomy_of(A, E, 99))
    root = inputs["curv"].sqrt()
    rho = torch.asinh(root * inputs["concept"].norm(dim=1))
    of = {role: torch.asinh(root * inputs[role].norm(dim=1)) for role in ("box_text", "box_image")}

    def gap(general: Tensor, specific: Tensor) -> Tensor:
        return (general - specific + 0.3).clamp(min=0)

    concepts = (gap(rho[2], rho[0]) + gap(rho[2], rho[1])) / 2
    assert found.parts["order/concept-concept"].item() == pytest.approx(concepts.item(), rel=1e-9)
    for role, radii in of.items():
        want = (gap(rho[0], radii[0]) + gap(rho[2], radii[0])) / 2  # of A alone: E has nothing above it
        assert found.parts[f"order/concept-{role}"].item() == pytest.approx(want.item(), rel=1e-9)


def test_a_batch_without_any_pair_of_the_taxonomy_or_without_one_costs_nothing():
    inputs = with_concepts(3)
    terms = recipe(
        lineage=[{"specific": "box_text"}, {"specific": "box_image"}],
        order=[{"general": "concept", "specific": "box_text"}],
        anchors=[{"role": "concept", "radius": 0.5}],
    )
    found = call(terms, inputs, **taxonomy_of(99, 99, 99))
    assert {name: value.item() for name, value in found.parts.items() if name[:3] in ("lin", "ord")} == {
        "lineage/box_text": 0, "lineage/box_image": 0, "order/concept-box_text": 0,
    }  # fmt: skip
    assert all(gradient.isfinite().all() for gradient in gradients(found.loss, inputs).values())
    alone = {name: x for name, x in inputs.items() if name != "concept"}
    without = call(terms, alone)
    assert {name: value.item() for name, value in without.parts.items() if name[:3] != "con"} == {
        "lineage/box_text": 0, "lineage/box_image": 0, "order/concept-box_text": 0, "anchor/concept": 0,
    }  # fmt: skip


EVERYTHING: dict[str, Any] = {
    "contrast": [{"query": "box_image", "key": "box_text"}, {"query": "image", "key": "text"}],
    "contrast_of": "directions",
    "skip_related": True,
    "entail": [
        {"general": "text", "specific": "image"},
        {"general": "box_text", "specific": "box_image"},
        {"general": "box_text", "specific": "text", "negatives": 0},
        {"general": "box_image", "specific": "image", "negatives": 0.5},
    ],
    "order": [{"general": "text", "specific": "image"}, {"general": "concept", "specific": "box_text"}],
    "lineage": [{"specific": "box_text"}, {"specific": "box_image"}, {"specific": "concept"}],
    "anchors": [{"role": "image", "radius": 1.0}, {"role": "concept", "radius": 0.4}],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("geometry", ["lorentz", "euclidean"])
@pytest.mark.parametrize("boxes", [None, 3])
def test_the_shares_of_processes_average_to_the_whole(geometry, form, boxes):
    size = 6
    concepts = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.3
    inputs = leaves({**samples(size, boxes), "concept": concepts}, CURV, {"logit_scale": 3.0})
    shape = (size, boxes) if boxes else (size,)
    draw = torch.Generator().manual_seed(2)
    phrases = torch.tensor([A, B, C, D, E, 99])[torch.randint(0, 6, shape, generator=draw)]
    above = torch.tensor([ABOVE[p] for p in phrases.flatten().tolist()]).view(*shape, 2)
    known: dict[str, Any] = {
        "content": {"box_text": phrases, "concept": CONCEPTS["content"]},
        "ancestors": {"box_text": above, "concept": CONCEPTS["ancestors"]},
        "levels": CONCEPTS["levels"],
    }
    if boxes:
        known["box_weight"] = torch.rand(shape, generator=draw, dtype=torch.float64).round(decimals=1)
    terms = recipe(**{**EVERYTHING, "geometry": geometry, "entailment": FORMS[form], "max_boxes": boxes or 1})
    whole = call(terms, inputs, **known)
    assert all(value.isfinite() for value in whole.parts.values())
    parts = [call(terms, inputs, **known, local=slice(first, first + 2)) for first in range(0, size, 2)]
    mean = torch.stack([part.loss for part in parts]).mean()
    assert mean.item() == pytest.approx(whole.loss.item(), rel=1e-12)
    assert_same(gradients(mean, inputs), gradients(whole.loss, inputs), rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_finite_differences(form):
    inputs = with_concepts(3)
    terms = recipe(**{**EVERYTHING, "entailment": FORMS[form]})
    names = list(inputs)

    def loss(*values: Tensor) -> Tensor:
        return call(terms, dict(zip(names, values, strict=True)), **taxonomy_of(A, C, E)).loss

    assert torch.autograd.gradcheck(loss, tuple(inputs.values()))


COMPILE = """
import torch
from tests.objective.test_terms import A, C, E, EVERYTHING, FORMS, assert_same, call, gradients, recipe
from tests.objective.test_terms import taxonomy_of, with_concepts

torch.set_num_threads(1)
known, inputs = taxonomy_of(A, C, E), with_concepts(3)
for form in FORMS.values():
    torch._dynamo.reset()
    terms = recipe(**{**EVERYTHING, "entailment": form})
    found = torch.compile(lambda x: call(terms, x, **known).loss, fullgraph=True, backend="aot_eager")(inputs)
    expected = call(terms, inputs, **known).loss
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert_same(gradients(found, inputs), gradients(expected, inputs), rtol=1e-9, atol=1e-11)
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


@pytest.mark.parametrize("form", FORMS)
def test_a_loss_does_not_depend_on_the_size_of_blocks(form, monkeypatch):
    inputs = leaves(samples(9), CURV, {"logit_scale": 3.0})
    terms = recipe(entailment=FORMS[form], entail=[{"general": "text", "specific": "image"}])
    whole = call(terms, inputs)
    monkeypatch.setattr("hypclip.objective.blockwise.CHUNK", 20)
    blocks = call(terms, inputs)
    assert blocks.loss.item() == pytest.approx(whole.loss.item(), rel=1e-12)
    assert_same(gradients(blocks.loss, inputs), gradients(whole.loss, inputs), rtol=1e-10, atol=1e-13)


def test_of_a_large_batch_a_general_point_meets_a_part(monkeypatch):
    inputs = leaves(samples(7), CURV, {"logit_scale": 3.0})
    term = {"general": "text", "specific": "image", "scale": 4.0}
    monkeypatch.setattr("hypclip.objective.radial.MOST_NEGATIVES", 3)
    found = call(recipe(entail=[term]), inputs)
    score, c = score_in("plane"), inputs["curv"]
    z = torch.stack([torch.stack([score(g, s, c) for s in inputs["image"]]) for g in inputs["text"]])
    met = [[j for j in (0, 3, 6) if j != i] for i in range(7)]
    others = torch.stack([softplus(4 * z[i, js]).mean() for i, js in enumerate(met)]).mean()
    want = softplus(-4 * z.diagonal()).mean() + others
    assert found.parts["entail/text-image"].item() == pytest.approx(want.item(), rel=1e-12)


def test_describe_measures_each_term_and_each_level():
    inputs = with_concepts(4)
    features = {name: x.detach() for name, x in inputs.items() if name not in ("curv", "logit_scale")}
    terms = recipe(**EVERYTHING)
    seen = terms.describe(features, curv=CURV, **taxonomy_of(A, B, C, D))
    score, c = score_in("plane"), torch.tensor(CURV, dtype=torch.float64)
    z = torch.stack([score(g, s, c) for g, s in zip(features["text"], features["image"], strict=True)])
    rho = {role: torch.asinh(math.sqrt(CURV) * x.norm(dim=1)) for role, x in features.items()}
    assert seen["margin/text-image"].item() == pytest.approx(z.mean().item())
    assert seen["violation/text-image"].item() == pytest.approx((z < 0).double().mean().item())
    assert seen["gap/text-image"].item() == pytest.approx((rho["image"] - rho["text"]).mean().item())
    cosines = torch.nn.functional.cosine_similarity(features["text"], features["image"])
    assert seen["cosine/text-image"].item() == pytest.approx(cosines.mean().item())
    levels = {name: value.item() for name, value in seen.items() if name.startswith("radius/level")}
    root = math.sqrt(CURV)
    assert levels == {
        "radius/level0/q50": pytest.approx(rho["concept"][2].item() / root),
        "radius/level1/q50": pytest.approx(rho["concept"][:2].mean().item() / root),
    }
    assert not [name for name in seen if name.startswith("clamped")]  # half-spaces have no aperture


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"entail": [{"general": "text", "specific": "text"}]}, "entail term needs two roles, got 'text' twice"),
        ({"order": [{"general": "text", "specific": "text"}]}, "an order needs two roles"),
        ({"order": [{"general": "text", "specific": "concept"}]}, "give concept as general"),
        ({"entail": [{"general": "concept", "specific": "image"}]}, "the role concept belongs to lineage"),
        ({"contrast": [{"query": "concept", "key": "image"}]}, "the role concept belongs to lineage"),
        ({"lineage": [{"specific": "text"}, {"specific": "text"}]}, "lineage lists text twice"),
        ({"anchors": [{"role": "text", "radius": 0}]}, r"anchors\.0\.radius: .*greater than 0"),
        ({"geometry": "sphere", "entail": [{"general": "text", "specific": "image"}]}, "another geometry than sphere"),
        (
            {"geometry": "sphere", "entailment": None, "contrast_of": "directions"},
            "than sphere, where directions are all",
        ),
        ({"base": "phyclip", "anchors": [{"role": "text", "radius": 1}]}, "need geometry lorentz or euclidean"),
        ({"entailment": {"form": "plane", "eta": 1}}, "entailment.plane.eta"),
        ({"entailment": {"form": "ball"}}, "entailment"),
    ],
)
def test_mistakes_are_named(terms, message):
    with pytest.raises(ConfigError, match=message):
        recipe_from({**({} if "base" in terms else {"geometry": "lorentz"}), "contrast": CONTRAST, **terms})


def test_the_rule_of_a_recipe_is_its_own_or_that_of_its_cones():
    assert recipe(entailment=FORMS["plane"]).recipe.rule.threshold == 0.1
    assert Objective.from_recipe("hycoclip").recipe.rule.min_radius == MIN_RADIUS
    assert Objective.from_recipe({"base": "hycoclip", "min_radius": 0.3}).recipe.rule.min_radius == 0.3


def test_concepts_need_an_id_a_level_and_ancestors_each():
    inputs = with_concepts(2)
    terms = recipe(lineage=[{"specific": "box_text"}])
    known = taxonomy_of(A, B)
    for left_out in ("content", "ancestors"):
        less = {**known, left_out: {"box_text": known[left_out]["box_text"]}}
        with pytest.raises(InputError, match=r"4 rows of features\['concept'\] need an id, a level and ancestors"):
            call(terms, inputs, **less)
    with pytest.raises(InputError, match="need an id, a level"):
        call(terms, inputs, **{**known, "levels": torch.tensor([1])})
    with pytest.raises(InputError, match=r"ancestors\['box_text'\] must be int64 ids"):
        call(terms, inputs, **{**known, "ancestors": {**known["ancestors"], "box_text": torch.ones(2, 2)}})
    wrong = {**inputs, "concept": inputs["concept"][:, :3]}
    with pytest.raises(InputError, match=r"features\['concept'\] must be \(C, 6\)"):
        call(terms, wrong, **known)


def test_a_pair_has_one_term_of_entailment():
    pair = {"general": "text", "specific": "image"}
    with pytest.raises(ConfigError, match="edges and entail lists text-image twice"):
        recipe(edges=[pair], entail=[pair])
