"""The losses in float64 as papers print them, with acosh, acos and loops, none of our geometry; and points for them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hypclip.objective import Objective
from tests.support.training import ROLES

Similarity = Callable[[Tensor, Tensor], Tensor]
MIN_RADIUS = 0.1
FACTOR_DIM = 2
DIM = 6

SETTINGS: dict[str, Any] = {
    "clip": "clip",
    "euclip": "euclip",
    "euclip-geodesic": {"base": "euclip", "distance": "geodesic"},
    "meru": "meru",
    "hycoclip": "hycoclip",
    "hce": "hce",
    "phyclip": {"base": "phyclip", "factor_dim": FACTOR_DIM},
    "phyclip-l1_mean": {"base": "phyclip", "factor_dim": FACTOR_DIM, "distance": "l1_mean"},
    "phyclip-l2": {"base": "phyclip", "factor_dim": FACTOR_DIM, "distance": "l2"},
    "uncha": "uncha",
    "argent": "argent",
    "hypclip": "hypclip",
}
"""Every published recipe and its variants, for points of DIM components."""
BOXED = tuple(name for name in SETTINGS if name not in ("clip", "euclip", "euclip-geodesic", "meru"))
CURVED = tuple(name for name in SETTINGS if name not in ("clip", "euclip", "euclip-geodesic"))
SCALES = {"logit_scale": 3.0, "box_scale": 4.0, "box_whole_scale": 2.5}


# Points ---------------------------------------------------------------------------------------------------------------


def samples(
    size: int, boxes: int | None = None, *, dim: int = DIM, radius: float = 1.0, seed: int = 0, spread: float = 0.3
) -> dict[str, Tensor]:
    """Draw space components of samples whose parts lie behind each other, some inside their cones and some not."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) * radius / math.sqrt(dim)

    middle = randn(size, 1, dim)
    found = {
        role: level * middle + spread * randn(size, count or 1, dim)
        for role, level, count in zip(ROLES, (1.6, 1.0, 0.8, 0.5), (None, None, boxes, boxes), strict=True)
    }
    return {role: x if role in ROLES[2:] and boxes else x.squeeze(1) for role, x in found.items()}


def leaves(
    features: Mapping[str, Tensor], curv: float | Sequence[float] = 1.0, scales: Mapping[str, float] = SCALES
) -> dict[str, Tensor]:
    """Return what a loss is differentiated by, by name: features, curv, scales."""
    dtype = next(iter(features.values())).dtype
    found = {role: x.detach().clone() for role, x in features.items()}
    found |= {name: torch.tensor(v, dtype=dtype) for name, v in {"curv": curv, **scales}.items()}
    return {name: x.requires_grad_() for name, x in found.items()}


def apply(objective: Objective, inputs: Mapping[str, Tensor], **more: Any) -> Any:
    """Return the loss of inputs by name."""
    features = {role: inputs[role] for role in ROLES if role in inputs}
    scales = {name: inputs[name] for name in objective.recipe.scales}
    return objective(features, curv=inputs["curv"], logit_scale=scales, **more)


def gradients(loss: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = torch.autograd.grad(
        loss, list(inputs.values()), allow_unused=True, materialize_grads=True, retain_graph=True
    )
    return dict(zip(inputs, found, strict=True))


def assert_same(got: Mapping[str, Tensor], want: Mapping[str, Tensor], **tolerance: float) -> None:
    assert got.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], msg=lambda m, name=name: f"{name}: {m}", **tolerance)


def assert_near(got: Mapping[str, Tensor], want: Mapping[str, Tensor], tolerance: float) -> None:
    """Compare each tensor with an error measured against its norm, so that small components may be rounded."""
    assert got.keys() == want.keys()
    for name in want:
        error = (got[name].double() - want[name].double()).norm().item()
        scale = want[name].double().norm().item()
        assert error <= tolerance * scale + 1e-14, f"{name}: off by {error:.3g}, norm {scale:.3g}"


