"""Checks of what requests and models give: numbers of values, components of points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.errors import InputError
from hypclip.search import Space
from serve.errors import LimitExceeded


def given_points(given: Mapping[int, Sequence[float]], space: Space) -> Float[Tensor, "n d"]:
    """Return points that a request gives by their components, float32.

    Args:
        given: components by the index of the item, which messages name.
        space: of the points.

    Raises:
        InputError: they are no points of this space.
    """
    for i, embedding in given.items():
        if len(embedding) != space.dim:
            raise InputError(
                f"the embedding at index {i} has {len(embedding)} numbers; "
                f"points of {space} have {space.dim} space components"
            )
    vectors = torch.tensor(list(given.values()), dtype=torch.float64)
    space.check_points(vectors)
    return vectors.float()


def check_count(what: str, values: Sequence[Any], limit: int, setting: str) -> None:
    """Refuse more values than a setting allows.

    Raises:
        LimitExceeded: there are.
    """
    if len(values) > limit:
        raise LimitExceeded(what, len(values), limit, setting)


def finite(points: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Check that the model returned no NaN, which is the failure of the server and not of the client."""
    if not np.isfinite(points.numpy()).all():
        raise ArithmeticError("the model returned an embedding with components that are NaN or infinite")
    return points
