"""Evaluate a recipe on a batch of embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hypclip.objective import blockwise, radial
from hypclip.objective.blockwise import Bars, Form, Points, Term
from hypclip.objective.describing import describe
from hypclip.objective.inputs import Inputs, Scale
from hypclip.objective.lineage import lineage
from hypclip.objective.recipe import Recipe, recipe_from
from hypclip.objective.relations import Relations
from hypclip.objective.terms import Contrast, Edge
from hypclip.roles import BOX_ROLES, MISSING, Role

_NO_QUERY, _NO_KEY = -2, -3
"""Ids of nothing, which are equal to no other id and not to each other."""


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
        ancestors: Mapping[str, Tensor] | None = None,
        levels: Tensor | None = None,
    ) -> Loss:
        """Return the loss of a batch.

        Args:
            features: role → (B, D) float32 or float64 space components; row i of each role belongs to sample i. With
                several processes these are the rows of all processes. Box roles may be (B, N, D): N boxes a sample. The
                role "concept" is (C, D): phrases of a taxonomy, which belong to no sample; a second row of the same id
                counts nothing. Without it the terms of the taxonomy are 0.
            curv: c > 0; for a product, one number or one per factor.
            logit_scale: inverse temperature s; logits are −s · d, or s · cosine on the sphere. A recipe with several
                scales takes a mapping of their names.
            content: role → (B,) int64, for box roles (B,) or (B, N). Equal ids, across rows and across roles, mark
                equal content (the same phrase, the same image): an edge between equal contents is skipped, and with
                `skip_duplicates` equal contents are no negatives of each other. MISSING marks a row that the sample
                does not have.
            box_weight: (B, N) ≥ 0, how much each box counts beside the others of its sample; 0 marks padding. Samples
                count alike however many boxes they have, and those without take part in the terms of whole images.
            ancestors: role of texts → (B, A), for box roles (B, A) or (B, N, A), ids of what a taxonomy puts above each
                text, padded with MISSING; and "concept" → (C, A), see below.
            levels: (C,) int64, the level of each phrase of the taxonomy, 0 for the most general.
            local: the rows whose terms this process owns, by default all. The mean over processes of the returned
                losses, and of their gradients, is that of one process holding all rows.

        Raises:
            InputError: a role or a scale of the recipe is missing, shapes differ, points are half precision or beyond
                what their precision holds, or `curv` or a scale is not positive. Values of
                tensors are looked at on the CPU only, and not under torch.compile.
        """
        batch = Inputs.of(self.recipe, features, curv, logit_scale, content or {}, box_weight, local, ancestors, levels)
        with torch.autocast(batch.device.type, enabled=False):
            relations = _relations(self.recipe, batch)
            parts: dict[str, Tensor] = {}
            total = _contrasts(self.recipe, batch, relations, parts)
            if relations is not None:
                total = total + _radial(self.recipe, batch, relations, parts)
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
        ancestors: Mapping[str, Tensor] | None = None,
        levels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute statistics that tell a healthy run from a collapsed one; arguments as for the loss, of all processes.

        Per edge and entail term, over the pairs that count, on average over the factors of a product: the share whose
        specific point is outside (`violation`), the mean depth inside (`margin`: η ω − φ in radians, of a half-space
        √c times a distance), the mean cosine of the two directions (`cosine`) and of ρ_specific − ρ_general (`gap`),
        ρ = √c · radius; NaN where no pair counts. Of cones also the share of general points so near the origin that
        theirs is a half-space (`clamped`). Per role the 5 %, 50 % and 95 % quantiles of the distance to the origin, and
        of the phrases of a taxonomy the median by level.
        """
        scales = dict.fromkeys(self.recipe.scales, 1.0)
        batch = Inputs.of(self.recipe, features, curv, scales, content or {}, box_weight, None, ancestors, levels)
        with torch.autocast(batch.device.type, enabled=False):
            return describe(self.recipe, batch, _relations(self.recipe, batch))


def _relations(recipe: Recipe, batch: Inputs) -> Relations | None:
    """Return the row-wise geometry of all pairs of the recipe; on the sphere there is none to share."""
    if not recipe.metric.has_cones:
        return None
    edges = [(e.general, e.specific) for e in recipe.edges]
    pairs = [(c.query, c.key) for c in recipe.contrast] + [(e.general, e.specific) for e in recipe.entail]
    return Relations(batch.points, recipe.metric, batch.curv, edges, pairs, batch.local)


