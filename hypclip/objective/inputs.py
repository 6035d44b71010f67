"""The arguments of an objective, validated: all that it needs of a batch is there, of one shape, and in range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from hypclip.errors import InputError
from hypclip.geometry.precision import as_curv, is_readable
from hypclip.objective.recipe import Recipe
from hypclip.roles import BOX_ROLES, CONCEPT, MISSING, Role

Scale = Tensor | float


class Concepts(NamedTuple):
    """Phrases of a taxonomy that stand beside a batch: points (C, D), ids (C,), levels (C,), ids of ancestors (C, A).

    `counts` (C,) is False for what is missing, and for a phrase that stands further up already.
    """

    points: Tensor
    ids: Tensor
    levels: Tensor
    ancestors: Tensor
    counts: Tensor


class Inputs(NamedTuple):
    """Checked arguments: points (B, n, D), contents (B, n) and ids of ancestors (B, n, A) by role, n = 1 or N."""

    points: dict[Role, Tensor]
    curv: Tensor
    scales: dict[str, Tensor]
    content: dict[str, Tensor]
    box_weight: Tensor | None
    local: slice
    processes: float
    ancestors: dict[str, Tensor]
    concepts: Concepts | None

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        features: Mapping[str, Tensor],
        curv: Tensor | float,
        logit_scale: Scale | Mapping[str, Scale],
        content: Mapping[str, Tensor],
        box_weight: Tensor | None,
        local: slice | None,
        ancestors: Mapping[str, Tensor] | None = None,
        levels: Tensor | None = None,
    ) -> Inputs:
        """Validate and normalise the arguments of `Objective.__call__`.

        Raises:
            InputError: one is missing, of the wrong shape or type, or out of range.
        """
        if missing := recipe.roles - features.keys():
            raise InputError(f"features lack {sorted(missing)}, which the recipe needs; got {sorted(features)}")
        roles = sorted(recipe.roles)
        shapes = {role: tuple(features[role].shape) for role in roles}
        sizes = {(s[:1], s[1:][-1:]) for s in shapes.values()}
        boxes = {s[1] for role, s in shapes.items() if role in BOX_ROLES and len(s) == 3}
        flat = {role for role, s in shapes.items() if len(s) == 2}
        if len(sizes) > 1 or len(boxes) > 1 or not flat >= set(roles) - BOX_ROLES or (flat & BOX_ROLES and boxes):
            raise InputError(
                f"features must be (B, D), of one shape for every role, or for box roles (B, N, D), got {shapes}"
            )
        size, count = shapes[roles[0]][0], boxes.pop() if boxes else 1
        if any(0 in shape for shape in shapes.values()):
            raise InputError(f"features are empty: {shapes}")
        for role in roles:
            if features[role].dtype not in (torch.float32, torch.float64):
                raise InputError(
                    f"features[{role!r}] must be float32 or float64, got {features[role].dtype}: "
                    "cast the features before the scale and the lift"
                )
        if len({features[role].dtype for role in roles}) > 1:
            raise InputError(f"features must be of one dtype, got { {r: features[r].dtype for r in roles} }")
        points = {r: features[r] if features[r].dim() == 3 else features[r].unsqueeze(1) for r in roles}
        like = points[roles[0]]
        if not isinstance(logit_scale, Mapping):
            logit_scale = dict.fromkeys(recipe.scales, logit_scale)
        if unknown := recipe.scales.keys() - logit_scale.keys():
            raise InputError(f"logit_scale lacks {sorted(unknown)}, which the recipe names; got {sorted(logit_scale)}")
        scales = {name: _positive(logit_scale[name], like, name) for name in recipe.scales}
        if not recipe.roles & BOX_ROLES:
            box_weight = None
        if box_weight is not None:
            if tuple(box_weight.shape) != (size, count):
                raise InputError(f"box_weight must have shape {(size, count)}, got {tuple(box_weight.shape)}")
            box_weight = box_weight.to(like)
            if is_readable(box_weight) and not bool(((box_weight >= 0) & box_weight.isfinite()).all()):
                raise InputError("box_weight must be finite and not negative")
            held = (box_weight > 0).unsqueeze(-1)
            points = {r: torch.where(held, x, 0) if r in BOX_ROLES else x for r, x in points.items()}
        ids: dict[str, Tensor] = {}
        for name in roles:
            if name not in content:
                continue
            rows = content[name]
            if not isinstance(rows, Tensor) or rows.dtype != torch.int64:
                raise InputError(
                    f"content[{name!r}] must be an int64 tensor of ids, got {getattr(rows, 'dtype', rows)}"
                )
            shape = (size, count) if name in BOX_ROLES else (size, 1)
            ids[name] = rows.unsqueeze(1) if rows.dim() == 1 else rows
            if tuple(ids[name].shape) != shape:
                wanted = shape if name in BOX_ROLES and count > 1 else shape[:1]
                raise InputError(f"content[{name!r}] must have shape {wanted}, got {tuple(rows.shape)}")
            if name in BOX_ROLES and box_weight is not None:
                ids[name] = torch.where(box_weight > 0, ids[name], MISSING)
        local = slice(*(local or slice(None)).indices(size))
        if local.step != 1:
            raise InputError(f"local must be rows in sequence, got {local}")
        if local.stop <= local.start:
            raise InputError(f"local must hold at least one of the {size} rows, got {local}")
        processes = size / (local.stop - local.start)
        ancestors = ancestors or {}
        above = {str(name): _ancestors(name, ancestors[name], ids) for name in roles if name in ancestors}
        concepts = _concepts(features, content, ancestors, levels, like) if recipe.uses_taxonomy else None
        return cls(points, as_curv(curv, like), scales, ids, box_weight, local, processes, above, concepts)

    @property
    def device(self) -> torch.device:
        """Device of the points."""
        return self.curv.device

    @property
    def size(self) -> int:
        """Number of samples B, of all processes."""
        return next(iter(self.points.values())).shape[0]

    @property
    def is_whole(self) -> bool:
        """True if this process owns the terms of all samples."""
        return self.local == slice(0, self.size, 1)

    def rows(self, boxes: int) -> Tensor:
        """Return the indices of this process's rows, (B' · n,), among the rows of all samples with `boxes` each."""
        indices = torch.arange(self.size * boxes, device=self.device).view(self.size, boxes)
        return indices[self.local].flatten()

    def present(self, *roles: Role) -> Tensor:
        """Return a mask of the rows of all samples that have all of these roles, (B, n)."""
        boxes = max(self.points[role].shape[1] for role in roles)
        first = self.points[roles[0]]
        present = torch.ones(first.shape[0], boxes, dtype=torch.bool, device=first.device)
        for role in roles:
            if role in self.content:
                present = present & (self.content[role] != MISSING)
            if role in BOX_ROLES and self.box_weight is not None:
                present = present & (self.box_weight > 0)
        return present

    def shares(self, *roles: Role, distinct: bool = False, among: Tensor | None = None) -> Tensor:
        """Return the weight of each local row, (B', n), such that a weighted sum is this process's share of the mean.

        The rows of a sample share its weight in proportion to `box_weight`; samples without any are left out. With
        `distinct`, so are rows whose first two roles have equal content; `among` (B, n) masks the rows that count.
        """
        if not self.content and self.box_weight is None and among is None:
            boxes = max(self.points[role].shape[1] for role in roles)
            rows = self.local.stop - self.local.start
            return self.curv.new_full((rows, boxes), 1 / (rows * boxes))
        valid = self.present(*roles)
        if distinct and all(role in self.content for role in roles[:2]):
            valid = valid & (self.content[roles[0]] != self.content[roles[1]])
        if among is not None:
            valid = valid & among
        weight = valid.to(self.curv)
        if valid.shape[1] > 1 or (self.box_weight is not None and BOX_ROLES & set(roles)):
            weight = weight if self.box_weight is None else weight * self.box_weight
            total = weight.sum(1, keepdim=True)
            weight = weight / torch.where(total > 0, total, 1)
        samples = valid.any(1).sum().clamp(min=1).to(weight)
        return weight[self.local] * (self.processes / samples)

    def total(self, values: Tensor, shares: Tensor) -> Tensor:
        """Return the weighted sum over rows of values (F, B', N), averaged over factors."""
        return (values[..., : shares.shape[1]].mean(0) * shares).sum()


def _ancestors(role: str, rows: Tensor, content: Mapping[str, Tensor]) -> Tensor:
    """Return the ids of what stands above the texts of a role, (B, n, A)."""
    if role not in content or rows.dtype != torch.int64 or rows.shape[:-1].numel() != content[role].numel():
        raise InputError(
            f"ancestors[{role!r}] must be int64 ids of shape (B, A) or (B, N, A) beside content[{role!r}], got "
            f"{rows.dtype} of shape {tuple(rows.shape)}"
        )
    found = rows.view(*content[role].shape, -1)
    return torch.where((content[role] != MISSING).unsqueeze(-1), found, MISSING)


def _concepts(
    features: Mapping[str, Tensor],
    content: Mapping[str, Tensor],
    ancestors: Mapping[str, Tensor],
    levels: Tensor | None,
    like: Tensor,
) -> Concepts | None:
    """Return the phrases of the taxonomy, if any are there."""
    if CONCEPT not in features:
        return None
    points = features[CONCEPT]
    if points.dim() != 2 or points.shape[1] != like.shape[-1] or points.dtype != like.dtype:
        raise InputError(
            f"features['concept'] must be (C, {like.shape[-1]}) in {like.dtype}, as the others are, got "
            f"{tuple(points.shape)} in {points.dtype}"
        )
    ids, above = content.get(CONCEPT), ancestors.get(CONCEPT)
    count = len(points)
    if ids is None or above is None or levels is None or {len(ids), len(above), len(levels)} != {count}:
        raise InputError(f"the {count} rows of features['concept'] need an id, a level and ancestors each")
    first = ((ids.unsqueeze(1) == ids) & (ids != MISSING)).int().argmax(1)
    counts = (ids != MISSING) & (first == torch.arange(count, device=ids.device))
    return Concepts(points, ids, levels, above, counts)


def _positive(value: Scale, like: Tensor, name: str) -> Tensor:
    """Return a scale as a tensor of the dtype and device of `like`; refuse one that is not positive and finite."""
    if isinstance(value, Tensor) and value.numel() != 1:
        raise InputError(f"{name} must be one number, got shape {tuple(value.shape)}")
    if not isinstance(value, Tensor) or is_readable(value):
        number = float(value.detach() if isinstance(value, Tensor) else value)
        if not torch.compiler.is_compiling() and not 0 < number < math.inf:
            raise InputError(f"{name} must be positive and finite, got {number}")
    return value.to(like).view(()) if isinstance(value, Tensor) else like.new_full((), value)
