"""Several boxes a sample: how they count, what padding may hold, and the shares of processes."""

import itertools

import pytest
import torch
from torch import Tensor

from hypclip.objective import Contrast, Edge, Objective, Recipe
from hypclip.roles import MISSING
from tests.support.objective import (
    BOXED,
    SETTINGS,
    angle,
    aperture,
    apply,
    assert_near,
    assert_same,
    distance,
    gradients,
    hinge,
    leaves,
    samples,
)
from tests.support.training import ROLES

BOX_ROLES = ROLES[2:]


def made(name: str, **changes: object) -> Objective:
    plain = {"base": SETTINGS[name]} if isinstance(SETTINGS[name], str) else SETTINGS[name]
    return Objective.from_recipe({**plain, **changes})


def with_boxes(inputs: dict[str, Tensor], change) -> dict[str, Tensor]:
    """Return leaves with the box features changed."""
    changed = {role: change(x.detach()) if role in BOX_ROLES else x.detach() for role, x in inputs.items()}
    return {name: x.clone().requires_grad_() for name, x in changed.items()}


# How boxes count ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOXED)
def test_one_box_may_have_an_axis_of_its_own(name):
    flat = leaves(samples(4))
    deep = with_boxes(flat, lambda x: x.unsqueeze(1))
    content = {"text": torch.arange(4), "box_text": torch.tensor([0, 7, MISSING, 9])}
    objective = made(name, skip_duplicates=True)
    loss, expected = apply(objective, deep, content=content), apply(objective, flat, content=content)
    assert_same({"loss": loss.loss, **loss.parts}, {"loss": expected.loss, **expected.parts}, rtol=1e-12, atol=0)
    found = {role: g.reshape(flat[role].shape) for role, g in gradients(loss.loss, deep).items()}
    assert_near(found, gradients(expected.loss, flat), 1e-12)


@pytest.mark.parametrize("name", BOXED)
@pytest.mark.parametrize("garbage", [0.0, 0.3, -50.0])
def test_padding_changes_nothing(name, garbage):
    inputs = leaves(samples(4, boxes=2))
    padded = with_boxes(inputs, lambda x: torch.cat([x[:, :1], torch.full_like(x, garbage), x[:, 1:]], dim=1))
    content = {
        "text": torch.arange(4),
        "box_text": torch.tensor([[0, 5], [6, 7], [8, MISSING], [5, 9]]),
        "box_image": torch.arange(8).view(4, 2) + 10,
    }
    weight = torch.tensor([[1.0, 2.0], [0.5, 1.0], [3.0, 1.0], [1.0, 0.0]])
    more = {
        role: torch.cat([x[:, :1], torch.full((4, 2), MISSING), x[:, 1:]], dim=1)
        for role, x in content.items()
        if x.dim() > 1
    }
    objective = made(name, skip_duplicates=True)
    expected = apply(objective, inputs, content=content, box_weight=weight)
    loss = apply(
        objective,
        padded,
        content={**content, **more},
        box_weight=torch.cat([weight[:, :1], torch.zeros(4, 2), weight[:, 1:]], dim=1),
    )
    assert_same({"loss": loss.loss, **loss.parts}, {"loss": expected.loss, **expected.parts}, rtol=1e-12, atol=0)
    found = gradients(loss.loss, padded)
    for role in BOX_ROLES:
        assert (found[role][:, 1:3] == 0).all()
        found[role] = found[role][:, [0, 3]]
    assert_near(found, gradients(expected.loss, inputs), 1e-12)


def test_padding_by_weight_alone_bars_no_duplicate():
    """What content says of a box of weight 0 is as meaningless as its features."""
    features, weight = samples(3, boxes=2), torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    objective = made("hycoclip", skip_duplicates=True)
    losses = [
        objective(
            features,
            curv=1.0,
            logit_scale=3.0,
            content={"box_text": torch.tensor([[1, padding], [2, 3], [4, padding]])},
            box_weight=weight,
        ).loss
        for padding in (MISSING, 2)
    ]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["hycoclip", "hce", "phyclip", "argent"])
