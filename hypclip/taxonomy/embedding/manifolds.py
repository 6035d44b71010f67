"""The spaces that trees are embedded in: two models of hyperbolic space of curvature −1, and flat space beside them.

A batch compares rows x (B, ·) with candidates y (C, ·). A space gives a `measure` that grows with their distance d,
cosh d or d², and for a matrix of derivatives by it the gradients of rows and candidates, as products of matrices: no
(B, C, D) array exists.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Manifold(Protocol):
    """A space whose points are rows of a matrix of `width(dim)` columns."""

    def width(self, dim: int) -> int:
        """Return the number of columns of points of D dimensions."""
        ...

    def start(self, v: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        """Return the points of tangent vectors at the origin, of lengths far below 1."""
        ...

    def measure(self, x: Float[Tensor, "b w"], y: Float[Tensor, "c w"]) -> Float[Tensor, "b c"]:
        """Return the measure of every distance."""
        ...

    def falloff(self, measure: Float[Tensor, "*batch"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Return e^−d and the derivative of d by the measure, bounded where two points are in one place."""
        ...

    def gradients(
        self, x: Float[Tensor, "b w"], y: Float[Tensor, "c w"], by: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b w"], Float[Tensor, "c w"]]:
        """Return the derivatives by the columns of x and of y, given those by `measure(x, y)`."""
        ...

    def paired(self, x: Float[Tensor, "p w"], y: Float[Tensor, "p w"]) -> Float[Tensor, " p"]:
        """Return the measures of the distances of x[i] and y[i]."""
        ...

    def paired_gradients(
        self, x: Float[Tensor, "p w"], y: Float[Tensor, "p w"], by: Float[Tensor, " p"]
    ) -> tuple[Float[Tensor, "p w"], Float[Tensor, "p w"]]:
        """Return the derivatives by the columns of x and of y, given those by `paired(x, y)`."""
        ...

    def descend(
        self, x: Float[Tensor, "n w"], gradient: Float[Tensor, "n w"], rate: float, max_radius: float
    ) -> Float[Tensor, "n w"]:
        """Return the points after a step of Riemannian gradient descent, of length at most 1, within a radius."""
        ...

    def space(self, x: Float[Tensor, "n w"]) -> Float[Tensor, "n d"]:
        """Return the space components on the hyperboloid, or the coordinates of flat space."""
        ...


class _Hyperbolic:
    """What both models share: the measure is cosh d."""

    def falloff(self, measure: Tensor) -> tuple[Tensor, Tensor]:
        """Return e^−d = 1 / (cosh d + sinh d), and 1 / sinh d."""
        sinh = (measure * measure - 1).clamp_(min=_LEAST).sqrt_()
        return 1 / (measure + sinh), 1 / sinh


class Lorentz(_Hyperbolic):
    """The hyperboloid: a time component, then D space components. Steps go along geodesics."""

    def width(self, dim: int) -> int:
        """Return D + 1."""
        return dim + 1

    def start(self, v: Tensor) -> Tensor:
        """Return points near the origin."""
        return _lift(v)

    def measure(self, x: Tensor, y: Tensor) -> Tensor:
        """Return −⟨x, y⟩."""
        return (x[:, :1] * y[:, 0] - x[:, 1:] @ y[:, 1:].T).clamp_(min=1)

    def gradients(self, x: Tensor, y: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
        """Return the derivatives, which are those of an inner product."""
        return _flip(by @ y), _flip(by.T @ x)

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """Return −⟨x[i], y[i]⟩."""
        return (x[:, 0] * y[:, 0] - (x[:, 1:] * y[:, 1:]).sum(1)).clamp_(min=1)

    def paired_gradients(self, x: Tensor, y: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
        """Return the derivatives, which are those of an inner product."""
        return _flip(by[:, None] * y), _flip(by[:, None] * x)

    def descend(self, x: Tensor, gradient: Tensor, rate: float, max_radius: float) -> Tensor:
        """Return exp_x(−rate · h), h the gradient with its time component turned and made tangent to x."""
        h = torch.cat([-gradient[:, :1], gradient[:, 1:]], 1)
        h = h + (h[:, 1:] * x[:, 1:]).sum(1, keepdim=True).sub_(h[:, :1] * x[:, :1]) * x
        length = rate * (h[:, 1:].square().sum(1) - h[:, 0].square()).clamp_(min=0).sqrt_()
        step = length.clamp(max=1)
        factor = rate * torch.where(length > 0, torch.sinh(step) / length, 1)
        space = torch.cosh(step)[:, None] * x[:, 1:] - factor[:, None] * h[:, 1:]
        farthest = torch.sinh(torch.tensor(max_radius, dtype=x.dtype))
        return _lift(space * (farthest / space.norm(dim=1, keepdim=True)).clamp_(max=1))

    def space(self, x: Tensor) -> Tensor:
        """Return the space components."""
        return x[:, 1:]


class Ball(_Hyperbolic):
    """The Poincaré ball: D coordinates. Steps are straight lines, the retraction of Nickel & Kiela (2017)."""

    def width(self, dim: int) -> int:
        """Return D."""
        return dim

    def start(self, v: Tensor) -> Tensor:
        """Return points near the origin, where a tangent vector of the hyperboloid is twice as long."""
        return v / 2

    def measure(self, x: Tensor, y: Tensor) -> Tensor:
        """Return 1 + 2 |x − y|² / ((1 − |x|²)(1 − |y|²))."""
        return (2 * _squared(x, y) / _room(x)[:, None] / _room(y)).add_(1)

    def gradients(self, x: Tensor, y: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
        """Return the derivatives: 4 / (a b) · (x − y + |x − y|² / a · x) by x, where a = 1 − |x|² and b = 1 − |y|²."""
        a, b = _room(x), _room(y)
        weight = 4 * by / a[:, None] / b
        far = weight * _squared(x, y)
        by_x = (weight.sum(1) + far.sum(1) / a)[:, None] * x - weight @ y
        by_y = (weight.sum(0) + far.sum(0) / b)[:, None] * y - weight.T @ x
        return by_x, by_y

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """Return 1 + 2 |x − y|² / ((1 − |x|²)(1 − |y|²)) of each pair."""
        return 1 + 2 * (x - y).square().sum(1) / (_room(x) * _room(y))

    def paired_gradients(self, x: Tensor, y: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
        """Return the derivatives, as `gradients` of each pair."""
        a, b = _room(x), _room(y)
        weight, apart = 4 * by / (a * b), x - y
        far = apart.square().sum(1)
        by_x = weight[:, None] * (apart + (far / a)[:, None] * x)
        by_y = weight[:, None] * ((far / b)[:, None] * y - apart)
        return by_x, by_y

    def descend(self, x: Tensor, gradient: Tensor, rate: float, max_radius: float) -> Tensor:
        """Return x − rate · ((1 − |x|²)² / 4) · gradient."""
        room = _room(x)[:, None]
        step = rate * room.square() / 4 * gradient
        length = 2 / room * step.norm(dim=1, keepdim=True)
        moved: Tensor = x - step / (2 * length).clamp(
            min=1
        )  # of length 1, one outwards near the rim would double the radius
        farthest = torch.tanh(torch.tensor(max_radius / 2, dtype=x.dtype))
        moved *= (farthest / moved.norm(dim=1, keepdim=True)).clamp_(max=1)
        return moved

    def space(self, x: Tensor) -> Tensor:
        """Return 2 x / (1 − |x|²)."""
        return 2 * x / _room(x)[:, None]


class Flat:
    """Flat space: D coordinates. The measure is d²."""

    def width(self, dim: int) -> int:
        """Return D."""
        return dim

    def start(self, v: Tensor) -> Tensor:
        """Return points near the origin."""
        return v.clone()

    def measure(self, x: Tensor, y: Tensor) -> Tensor:
        """Return |x − y|²."""
        return _squared(x, y)

    def falloff(self, measure: Tensor) -> tuple[Tensor, Tensor]:
        """Return e^−d, and 1 / 2 d."""
        d = measure.clamp(min=_LEAST).sqrt_()
        return torch.exp(-d), 0.5 / d

    def gradients(self, x: Tensor, y: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
        """Return the derivatives, 2 (x − y) by x."""
        return 2 * (by.sum(1)[:, None] * x - by @ y), 2 * (by.sum(0)[:, None] * y - by.T @ x)

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """Return |x − y|² of each pair."""
        return (x - y).square().sum(1)

    def paired_gradients(self, x: Tensor, y: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
        """Return the derivatives, as `gradients` of each pair."""
        by_x = 2 * by[:, None] * (x - y)
        return by_x, -by_x

    def descend(self, x: Tensor, gradient: Tensor, rate: float, max_radius: float) -> Tensor:
        """Return x − rate · gradient; there is room for any radius."""
        step = rate * gradient
        moved: Tensor = x - step / step.norm(dim=1, keepdim=True).clamp(min=1)
        return moved

    def space(self, x: Tensor) -> Tensor:
        """Return the coordinates."""
        return x


_LEAST = 1e-12
"""Least square of a distance: the gradient of two points in one place has no direction."""


def _lift(space: Tensor) -> Tensor:
    return torch.cat([(1 + space.square().sum(1, keepdim=True)).sqrt_(), space], 1)


def _flip(gradient: Tensor) -> Tensor:
    gradient[:, 1:].neg_()
    return gradient


def _room(x: Tensor) -> Tensor:
    return 1 - x.square().sum(1)


def _squared(x: Tensor, y: Tensor) -> Tensor:
    squared: Tensor = torch.addmm(x.square().sum(1)[:, None] + y.square().sum(1), x, y.T, alpha=-2)
    return squared.clamp_(min=0)
