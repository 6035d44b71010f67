"""The space of a model, and the checks of its points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.errors import ConfigError, InputError
from hypclip.geometry.entailment import Cone, Entailment, Plane
from hypclip.geometry.precision import as_number
from hypclip.search.given import Vectors, as_vectors, as_whole, shown
from hypclip.search.limits import MAX_SINH_RADIUS
from hypclip.search.route import Route
from hypclip.search.rules import described, same_rule


def require_lorentz(model_id: str, geometry: str, what: str) -> None:
    """Refuse a model whose points have no radii and cones.

    Args:
        model_id: names the model in the message.
        geometry: of its embeddings.
        what: needs them, such as "an index".

    Raises:
        ConfigError: the geometry is not that of a hyperboloid of one curvature.
    """
    if geometry != "lorentz":
        raise ConfigError(
            f"model {model_id!r} has geometry {geometry!r}; {what} needs 'lorentz', because distances, radii and "
            "cones are those of hyperbolic space"
        )


@dataclass(frozen=True)
class Space:
    """The space of a model's points.

    Args:
        model_id: names the model.
        curv: c > 0.
        dim: D, the number of space components.
        revision: which weights of it, where the name does not say so already.
        entailment: what makes one point more general than another, as the model was trained: by default what searches
            by cones go by. The cones of MERU by default.
    """

    model_id: str
    curv: float
    dim: int
    revision: str = ""
    entailment: Entailment = Cone()  # noqa: RUF009, it is frozen

    def __post_init__(self) -> None:
        for name in ("model_id", "revision"):
            if not isinstance(getattr(self, name), str):
                raise InputError(f"{name} must be a string, got {shown(getattr(self, name))}")
        object.__setattr__(self, "curv", as_number(self.curv, "curv"))
        object.__setattr__(self, "dim", as_whole(self.dim, "dim"))
        if not (math.isfinite(self.curv) and self.curv > 0):
            raise InputError(f"curv must be positive and finite (the sectional curvature is −curv), got {self.curv}")
        if self.dim < 1:
            raise InputError(f"dim must be at least 1, got {self.dim}")
        if not isinstance(self.entailment, Cone | Plane):
            raise InputError(f"entailment of a space must be a Cone or a Plane, got {shown(self.entailment)}")

    def __str__(self) -> str:
        return self._named("")

    def beside(self, other: Space) -> str:
        """Name the space, and its rule of entailment where that is not the other's."""
        same = same_rule(self.entailment, other.entailment)
        return self._named("" if same else f", entailment by {described(self.entailment)}")

    def _named(self, rule: str) -> str:
        revision = f"revision {self.revision[:12]}, " if self.revision else ""
        return f"model {self.model_id!r} ({revision}curv {self.curv:.6g}, {self.dim} dimensions{rule})"

    def same_as(self, other: Space) -> bool:
        """Tell whether points of both can be compared; exp(log c) may differ in the last bits between machines."""
        same_curv = math.isclose(self.curv, other.curv, rel_tol=1e-6)
        same_name = self.model_id == other.model_id and self.revision == other.revision
        return same_name and self.dim == other.dim and same_curv and same_rule(self.entailment, other.entailment)

    def check_points(self, x: Tensor) -> None:
        """Refuse what is no point of this space.

        Args:
            x: space components (..., D).

        Raises:
            InputError: wrong dtype or length, NaN or infinite, or too far out for float32.
        """
        if x.dtype not in (torch.float32, torch.float64):
            raise InputError(f"points must be float32 or float64, got {x.dtype}")
        if x.shape[-1] != self.dim:
            raise InputError(f"an embedding of {self} has {self.dim} space components, got {x.shape[-1]}")
        if x.dim() and len(x) and x.numel() == self.dim and x.device.type == "cpu":
            # A query: torch takes longer to begin than to compute.
            one = x.detach().numpy().reshape(-1).astype(np.float64, copy=False)
            if np.abs(one).max() <= 1e150 and math.sqrt(self.curv * float(one @ one)) <= MAX_SINH_RADIUS:
                return
        if not torch.isfinite(x).all():
            raise InputError("an embedding has components that are NaN or infinite")
        sinh = math.sqrt(self.curv) * torch.linalg.vector_norm(x.double(), dim=-1)
        if bool((sinh > MAX_SINH_RADIUS).any()):
            raise InputError(
                f"an embedding lies at radius {math.asinh(float(sinh.max())) / math.sqrt(self.curv):.4g}; "
                f"float32 points are told apart up to {math.asinh(MAX_SINH_RADIUS) / math.sqrt(self.curv):.4g}"
            )

    def point(self, given: Vectors, what: str = "a query") -> Float[Tensor, " d"]:
        """Return one point of this space, in float64 on the CPU.

        Raises:
            InputError: it is none, or several; the message begins with `what`.
        """
        x = as_vectors(given, what)
        if x.dim() != 1:
            raise InputError(f"{what} must have shape (D,), got {tuple(x.shape)}: give one row, x[0]")
        self.check_points(x)
        return x.cpu().double()

    def points(self, given: Vectors, what: str = "queries") -> Float[Tensor, "n d"]:
        """Return points of this space, in float64 on the CPU.

        Raises:
            InputError: they are none, or one; the message begins with `what`.
        """
        x = as_vectors(given, what)
        if x.dim() != 2:
            raise InputError(f"{what} must have shape (N, D), got {tuple(x.shape)}: give one as x[None]")
        self.check_points(x)
        return x.cpu().double()

    def check_route(self, route: Route) -> None:
        """Refuse a way through another space.

        Raises:
            InputError: it is no route, its curvature differs, or an end is no point of this space.
        """
        if not isinstance(route, Route):
            raise InputError(f"a route is a Route, such as Route(x, curv), got {shown(route)}")
        if not math.isclose(route.curv, self.curv, rel_tol=1e-6):
            raise InputError(f"a route of curv {route.curv:.6g} does not lie in the space of {self}")
        self.check_points(torch.stack([route.start, route.target]))