def test_two_halves_of_a_box_are_the_box(name):
    """Where boxes are queries of wholes and ends of edges; among keys, or in an entropy, a copy is one more."""
    inputs = leaves(samples(4, boxes=2))
    twice = with_boxes(inputs, lambda x: torch.cat([x, x[:, :1]], dim=1))
    weight = torch.tensor([[1.0, 2.0], [0.5, 1.0], [0.0, 1.0], [1.0, 0.0]])
    halves = torch.cat([weight[:, :1] / 2, weight[:, 1:], weight[:, :1] / 2], dim=1)
    expected, loss = apply(made(name), inputs, box_weight=weight), apply(made(name), twice, box_weight=halves)
    assert_same({"loss": loss.loss, **loss.parts}, {"loss": expected.loss, **expected.parts}, rtol=1e-12, atol=0)
    found = gradients(loss.loss, twice)
    for role in BOX_ROLES:
        found[role] = torch.cat([found[role][:, :1] + found[role][:, 2:], found[role][:, 1:2]], dim=1)
    assert_near(found, gradients(expected.loss, inputs), 1e-12)


@pytest.mark.parametrize("name", BOXED)
def test_only_the_ratios_of_weights_count(name):
    inputs = leaves(samples(4, boxes=2))
    weight = torch.tensor([[1.0, 2.0], [0.5, 1.0], [0.0, 1.0], [1.0, 0.0]])
    expected = apply(made(name), inputs, box_weight=weight).loss
    scaled = weight * torch.tensor([[1.0], [20.0], [0.3], [7.0]])
    torch.testing.assert_close(apply(made(name), inputs, box_weight=scaled).loss, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", BOXED)
def test_the_order_of_boxes_makes_no_difference(name):
    inputs, weight = leaves(samples(4, boxes=3)), torch.rand(4, 3)
    content = {"text": torch.arange(4), "box_text": torch.tensor([[0, 5, 6], [7, 1, 7], [5, 8, 9], [3, 3, 6]])}
    order = [2, 0, 1]
    objective = made(name, skip_duplicates=True)
    expected = apply(objective, inputs, content=content, box_weight=weight)
    shuffled = with_boxes(inputs, lambda x: x[:, order])
    content["box_text"] = content["box_text"][:, order]
    loss = apply(objective, shuffled, content=content, box_weight=weight[:, order])
    assert_same({"loss": loss.loss, **loss.parts}, {"loss": expected.loss, **expected.parts}, rtol=1e-12, atol=0)
    found = gradients(expected.loss, inputs)
    found |= {role: found[role][:, order] for role in BOX_ROLES}
    assert_near(gradients(loss.loss, shuffled), found, 1e-10)


@pytest.mark.parametrize("name", ["hycoclip", "phyclip", "argent"])
def test_all_boxes_are_the_expectation_of_one_drawn_by_score(name):
    inputs, weight = (
        leaves(samples(3, boxes=2)),
        torch.tensor([[1.0, 3.0], [2.0, 2.0], [0.0, 1.0]], dtype=torch.float64),
    )
    chance = weight / weight.sum(1, keepdim=True)
    terms = []
    for draw in itertools.product(range(2), repeat=3):
        one = {role: x[range(3), draw] if role in BOX_ROLES else x for role, x in inputs.items()}
        terms.append(chance[range(3), draw].prod() * apply(made(name), one).loss)
    expected = torch.stack(terms).sum()
    loss = apply(made(name), inputs, box_weight=weight).loss
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    assert_near(gradients(loss, inputs), gradients(expected, inputs), 1e-11)


def test_a_sample_without_boxes_is_in_the_whole_terms_and_no_other():
    inputs, weight = leaves(samples(4, boxes=2)), torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    loss = apply(made("hycoclip"), inputs, box_weight=weight)
    all_boxes = apply(made("hycoclip"), inputs)
    for part in ("contrast/image-text", "contrast/text-image", "entail/text-image"):
        torch.testing.assert_close(loss.parts[part], all_boxes.parts[part], rtol=1e-12, atol=0)
    three = {role: x[[0, 2, 3]] if role in ROLES else x for role, x in inputs.items()}
    boxed = apply(made("hycoclip"), three, box_weight=weight[[0, 2, 3]])
    for part in ("entail/box_text-box_image", "entail/box_image-image", "entail/box_text-text"):
        torch.testing.assert_close(loss.parts[part], boxed.parts[part], rtol=1e-12, atol=0)
    assert (gradients(loss.loss, inputs)["box_image"][1] == 0).all()


def test_a_phrase_that_is_the_caption_drops_the_edge_of_its_box_alone():
    inputs, weight = leaves(samples(3, boxes=2)), torch.tensor([[1.0, 3.0], [1.0, 1.0], [1.0, 1.0]])
    content = {"text": torch.tensor([1, 2, 3]), "box_text": torch.tensor([[1, 4], [5, 6], [3, 3]])}
    loss = apply(made("hycoclip"), inputs, content=content, box_weight=weight)
    expected = torch.tensor(0.0, dtype=torch.float64)
    for i, k, share in ((0, 1, 1 / 2), (1, 0, 1 / 4), (1, 1, 1 / 4)):  # box 0 of sample 0 and all of sample 2 are out
        x, y = inputs["box_text"][i, k], inputs["text"][i]
        expected = expected + share * hinge(angle(x, y, inputs["curv"]) - 1.2 * aperture(x, inputs["curv"]))
    torch.testing.assert_close(loss.parts["entail/box_text-text"], expected.detach(), rtol=1e-9, atol=0)
    plain = apply(made("hycoclip"), inputs, box_weight=weight)
    for part in loss.parts.keys() - {"entail/box_text-text"}:
        assert loss.parts[part] == plain.parts[part], part


# Boxes as queries, keys, and both, with duplicates --------------------------------------------------------------------

CONTENT = {
    "image": [1, 2, 1, 4],
    "text": [11, 12, 13, 14],
    "box_image": [[21, 22], [23, 24], [21, 26], [27, MISSING]],
    "box_text": [[31, 32], [33, 34], [11, 32], [32, MISSING]],
}


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize(("query", "key"), [p for p in itertools.permutations(ROLES, 2) if {*p} & {*BOX_ROLES}])
def test_a_contrast_of_any_two_roles(query, key, skip):
    """A whole meets each box of its sample in turn; equal content of either role bars a candidate, its own excepted."""
    inputs, weight = leaves(samples(4, boxes=2)), torch.tensor([[1.0, 3.0], [1.0, 0.0], [2.0, 1.0], [1.0, 5.0]])
    present = (weight > 0) & (torch.tensor(CONTENT["box_text"]) != MISSING)
    contrasts = (Contrast(query, key), Contrast(key, query, weight=2))
    objective = Objective(Recipe("lorentz", contrasts, skip_duplicates=skip))
    content = {role: torch.tensor(rows) for role, rows in CONTENT.items()}
    loss = apply(objective, inputs, content=content, box_weight=weight)
    c, s = inputs["curv"], inputs["logit_scale"]

    def places(role: str) -> list[tuple[int, ...]]:
        return [tuple(p) for p in present.nonzero().tolist()] if role in BOX_ROLES else [(i,) for i in range(4)]

    def contents(role: str, place: tuple[int, ...], at: tuple[int, ...]) -> set[int]:
        """Return what stands for a role beside the part at a place: for a whole, any of its boxes."""
        ids = CONTENT[role]
        if role not in BOX_ROLES:
            return {ids[place[0]]}
        return {ids[i][k] for i, k in places(role) if (i, k) == place or (len(place) == 1 and i == place[0] and not at)}

    def one_way(query: str, key: str) -> Tensor:
        boxed = {query, key} & set(BOX_ROLES)
        total = torch.zeros((), dtype=torch.float64)
        for place in places(next(iter(boxed))) if boxed else places(query):
            i = place[0]
            share = weight[i, place[1]] / (weight * present)[i].sum() / 4 if boxed else torch.tensor(1 / 4)
            here = {role: place if role in BOX_ROLES else (i,) for role in (query, key)}
            own = {role: contents(role, here[role], here[role]) for role in (query, key)}
            logits, right = [], None
            for other in places(key):
                logit = -s * distance(inputs[query][here[query]], inputs[key][other], c)
                if other == here[key]:
                    right = logit
                elif skip and (
                    own[key] & contents(key, other, other)
                    or own[query] & contents(query, other if query in BOX_ROLES and len(other) == 2 else other[:1], ())
                ):
                    continue
                logits.append(logit)
            assert right is not None
            total = total + share * (torch.logsumexp(torch.stack(logits), 0) - right)
        return total

    there, back = one_way(query, key), one_way(key, query)
    assert_same(
        loss.parts,
        {f"contrast/{query}-{key}": there.detach(), f"contrast/{key}-{query}": back.detach()},
        rtol=1e-6,  # weights are float32 here
        atol=0,
    )
    assert_near(gradients(loss.loss, inputs), gradients(there + 2 * back, inputs), 1e-6)


# Shares of processes --------------------------------------------------------------------------------------------------

BATCH = {
    None: {
        "image": torch.arange(8),
        "text": torch.tensor([10, 11, 12, 13, 10, 15, 11, 17]),
        "box_image": torch.tensor([20, MISSING, MISSING, 23, 24, 25, 6, MISSING]),
        "box_text": torch.tensor([30, MISSING, MISSING, 13, 34, 30, 11, MISSING]),
    }
}
BATCH[2] = {
    **{role: BATCH[None][role] for role in ("image", "text")},
    "box_image": torch.stack([BATCH[None]["box_image"], torch.arange(8) + 40], 1),
    "box_text": torch.stack([BATCH[None]["box_text"], torch.tensor([31, 30, MISSING, 12, 33, 15, 11, 36])], 1),
}


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("boxes", [None, 2])
@pytest.mark.parametrize("name", ["clip", "hycoclip", "phyclip", "uncha", "argent"])
def test_the_shares_of_processes_average_to_the_whole(name, boxes, skip, processes):
    objective = made(name, skip_duplicates=skip)
    inputs = leaves(samples(8, boxes=boxes))
    more = {"content": BATCH[boxes]}
    if name == "clip":
        more["content"] = {role: BATCH[boxes][role] for role in ("image", "text")}
    elif boxes:
        more["box_weight"] = torch.tensor([[1, 2], [1, 0], [0, 0], [0, 1], [3, 1], [1, 1], [2, 1], [0.0, 1]])
    whole = apply(objective, inputs, **more)
    size = 8 // processes
    shares = [apply(objective, inputs, local=slice(p * size, (p + 1) * size), **more) for p in range(processes)]
    mean = torch.stack([share.loss for share in shares]).mean()
    torch.testing.assert_close(mean, whole.loss, rtol=1e-12, atol=0)
    parts = {part: torch.stack([share.parts[part] for share in shares]).mean() for part in whole.parts}
    assert_same(parts, whole.parts, rtol=1e-12, atol=1e-15)
    assert_near(gradients(mean, inputs), gradients(whole.loss, inputs), 1e-10)


def test_contrasts_of_both_directions_share_out_as_well():
    contrasts = (Contrast("image", "box_text"), Contrast("box_text", "box_image"), Contrast("box_image", "box_text"))
    objective = Objective(Recipe("lorentz", contrasts, (Edge("text", "box_image", calibration=0.3),)))
    inputs = leaves(samples(6, boxes=2))
    whole = apply(objective, inputs)
    shares = [apply(objective, inputs, local=slice(a, a + 2)).loss for a in (0, 2, 4)]
    mean = torch.stack(shares).mean()
    torch.testing.assert_close(mean, whole.loss, rtol=1e-12, atol=0)
    assert_near(gradients(mean, inputs), gradients(whole.loss, inputs), 1e-10)
