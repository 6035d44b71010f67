"""Conversion of points to and from geoopt and HypLL, which come with the extra `interop`; nothing else imports them.

Everywhere in hypclip x are space components and the sectional curvature is −c. The others differ:

- geoopt `Lorentz(k)` has k = 1/c and points of D + 1 components, the time component first.
- geoopt `PoincareBall` and HypLL `PoincareBall` keep c as the softplus of a parameter: HypLL's `Curvature(1.0)` is
  c = 1.3133. The parameter is set here to the inverse of the softplus, in the dtype of the points, since their
  constructors round it to float32 (HypLL), overflow at c = 88 in float32 (geoopt) or write into the tensor they are
  given (geoopt).

A manifold made here holds a constant copy of c: gradients flow through the points and not into `curv`. On the way back
they flow into the points and into a curvature that the manifold learns. A ball tangent v at the origin is the Lorentz
tangent 2v. A ball keeps little of a far float32 point (see `poincare`), and the operations of both libraries' balls
pull results beyond √c · radius 6.2 (float32) or 12.2 (float64) back to there.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Parameter

from hypclip.errors import InputError, MissingExtraError
from hypclip.geometry import lorentz, poincare
from hypclip.geometry.precision import Curv, as_curv, full_precision

_SOFTPLUS_LINEAR_FROM = 20.0
"""Above this value torch's softplus returns its argument."""
_OFF_MANIFOLD = 1e-3
"""Relative error of a time component above which points count as off the manifold."""
_ROUNDING = 1e-6
"""Relative difference up to which two curvatures count as equal."""


@full_precision
def to_geoopt(
    x: Float[Tensor, "*batch d"], curv: Curv, model: Literal["lorentz", "poincare"] = "lorentz"
) -> tuple[Tensor, Any]:
    """Return the points and the geoopt manifold they lie on: `Lorentz`, or `PoincareBall` for the model "poincare".

    Points of `Lorentz` have shape (..., D + 1), time first; points of `PoincareBall` have shape (..., D).

    Raises:
        InputError: curv is not one positive number, or the points are of half precision.
        MissingExtraError: geoopt is not installed.

    Numerics: the curvature of the manifold is c to 5e-7 in float32 and 1e-15 in float64, for c from 1e-3 to 100.
    """
    with _interop_extra():
        import geoopt
    c = _one_positive(as_curv(curv, x).detach())
    match model:
        case "lorentz":
            return torch.cat([lorentz.time_component(x, c), x], -1), geoopt.Lorentz(1 / c)
        case "poincare":
            ball = geoopt.PoincareBall()
            ball.isp_c = Parameter(_inverse_softplus(c), requires_grad=False)
            return poincare.from_lorentz(x, c), ball
        case _:
            raise InputError(f"model must be 'lorentz' or 'poincare', got {model!r}")


@full_precision
def from_geoopt(
    points: Float[Tensor, "*batch n"], manifold: Any
) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, ""]]:
    """Return (x, curv) of points on a geoopt `Lorentz` or `PoincareBall`, the inverse of `to_geoopt`.

    Raises:
        InputError: the manifold is another one, its curvature is not one positive number, or the points are not on it.
        MissingExtraError: geoopt is not installed.

    Numerics: x is taken from `Lorentz` as it is; from `PoincareBall`, see `poincare.to_lorentz`.
    """
    with _interop_extra():
        import geoopt
    match manifold:
        case geoopt.Lorentz():
            curv = _one_positive(1 / manifold.k.to(points))
            time, x = points[..., :1], points[..., 1:]
            expected = lorentz.time_component(x, curv)
            if not ((time - expected).abs() <= _OFF_MANIFOLD * expected).all():
                raise InputError(
                    "points are not on the hyperboloid of this manifold: the time component must come first"
                )
            return x, curv
        case geoopt.PoincareBall():
            return _from_ball(points, _one_positive(manifold.c.to(points)))
        case _:
            raise InputError(f"manifold must be a geoopt Lorentz or PoincareBall, got {type(manifold).__name__}")


@full_precision
def to_hypll(x: Float[Tensor, "*batch d"], curv: Curv, manifold: Any = None) -> Any:
    """Return the points as a HypLL `ManifoldTensor` on a `PoincareBall` of the same curvature.

    Args:
        x: space components on the hyperboloid.
        curv: c > 0.
        manifold: a `PoincareBall` of curvature −c to use instead of a new one. HypLL's layers take only points on the
            manifold object they were built with.

    Raises:
        InputError: curv is not one positive number or differs from the manifold's, or the points are of half precision.
        MissingExtraError: HypLL is not installed.

    Numerics: the curvature as for `to_geoopt`, the points as for `poincare.from_lorentz`.
    """
    with _interop_extra():
        from hypll.manifolds.poincare_ball import Curvature, PoincareBall
        from hypll.tensors import ManifoldTensor
    c = _one_positive(as_curv(curv, x).detach())
    if manifold is None:
        manifold = PoincareBall(Curvature())
        manifold.c.value = Parameter(_inverse_softplus(c), requires_grad=False)
    elif not torch.isclose(manifold.c().to(c), c, rtol=_ROUNDING, atol=0):
        raise InputError(
            f"curv is {c.item():g}, but the manifold has c = {manifold.c().item():g}: give points and manifold the same"
        )
    return ManifoldTensor(poincare.from_lorentz(x, c), manifold)


def from_hypll(tensor: Any) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, ""]]:
    """Return (x, curv) of a HypLL `ManifoldTensor` on a `PoincareBall`, its manifold dimension made the last one.

    Raises:
        InputError: no such tensor, a curvature that is not one positive number, or points outside the ball.
        MissingExtraError: HypLL is not installed.

    Numerics: see `poincare.to_lorentz`.
    """
    with _interop_extra():
        from hypll.manifolds.poincare_ball import PoincareBall
        from hypll.tensors import ManifoldTensor
    if not (isinstance(tensor, ManifoldTensor) and isinstance(tensor.manifold, PoincareBall)):
        raise InputError(f"tensor must be a HypLL ManifoldTensor on a PoincareBall, got {type(tensor).__name__}")
    points = tensor.tensor.movedim(tensor.man_dim, -1)
    return _from_ball(points, _one_positive(tensor.manifold.c().to(points)))


@contextlib.contextmanager
def _interop_extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(
            f"{error}: the library comes with an extra, run pip install 'hypclip[interop]'"
        ) from error


def _from_ball(p: Tensor, curv: Tensor) -> tuple[Tensor, Tensor]:
    x = poincare.to_lorentz(p, curv)
    if not x.isfinite().all():
        raise InputError(
            "points are not inside the ball of this manifold, |p| < 1/√c: keep far points on the hyperboloid"
        )
    return x, curv


def _one_positive(curv: Tensor) -> Tensor:
    if curv.numel() != 1 or not 0 < curv < math.inf:
        raise InputError(f"the curvature must be one positive number (c, or k = 1/c), got {curv.tolist()}")
    return curv.reshape(())


def _inverse_softplus(c: Tensor) -> Tensor:
    """Return z with softplus(z) = c, without the overflow of exp(c)."""
    return torch.where(c > _SOFTPLUS_LINEAR_FROM, c, c + torch.log(-torch.expm1(-c)))