def _contrasts(recipe: Recipe, batch: Inputs, relations: Relations | None, parts: dict[str, Tensor]) -> Tensor:
    """Return the weighted sum of the contrastive terms; both directions of a pair go together where they can."""
    directions: list[tuple[Contrast, Contrast | None]] = []
    for term in recipe.contrast:
        for place, (other, back) in enumerate(directions):
            if back is None and _is_reverse(term, other, batch):
                directions[place] = (other, term)
                break
        else:
            directions.append((term, None))
    sides = {role: _side(role, recipe, batch, relations) for role in batch.points}
    terms = [_term(recipe, batch, relations, sides, *direction) for direction in directions]
    if relations is None or not recipe.metric.is_hyperbolic or recipe.contrast_of == "directions":
        factors, curv = torch.ones_like(batch.curv).expand(1).contiguous(), None
    else:
        factors, curv = 1 / relations.sqrt_c, relations.curv.contiguous()
        factors = factors / len(factors) if recipe.metric.distance == "l1_mean" else factors
    loss, values = blockwise.contrast(
        terms,
        form=_form(recipe),
        factor_weight=factors,
        reduce="l2" if recipe.metric.distance == "l2" else "sum",
        curv=curv,
    )
    for both, found in zip(directions, values, strict=True):
        for direction, value in zip(both, found, strict=True):
            if direction is not None:
                parts[f"contrast/{direction.query}-{direction.key}"] = value / direction.weight
    return loss


def _is_reverse(term: Contrast, other: Contrast, batch: Inputs) -> bool:
    """Return whether one block of similarities can serve both terms."""
    return (
        (term.query, term.key, term.scale) == (other.key, other.query, other.scale)
        and not (term.soften or other.soften)
        and batch.points[term.query].shape == batch.points[term.key].shape
        and batch.is_whole
    )


def _side(role: Role, recipe: Recipe, batch: Inputs, relations: Relations | None) -> Points:
    if relations is None or recipe.contrast_of == "directions":
        unit = normalize(batch.points[role], dim=-1).flatten(0, 1).unsqueeze(0)
        return Points(unit, unit.new_empty(0) if relations is None else unit.new_ones(unit.shape[:2]))
    return Points(relations.points[role].flatten(1, 2), relations.spread(role).flatten(1))


def _term(
    recipe: Recipe,
    batch: Inputs,
    relations: Relations | None,
    sides: Mapping[Role, Points],
    term: Contrast,
    back: Contrast | None,
) -> Term:
    query_boxes, key_boxes = batch.points[term.query].shape[1], batch.points[term.key].shape[1]
    boxes = max(query_boxes, key_boxes)
    rows = batch.rows(boxes)
    target = rows if key_boxes == boxes else rows // boxes
    query, key = _take(sides[term.query], query_boxes, boxes, batch), sides[term.key]
    scale = batch.scales[term.scale]
    if relations is None:
        own = scale * torch.linalg.vecdot(query.rows[0], key.rows[0, target])
    else:
        if term.soften:
            softened = torch.exp(-relations.uncertainty(term.query)[batch.local].detach() / 2).to(scale.dtype)
            scale = scale * softened.expand(-1, boxes).flatten()
        chord = recipe.contrast_of == "directions"
        apart = (relations.chord if chord else relations.distance)(term.query, term.key)
        own = -(scale * apart[:, :boxes].flatten()).to(scale.dtype)
    shares = batch.shares(term.query, term.key).flatten()
    return Term(
        query,
        key,
        own,
        scale.expand(len(rows)).contiguous(),
        target,
        term.weight * shares,
        _bars(
            batch,
            term.query,
            term.key,
            rows,
            boxes,
            duplicates=recipe.skip_duplicates,
            related=recipe.skip_related,
        ),
        None if back is None else back.weight * shares,
    )


def _form(recipe: Recipe) -> Form:
    if recipe.contrast_of == "directions":
        return "euclidean"
    match recipe.metric.geometry:
        case "lorentz" | "product":
            return "lorentz"
        case "sphere":
            return "dot"
        case "euclidean":
            return "squared" if recipe.metric.distance == "squared" else "euclidean"


def _take(side: Points, own_boxes: int, boxes: int, batch: Inputs) -> Points:
    """Return the local rows of a side, repeated where a whole is to meet every box of its sample."""
    if own_boxes == boxes and batch.is_whole:
        return side

    def take(x: Tensor) -> Tensor:
        x = x.reshape(x.shape[0], batch.size, own_boxes, *x.shape[2:])[:, batch.local]
        return x.expand(-1, -1, boxes, *x.shape[3:]).flatten(1, 2)

    return Points(take(side.rows), take(side.h) if side.h.numel() else side.h)


def _bars(
    batch: Inputs, query_role: Role, key_role: Role, rows: Tensor, boxes: int, *, duplicates: bool, related: bool
) -> Bars:
    """Return the keys that are no candidates: missing ones, and duplicates and relatives of the right one."""
    query, key = batch.points[query_role], batch.points[key_role]
    row_ids: list[Tensor] = []
    key_ids: list[Tensor] = []
    for role in (query_role, key_role):
        if not duplicates or role not in batch.content:
            continue
        ids = batch.content[role]
        own = ids.expand(-1, boxes).flatten()[rows]
        if role == key_role or query.shape[1] <= key.shape[1]:
            columns = [ids.expand(-1, key.shape[1]).flatten()]
        else:
            columns = list(ids.unbind(1))
        row_ids += [own] * len(columns)
        key_ids += columns
    if related and query.shape[1] == key.shape[1]:
        for role in {query_role, key_role} & batch.ancestors.keys():
            ids, above = batch.content[role].flatten(), batch.ancestors[role].flatten(0, 1).unbind(1)
            row_ids += [*(torch.where(up == MISSING, _NO_QUERY, up)[rows] for up in above), *[ids[rows]] * len(above)]
            key_ids += [*[ids] * len(above), *(torch.where(up == MISSING, _NO_KEY, up) for up in above)]
    none = torch.empty(0, dtype=torch.int64, device=batch.device)
    absent = [
        torch.empty(0, dtype=torch.bool, device=batch.device)
        if role not in batch.content and (role not in BOX_ROLES or batch.box_weight is None)
        else ~batch.present(role).flatten()
        for role in (key_role, query_role)
    ]
    return Bars(
        torch.stack(row_ids) if row_ids else none.view(0, 0),
        torch.stack(key_ids) if key_ids else none.view(0, 0),
        absent[0],
        absent[1] if query.shape[1] == key.shape[1] and len(absent[1]) == len(rows) else absent[1][:0],
    )


