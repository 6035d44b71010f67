"""Evaluate a recipe on a batch of embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hypclip.objective import blockwise
from hypclip.objective.blockwise import Bars, Form, Points
from hypclip.objective.inputs import Inputs, Scale
from hypclip.objective.recipe import Contrast, Edge, Recipe, recipe_from
from hypclip.objective.relations import Relations
from hypclip.roles import BOX_ROLES, Role


@dataclass(frozen=True)
class Loss:
    """The value to minimise, and each of its terms before weighting, detached."""

    loss: Tensor
    parts: dict[str, Tensor]


class Objective:
    """A recipe, ready to be evaluated. No B × B matrix is kept (see hypclip.objective.blockwise).

    Args:
        recipe: see `Recipe`.
    """

    def __init__(self, recipe: Recipe):
        self.recipe = recipe

    @classmethod
    def from_recipe(cls, recipe: str | Mapping[str, object]) -> Objective:
        """Build from the name of a recipe, a YAML file, or plain data (see `recipe_from`)."""
        return cls(recipe_from(recipe))

    def __call__(
        self,
        features: Mapping[str, Tensor],
        *,
        curv: Tensor | float,
        logit_scale: Scale | Mapping[str, Scale],
        content: Mapping[str, Tensor] | None = None,
        box_weight: Tensor | None = None,
        local: slice | None = None,
    ) -> Loss:
        """Return the loss of a batch.

        Args:
            features: role → (B, D) float32 or float64 space components; row i of each role belongs to sample i. With
                several processes these are the rows of all processes. Box roles may be (B, N, D): N boxes a sample.
            curv: c > 0; for a product, one number or one a factor.
            logit_scale: inverse temperature s; logits are −s · d, or s · cosine on the sphere. A recipe with several
                scales takes a mapping of their names.
            content: role → (B,) int64, for box roles (B,) or (B, N). Equal ids, across rows and across roles, mark
                equal content (the same phrase, the same picture): an edge between equal contents is skipped, and with
                `skip_duplicates` equal contents are no negatives of each other. MISSING marks a row that the sample
                does not have.
            box_weight: (B, N) ≥ 0, how much each box counts beside the others of its sample; 0 marks padding. Samples
                count alike however many boxes they have, and those without take part in the terms of whole images.
            local: the rows whose terms this process owns, by default all. The mean over processes of the returned
                losses, and of their gradients, is that of one process holding all rows.

        Raises:
            InputError: a role or a scale of the recipe is missing, shapes differ, points are half precision or beyond
                what their precision holds, or `curv` or a scale is not positive. Values are not looked at under
                torch.compile.
        """
        batch = Inputs.of(self.recipe, features, curv, logit_scale, content or {}, box_weight, local)
        with torch.autocast(batch.device.type, enabled=False):
            relations = _relations(self.recipe, batch)
            parts: dict[str, Tensor] = {}
            total = _contrasts(self.recipe, batch, relations, parts)
            if self.recipe.edges:
                total = total + _edges(self.recipe, batch, relations, parts)
            if self.recipe.regularisers:
                total = total + _regularisers(self.recipe, batch, relations, parts)
        return Loss(total, parts)

    @torch.no_grad()
    def describe(
        self,
        features: Mapping[str, Tensor],
        *,
        curv: Tensor | float,
        content: Mapping[str, Tensor] | None = None,
        box_weight: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return what tells a healthy run from a collapsed one; arguments as for the loss, rows of all processes.

        Per edge, over the pairs that count, on average over the factors of a product: the share outside their cone
        φ > η ω (`violation`), the mean of η ω − φ in radians (`margin`), and the share of general points so near the
        origin that their cone is a half-space (`clamped`). Per role: the 5 %, 50 % and 95 % quantiles of the distance
        to the origin.
        """
        scales = dict.fromkeys(self.recipe.scales, 1.0)
        batch = Inputs.of(self.recipe, features, curv, scales, content or {}, box_weight, None)
        seen: dict[str, Tensor] = {}
        with torch.autocast(batch.device.type, enabled=False):
            if self.recipe.edges:
                relations = _relations(self.recipe, batch)
                assert relations is not None
                pairs = [(e.general, e.specific) for e in self.recipe.edges]
                angles = relations.angles(pairs)
                apertures = relations.apertures([e.general for e in self.recipe.edges], self.recipe.min_radius)
                for edge, angle, aperture in zip(self.recipe.edges, angles, apertures, strict=True):
                    share = batch.shares(edge.general, edge.specific, distinct=True)
                    margin = edge.eta * aperture - angle
                    for name, value in (
                        ("violation", (margin < 0).double()),
                        ("margin", margin),
                        ("clamped", (aperture >= torch.pi / 2).double()),
                    ):
                        seen[f"{name}/{edge.general}-{edge.specific}"] = batch.total(value, share)
            if self.recipe.metric.has_cones:
                levels = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64, device=batch.device)
                for role, x in batch.points.items():
                    radii = self.recipe.metric.radius(x, batch.curv)[batch.present(role)].double()
                    quantiles = torch.quantile(radii, levels) if radii.numel() else torch.full_like(levels, torch.nan)
                    for percent, value in zip((5, 50, 95), quantiles, strict=True):
                        seen[f"radius/{role}/q{percent:02}"] = value
        return seen


