"""Terms that give a radius its meaning: entailment with negatives, the order of two roles, and where a level lies."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from hypclip.geometry import entailment, planes
from hypclip.geometry.entailment import Cone
from hypclip.objective.blockwise import Bars
from hypclip.objective.inputs import Inputs
from hypclip.objective.recipe import Recipe
from hypclip.objective.regions import Form, outside
from hypclip.objective.relations import Relations
from hypclip.objective.terms import Anchor, Entail, Order
from hypclip.roles import CONCEPT, SPOKEN, Role

MOST_NEGATIVES = 128
"""How many specific points a general one is compared with; of a larger batch, every so-manieth."""


def entail(term: Entail, recipe: Recipe, batch: Inputs, relations: Relations, bars: Bars) -> Tensor:
    """Return the value of one entailment term; `bars` are the specific points that a general one may entail besides."""
    score = relations.score(recipe.rule, term.general, term.specific)[0]
    shares = batch.shares(term.general, term.specific, distinct=True)
    value = (softplus(-term.scale * score)[:, : shares.shape[1]] * shares).sum().to(shares.dtype)
    if not term.negatives:
        return value
    general, specific = batch.points[term.general], batch.points[term.specific]
    boxes = max(general.shape[1], specific.shape[1])
    rows = batch.rows(boxes)
    target = rows if specific.shape[1] == boxes else rows // boxes
    form, offset, sides, radii = _rows(recipe, batch, relations, term.general, term.specific)
    own = rows if general.shape[1] == boxes else rows // boxes  # the general point of each row
    places = torch.arange(0, len(sides[1]), -(-len(sides[1]) // MOST_NEGATIVES), device=batch.device)
    some = bars._replace(
        key_ids=bars.key_ids[:, places] if bars.key_ids.numel() else bars.key_ids,
        absent=bars.absent[places] if bars.absent.numel() else bars.absent,
    )
    negatives = outside(
        sides[0][own],
        sides[1][places],
        form=form,
        offset=offset[own],
        scale=shares.new_full((), term.scale),
        weight=shares.flatten(),
        target=target,
        bars=some,
        places=places,
        general_radius=None if radii is None else radii[0][own],
        specific_radius=None if radii is None else radii[1][places],
    )
    return value + term.negatives * negatives


def _rows(
    recipe: Recipe, batch: Inputs, relations: Relations, general: Role, specific: Role
) -> tuple[Form, Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor] | None]:
    """Return the form of the negatives, the offset of each general point, the rows of both sides, and their radii."""
    rule, hyperbolic = recipe.rule, recipe.metric.is_hyperbolic
    x, y = (batch.points[role].flatten(0, 1) for role in (general, specific))
    if not isinstance(rule, Cone):
        offset = x.new_full((len(x),), -rule.threshold)
        if hyperbolic:
            return "plane", offset, (planes.as_general(x, batch.curv), planes.as_specific(y, batch.curv)), None
        unit, length = _unit(x)
        flat = torch.cat([unit, -length], 1), torch.nn.functional.pad(y, (0, 1), value=1.0)
        return "flat_plane", offset, flat, None
    radii = tuple(relations.radii(role).flatten().to(x.dtype) for role in (general, specific))
    norms = relations.norms_of(general).flatten()
    offset = (rule.eta * entailment.half_aperture(rule, norms, hyperbolic)).to(x.dtype)
    return "cone" if hyperbolic else "flat_cone", offset, (_unit(x)[0], _unit(y)[0]), (radii[0], radii[1])


def _unit(x: Tensor) -> tuple[Tensor, Tensor]:
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / length.clamp(min=torch.finfo(x.dtype).tiny), length


def order(term: Order, recipe: Recipe, batch: Inputs, relations: Relations) -> Tensor:
    """Return the mean excess by which the general points of pairs lie too far out."""
    if term.general == CONCEPT:
        return _order_of_concepts(term, recipe, batch, relations)
    general, specific = (relations.radii(role)[0][batch.local] for role in (term.general, term.specific))
    shares = batch.shares(term.general, term.specific, distinct=True)
    excess = (general - specific + term.margin).clamp(min=0).to(shares.dtype)
    return (excess[:, : shares.shape[1]] * shares).sum()


def _order_of_concepts(term: Order, recipe: Recipe, batch: Inputs, relations: Relations) -> Tensor:
    """Return the same for phrases of the taxonomy and their descendants, averaged over the ancestors of each."""
    concepts, spoken = batch.concepts, SPOKEN.get(term.specific, term.specific)
    if concepts is None or (spoken != CONCEPT and spoken not in batch.ancestors):
        return batch.curv.new_zeros(())
    rho_general = _rho(concepts.points, recipe, batch)
    whole = concepts.ancestors if spoken == CONCEPT else batch.ancestors[spoken]
    held = ((whole.unsqueeze(-1) == concepts.ids) & concepts.counts).any(-2)  # (…, C)
    if spoken == CONCEPT:
        rho, among = rho_general, held.any(-1) & concepts.counts
        shares = among / among.sum().clamp(min=1)
    else:
        rho = relations.radii(term.specific)[0][batch.local].to(rho_general.dtype)
        shares = batch.shares(term.specific, spoken, among=held.any(-1))
        held = held[batch.local]
    excess = (rho_general - rho.unsqueeze(-1) + term.margin).clamp(min=0)
    cost = (excess * held).sum(-1) / held.sum(-1).clamp(min=1)
    return torch.sum(cost * shares)


def _rho(points: Tensor, recipe: Recipe, batch: Inputs) -> Tensor:
    radius = recipe.metric.radius(points, batch.curv)
    return radius * batch.curv.sqrt() if recipe.metric.is_hyperbolic else radius


def anchor(term: Anchor, recipe: Recipe, batch: Inputs, relations: Relations) -> Tensor:
    """Return the mean squared difference between the radii of a role's points and the radius they should have."""
    if term.role == CONCEPT:
        concepts = batch.concepts
        if concepts is None:
            return batch.curv.new_zeros(())
        off = (_rho(concepts.points, recipe, batch) - term.radius).square()
        return torch.sum(off * concepts.counts) / concepts.counts.sum().clamp(min=1)
    shares = batch.shares(term.role)
    off = (relations.radii(term.role)[0][batch.local] - term.radius).square().to(shares.dtype)
    return (off[:, : shares.shape[1]] * shares).sum()