# Geometry -------------------------------------------------------------------------------------------------------------


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


def factors(x: Tensor, c: Tensor, dim: int | None) -> list[tuple[Tensor, Tensor]]:
    """Return each factor of a point and its curvature."""
    parts = x.split(dim or len(x))
    return list(zip(parts, c.expand(len(parts)), strict=True))


def hinge(x: Tensor) -> Tensor:
    return x if x > 0 else 0 * x


# Losses ---------------------------------------------------------------------------------------------------------------


def mean(terms: Iterable[Tensor], weight: Sequence[Tensor] | None = None) -> Tensor:
    stacked = torch.stack(list(terms))
    return stacked.mean() if weight is None else (stacked * torch.stack(list(weight))).sum()


def cross_entropy(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    s: Tensor,
    similarity: Similarity,
    *,
    own: Sequence[int] | None = None,
    weight: Sequence[Tensor] | None = None,
    candidates: Callable[[int], Iterable[int]] | None = None,
    rows: Iterable[int] | None = None,
) -> Tensor:
    """The mean over `rows` of −log softmax at the own key; `candidates(i)` are the keys row i chooses from."""
    terms = []
    for i in range(len(queries)) if rows is None else rows:
        chosen = range(len(keys)) if candidates is None else candidates(i)
        logits = {j: s * similarity(queries[i], keys[j]) for j in chosen}
        terms.append(torch.logsumexp(torch.stack(list(logits.values())), 0) - logits[i if own is None else own[i]])
    return mean(terms, weight)


def violation(general: Sequence[Tensor], specific: Sequence[Tensor], c: Tensor, eta: float, rows=None) -> Tensor:
    """V(general ⊐ specific; η)."""
    return mean(
        hinge(angle(general[i], specific[i], c) - eta * aperture(general[i], c))
        for i in (range(len(general)) if rows is None else rows)
    )