def _relations(recipe: Recipe, batch: Inputs) -> Relations | None:
    """Return the row-wise geometry of all pairs of the recipe; on the sphere there is none to share."""
    if not recipe.metric.has_cones:
        return None
    pairs: dict[frozenset[Role], tuple[Role, Role]] = {}
    for general, specific in [(e.general, e.specific) for e in recipe.edges] + [
        (c.query, c.key) for c in recipe.contrast
    ]:
        pairs.setdefault(frozenset((general, specific)), (general, specific))
    return Relations(batch.points, recipe.metric, batch.curv, list(pairs.values()), batch.local)


def _contrasts(recipe: Recipe, batch: Inputs, relations: Relations | None, parts: dict[str, Tensor]) -> Tensor:
    """Return the weighted sum of the contrastive terms; both directions of a pair go together where they can."""
    whole = batch.local == slice(0, next(iter(batch.points.values())).shape[0], 1)
    total: list[Tensor] = []
    done: set[int] = set()
    for place, term in enumerate(recipe.contrast):
        if place in done:
            continue
        back = None
        for other, reverse in enumerate(recipe.contrast[place + 1 :], place + 1):
            same = (reverse.query, reverse.key, reverse.scale) == (term.key, term.query, term.scale)
            alike = batch.points[term.query].shape == batch.points[term.key].shape
            if same and alike and whole and not (term.soften or reverse.soften):
                back = reverse
                done.add(other)
        loss, values = _contrast(recipe, batch, relations, term, back)
        total.append(loss)
        for direction, value in zip((term, back), values, strict=True):
            if direction is not None:
                parts[f"contrast/{direction.query}-{direction.key}"] = value.detach() / direction.weight
    return torch.stack(total).sum()


def _contrast(
    recipe: Recipe, batch: Inputs, relations: Relations | None, term: Contrast, back: Contrast | None
) -> tuple[Tensor, Tensor]:
    query, key = batch.points[term.query], batch.points[term.key]
    size, boxes = query.shape[0], max(query.shape[1], key.shape[1])
    rows = torch.arange(size * boxes, device=batch.device).view(size, boxes)[batch.local].flatten()
    target = rows if key.shape[1] == boxes else rows // boxes
    shares = batch.shares(term.query, term.key).flatten()
    scale = batch.scales[term.scale].expand(len(rows))
    factors = torch.ones(1, dtype=query.dtype, device=batch.device)
    if relations is None:
        unit_query, unit_key = normalize(query, dim=-1), normalize(key, dim=-1)
        sides = [Points(x.flatten(0, 1).unsqueeze(0), x.new_empty(0)) for x in (unit_query, unit_key)]
        here = unit_query[batch.local]
        own = scale * torch.linalg.vecdot(here, unit_key[batch.local]).flatten()
        form: Form = "dot"
    else:
        spreads = [relations.spread(role).to(query.dtype).flatten(1) for role in (term.query, term.key)]
        coordinates = [relations.points[role].flatten(1, 2) for role in (term.query, term.key)]
        sides = [Points(x, h) for x, h in zip(coordinates, spreads, strict=True)]
        own = relations.distance(term.query, term.key)[:, :boxes].flatten()
        form = _form(recipe)
        if term.soften:
            softened = torch.exp(-relations.uncertainty(term.query)[batch.local].detach() / 2).to(query.dtype)
            scale = scale * softened.expand(-1, boxes).flatten()
        own = -(scale * own).to(query.dtype)
        if recipe.metric.geometry == "product":
            factors = (1 / relations.root).expand(coordinates[0].shape[0])
            factors = factors / len(factors) if recipe.metric.distance == "l1_mean" else factors
        elif recipe.metric.geometry == "lorentz":
            scale = scale / relations.root
    queries = _take(sides[0], query.shape[1], boxes, batch.local, size)
    weights = [direction.weight * shares for direction in (term, back) if direction is not None]
    return blockwise.contrast(
        queries,
        sides[1],
        own,
        scale.contiguous(),
        target,
        weights[0],
        _bars(recipe, batch, term, rows, boxes),
        form=form,
        factor_weight=factors.contiguous(),
        reduce="l2" if recipe.metric.distance == "l2" else "sum",
        key_weight=weights[1] if back is not None else None,
    )


def _form(recipe: Recipe) -> Form:
    if recipe.metric.is_hyperbolic:
        return "lorentz"
    return "squared" if recipe.metric.distance == "squared" else "euclidean"