def _radial(recipe: Recipe, batch: Inputs, relations: Relations, parts: dict[str, Tensor]) -> Tensor:
    """Return the weighted sum of the terms that give radii their meaning."""
    found: list[tuple[float, str, Tensor]] = []
    for term in recipe.entail:
        boxes = max(batch.points[role].shape[1] for role in (term.general, term.specific))
        rows = batch.rows(boxes)
        bars = _bars(batch, term.general, term.specific, rows, boxes, duplicates=True, related=True)
        value = radial.entail(term, recipe, batch, relations, bars)
        found.append((term.weight, f"entail/{term.general}-{term.specific}", value))
    for level in recipe.lineage:
        found.append((level.weight, f"lineage/{level.specific}", lineage(level, recipe, batch)))
    for pair in recipe.order:
        found.append(
            (pair.weight, f"order/{pair.general}-{pair.specific}", radial.order(pair, recipe, batch, relations))
        )
    for held in recipe.anchors:
        found.append((held.weight, f"anchor/{held.role}", radial.anchor(held, recipe, batch, relations)))
    total = batch.curv.new_zeros(())
    for weight, name, value in found:
        parts[name] = value.detach()
        total = total + weight * value
    return total


def _edges(recipe: Recipe, batch: Inputs, relations: Relations | None, parts: dict[str, Tensor]) -> Tensor:
    """Return the weighted sum of the entailment terms."""
    assert relations is not None
    penalties = _penalties(recipe.edges, relations.angles(), relations.apertures(recipe.min_radius), relations)
    shares = [batch.shares(edge.general, edge.specific, distinct=True) for edge in recipe.edges]
    boxes = penalties.shape[-1]
    padded = torch.stack([torch.nn.functional.pad(share, (0, boxes - share.shape[1])) for share in shares])
    values = (penalties.mean(1) * padded).sum((1, 2))
    total = (values * _numbers([edge.weight for edge in recipe.edges], values)).sum()
    for edge, share, value, found in zip(
        recipe.edges, shares, values.detach().to(padded.dtype), penalties.detach(), strict=True
    ):
        parts[f"entail/{edge.general}-{edge.specific}"] = value
        if edge.calibration:
            term = _calibration(edge, found.mean(0), share, batch, relations)
            parts[f"calibrate/{edge.general}-{edge.specific}"] = term.detach().to(share.dtype)
            total = total + edge.calibration * term
    return total.to(padded.dtype)


def _numbers(values: Sequence[float], like: Tensor) -> Tensor:
    """Return numbers as a tensor beside `like`, filled there: a copy from the host would wait for the device."""
    return torch.stack([like.new_full((), value) for value in values])


def _penalties(edges: Sequence[Edge], angles: Tensor, apertures: Tensor, relations: Relations) -> Tensor:
    """Return the penalty of each pair of each edge, (E, F, B', N)."""

    def column(values: list[float]) -> Tensor:
        return _numbers(values, angles).view(-1, 1, 1, 1)

    excess = angles - column([edge.eta for edge in edges]) * apertures
    penalties = torch.where(excess <= 0, 0, excess)  # a NaN stays one
    if any(edge.angle_weight for edge in edges):
        penalties = penalties + column([edge.angle_weight for edge in edges]) * angles
    if all(edge.penalty == "cone" and edge.huber is None for edge in edges):
        return penalties
    rows = list(penalties)
    for place, edge in enumerate(edges):
        if edge.penalty == "angle":
            rows[place] = angles[place]
        elif edge.penalty == "adaptive_angle":
            rows[place] = -torch.expm1(-relations.distance(edge.general, edge.specific)) * angles[place]
        if edge.huber is not None:
            rows[place] = torch.nn.functional.huber_loss(
                rows[place], torch.zeros_like(rows[place]), reduction="none", delta=edge.huber
            )
    return torch.stack(rows)


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
        n = relations.lengths(term.role).clamp(min=1e-6)
        lowest = 0.5 + 0.5 * torch.log(n.new_full((), 2.0))
        value = batch.total(n.square() - n.log() - lowest, batch.shares(term.role))
        parts[f"{term.kind}/{term.role}"] = value.detach().to(batch.curv.dtype)
        total.append(term.weight * value)
    return torch.stack(total).sum().to(batch.curv.dtype)