def textbook(name: str, inputs: Mapping[str, Tensor], weight: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Return loss and parts of a recipe, the sums written out; a box of weight 0 is none."""
    c, s = inputs["curv"], inputs["logit_scale"]
    dim = FACTOR_DIM if name.startswith("phyclip") else None
    image, text = list(inputs["image"]), list(inputs["text"])

    def by_factor(measure: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
        pairs = zip(factors(x, c, dim), factors(y, c, dim), strict=True)
        return torch.stack([measure(p, q, curv) for (p, curv), (q, _) in pairs])

    def far(x: Tensor, y: Tensor) -> Tensor:
        return -by_factor(distance, x, y).sum()

    similarity = {
        "clip": cosine,
        "euclip": lambda x, y: -((x - y) @ (x - y)),
        "euclip-geodesic": lambda x, y: -((x - y) @ (x - y)).sqrt(),
        "phyclip-l1_mean": lambda x, y: far(x, y) / (DIM // FACTOR_DIM),
        "phyclip-l2": lambda x, y: -by_factor(distance, x, y).square().sum().sqrt(),
    }.get(name, far)

    parts = {
        "contrast/image-text": cross_entropy(image, text, s, similarity),
        "contrast/text-image": cross_entropy(text, image, s, similarity),
    }
    pairs = 0.5 * (parts["contrast/image-text"] + parts["contrast/text-image"])
    if name in ("clip", "euclip", "euclip-geodesic"):
        return pairs, parts
    if name == "meru":
        parts["entail/text-image"] = violation(text, image, c, 1.0)
        return pairs + 0.2 * parts["entail/text-image"], parts

    many = {role: x if x.dim() == 3 else x.unsqueeze(1) for role, x in inputs.items() if role in ROLES[2:]}
    weight = torch.ones(many["box_image"].shape[:2], dtype=c.dtype) if weight is None else weight.to(c.dtype)
    places = [(i, k) for i in range(len(weight)) for k in range(weight.shape[1]) if weight[i, k] > 0]
    share = [weight[i, k] / weight[i].sum() / len({i for i, _ in places}) for i, k in places]
    owner = [i for i, _ in places]
    box_image, box_text = ([many[role][place] for place in places] for role in ROLES[2:])
    its_image, its_text = [image[i] for i in owner], [text[i] for i in owner]

    def edges(penalties: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]]) -> dict[str, Tensor]:
        sides = {
            "text-image": (text, image, None),
            "box_text-box_image": (box_text, box_image, share),
            "box_image-image": (box_image, its_image, share),
            "box_text-text": (box_text, its_text, share),
        }
        found = {}
        for pair, (general, specific, w) in sides.items():
            terms = [by_factor(penalties[pair], x, y).mean() for x, y in zip(general, specific, strict=True)]
            found[f"entail/{pair}"] = mean(terms, w)
        return found

    def cone(eta: float, residual: float = 0.0) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        return lambda x, y, c: hinge(angle(x, y, c) - eta * aperture(x, c)) + residual * angle(x, y, c)

    def bare(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
        return angle(x, y, c)

    def adaptive(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
        return (1 - torch.exp(-distance(x, y, c))) * angle(x, y, c)

    def huber(penalty: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        def of(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
            p = penalty(x, y, c)
            return p * p / 2 if p <= 1 else p - 0.5

        return of

    def four(inter: Any, intra: Any) -> dict[str, Tensor]:
        return edges(
            {"text-image": inter, "box_text-box_image": inter, "box_image-image": intra, "box_text-text": intra}
        )

    if name == "hce":
        found = four(cone(1.0), cone(1.0))
        return pairs + 0.2 * 0.5 * sum(found.values()), parts | found

    if name == "uncha":

        def u(x: Tensor) -> Tensor:
            return torch.log(1 + torch.exp(-x.norm()))

        def softened(x: Tensor, y: Tensor) -> Tensor:
            return torch.exp(-u(x) / 2).detach() * far(x, y)

        s_l, s_gl = inputs["box_scale"], inputs["box_whole_scale"]
        boxes = {
            "contrast/box_image-box_text": cross_entropy(box_image, box_text, s_l, far, weight=share),
            "contrast/box_text-box_image": cross_entropy(box_text, box_image, s_l, far, weight=share),
            "contrast/box_image-text": cross_entropy(box_image, text, s_gl, softened, own=owner, weight=share),
            "contrast/box_text-image": cross_entropy(box_text, image, s_gl, softened, own=owner, weight=share),
        }
        residual = four(cone(0.7, 0.1), cone(1.2, 0.1))

        def calibration(general: list[Tensor], specific: list[Tensor]) -> Tensor:
            r = [cone(1.2, 0.1)(x, y, c).detach() for x, y in zip(general, specific, strict=True)]
            terms = [r_i * torch.exp(-u(x)) / 2 + u(x) / 2 for r_i, x in zip(r, general, strict=True)]
            total = sum(torch.exp(u(x)) for x in general)
            p = [torch.exp(u(x)) / total for x in general]
            return mean(terms, share) - sum(p_i * torch.log(p_i) for p_i in p)

        calibrations = {
            "calibrate/box_image-image": calibration(box_image, its_image),
            "calibrate/box_text-text": calibration(box_text, its_text),
        }
        a, b, part_image, part_text = residual.values()
        entail = a / 2 + b / 2 + (part_image / 2 + part_text / 2) / 2 + 10 * sum(calibrations.values())
        return pairs + sum(boxes.values()) / 2 + 0.2 * entail, parts | boxes | residual | calibrations

    if name == "hypclip":
        return directed(inputs, (image, text, box_image, box_text), owner, share)

    parts["contrast/box_image-text"] = cross_entropy(box_image, text, s, similarity, own=owner, weight=share)
    parts["contrast/box_text-image"] = cross_entropy(box_text, image, s, similarity, own=owner, weight=share)
    contrast = sum(parts.values()) / 4
    if name == "argent":
        found = four(huber(bare), huber(adaptive))
        lowest = 0.5 - math.log(math.sqrt(0.5))
        norms = {
            f"norm/{role}": mean((c * (x @ x) - torch.log(c.sqrt() * x.norm()) - lowest for x in rows), w)
            for role, rows, w in zip(ROLES, (image, text, box_image, box_text), (None, None, share, share), strict=True)
        }
        inter = found["entail/text-image"] + found["entail/box_text-box_image"]
        intra = found["entail/box_image-image"] + found["entail/box_text-text"]
        return contrast + 0.1 * inter + 0.05 * intra + 0.01 * sum(norms.values()), parts | found | norms
    found = four(cone(0.7), cone(1.2))
    return contrast + 0.2 * 0.5 * sum(found.values()), parts | found


def height(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    """√c times the signed distance of y to the hyperplane through x across its ray."""
    rho, unit = torch.asinh(c.sqrt() * x.norm()), x / x.norm()
    return torch.asinh(c.sqrt() * (torch.cosh(rho) * (unit @ y) - torch.sinh(rho) * time_of(y, c)))


def directed(
    inputs: Mapping[str, Tensor], rows: Sequence[Sequence[Tensor]], owner: Sequence[int], share: Sequence[Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return loss and parts of hypclip; a box has an owner and a share."""
    c, s = inputs["curv"], inputs["logit_scale"]
    image, text, box_image, box_text = rows

    def chord(x: Tensor, y: Tensor) -> Tensor:
        return -(x / x.norm() - y / y.norm()).norm()

    def logistic(
        general: Sequence[Tensor], specific: Sequence[Tensor], own: Sequence[int], weight: Any, times: float
    ) -> Tensor:
        softplus = torch.nn.functional.softplus
        terms = []
        for i, g in enumerate(general):
            others = [softplus(10 * height(g, y, c)) for j, y in enumerate(specific) if j != own[i]]
            negatives = times * torch.stack(others).mean() if times and others else 0.0
            terms.append(softplus(-10 * height(g, specific[own[i]], c)) + negatives)
        return mean(terms, weight)

    def outwards(general: Sequence[Tensor], specific: Sequence[Tensor], weight: Any) -> Tensor:
        rho = [[torch.asinh(c.sqrt() * x.norm()) for x in side] for side in (general, specific)]
        return mean((hinge(g - y + 0.1) for g, y in zip(*rho, strict=True)), weight)

    whole, boxes = list(range(len(image))), list(range(len(box_image)))
    its_text = [text[i] for i in owner]
    parts = {
        "contrast/image-text": cross_entropy(image, text, s, chord),
        "contrast/text-image": cross_entropy(text, image, s, chord),
        "contrast/box_image-box_text": cross_entropy(box_image, box_text, s, chord, weight=share),
        "contrast/box_text-box_image": cross_entropy(box_text, box_image, s, chord, weight=share),
        "entail/text-image": logistic(text, image, whole, None, 3),
        "entail/box_text-box_image": logistic(box_text, box_image, boxes, share, 2),
        "entail/box_image-image": logistic(box_image, image, owner, share, 0),
        "entail/box_text-text": logistic(box_text, text, owner, share, 0),
        "order/text-image": outwards(text, image, None),
        "order/box_text-box_image": outwards(box_text, box_image, share),
        "order/box_text-text": outwards(box_text, its_text, share),
        "anchor/image": mean((torch.asinh(c.sqrt() * x.norm()) - 1.35).square() for x in image),
        "anchor/box_image": mean(((torch.asinh(c.sqrt() * x.norm()) - 1.35).square() for x in box_image), share),
    }
    weights = [0.5, 0.5, 1, 1, 0.1, 0.03, 0.03, 0.03, 5, 5, 5, 10, 10]
    return sum(w * part for w, part in zip(weights, parts.values(), strict=True)), parts