def _take(side: Points, own_boxes: int, boxes: int, local: slice, size: int) -> Points:
    """Return the local rows of a side, repeated where a whole is to meet every box of its sample."""
    if own_boxes == boxes and local == slice(0, size, 1):
        return side

    def take(x: Tensor) -> Tensor:
        x = x.reshape(x.shape[0], size, own_boxes, *x.shape[2:])[:, local]
        return x.expand(-1, -1, boxes, *x.shape[3:]).flatten(1, 2)

    return Points(take(side.rows), take(side.h) if side.h.numel() else side.h)


def _bars(recipe: Recipe, batch: Inputs, term: Contrast, rows: Tensor, boxes: int) -> Bars:
    """Return which keys are no candidates: those that samples lack, and duplicates of the right answer."""
    query, key = batch.points[term.query], batch.points[term.key]
    row_ids: list[Tensor] = []
    key_ids: list[Tensor] = []
    if recipe.skip_duplicates:
        for role in (term.query, term.key):
            if role not in batch.content:
                continue
            ids = batch.content[role]
            own = ids.expand(-1, boxes).flatten()[rows]
            if role == term.key or query.shape[1] <= key.shape[1]:
                columns = [ids.expand(-1, key.shape[1]).flatten()]
            else:
                columns = list(ids.unbind(1))
            row_ids += [own] * len(columns)
            key_ids += columns
    none = torch.empty(0, dtype=torch.int64, device=batch.device)
    absent = [
        torch.empty(0, dtype=torch.bool, device=batch.device)
        if role not in batch.content and (role not in BOX_ROLES or batch.box_weight is None)
        else ~batch.present(role).flatten()
        for role in (term.key, term.query)
    ]
    return Bars(
        torch.stack(row_ids) if row_ids else none.view(0, 0),
        torch.stack(key_ids) if key_ids else none.view(0, 0),
        absent[0],
        absent[1] if query.shape[1] == key.shape[1] and len(absent[1]) == len(rows) else absent[1][:0],
    )


def _edges(recipe: Recipe, batch: Inputs, relations: Relations | None, parts: dict[str, Tensor]) -> Tensor:
    """Return the weighted sum of the entailment terms."""
    assert relations is not None
    angles = relations.angles([(e.general, e.specific) for e in recipe.edges])
    apertures = relations.apertures([e.general for e in recipe.edges], recipe.min_radius)
    total: list[Tensor] = []
    for edge, angle, aperture in zip(recipe.edges, angles, apertures, strict=True):
        shares = batch.shares(edge.general, edge.specific, distinct=True)
        penalty = _penalty(edge, angle, aperture, relations)
        value = batch.total(penalty, shares)
        parts[f"entail/{edge.general}-{edge.specific}"] = value.detach().to(shares.dtype)
        total.append(edge.weight * value)
        if edge.calibration:
            value = _calibration(edge, penalty.mean(0).detach(), shares, batch, relations)
            parts[f"calibrate/{edge.general}-{edge.specific}"] = value.detach().to(shares.dtype)
            total.append(edge.calibration * value)
    return torch.stack(total).sum().to(next(iter(batch.points.values())).dtype)


def _penalty(edge: Edge, angle: Tensor, aperture: Tensor, relations: Relations) -> Tensor:
    match edge.penalty:
        case "cone":
            excess = angle - edge.eta * aperture
            hinge = torch.where(excess > 0, excess, 0)
            return hinge + edge.angle_weight * angle if edge.angle_weight else hinge
        case "angle":
            return angle
        case "adaptive_angle":
            return -torch.expm1(-relations.distance(edge.general, edge.specific)) * angle


def _calibration(edge: Edge, residual: Tensor, shares: Tensor, batch: Inputs, relations: Relations) -> Tensor:
    """Return the mean of ½ sg(r) exp(−u) + ½ u over the pairs, plus the entropy of softmax(u) over all present rows."""
    u = relations.uncertainty(edge.general)
    present = batch.present(edge.general)[:, : u.shape[1]]
    log_p = torch.log_softmax(u.masked_fill(~present, -1e30).flatten(), 0).view_as(u)
    log_p = torch.where(present, log_p, 0)  # before the product, whose gradient is not a number at p = 0
    entropy = -(present * log_p.exp() * log_p).sum()
    here = u[batch.local].expand_as(shares)
    return (shares * (residual[:, : shares.shape[1]] * torch.exp(-here) + here) / 2).sum() + entropy


def _regularisers(recipe: Recipe, batch: Inputs, relations: Relations | None, parts: dict[str, Tensor]) -> Tensor:
    """Return the weighted sum of the regularisers."""
    assert relations is not None
    total: list[Tensor] = []
    for term in recipe.regularisers:
        n = relations.lengths([term.role])[0].clamp(min=1e-6)
        lowest = 0.5 + 0.5 * torch.log(torch.tensor(2.0, dtype=n.dtype, device=n.device))
        value = batch.total(n.square() - n.log() - lowest, batch.shares(term.role))
        parts[f"{term.kind}/{term.role}"] = value.detach().to(batch.curv.dtype)
        total.append(term.weight * value)
    return torch.stack(total).sum().to(batch.curv.dtype)
