"""Checks of arguments that all stores share."""

from __future__ import annotations

import re
from typing import get_args

from hypclip.errors import InputError
from hypclip.geometry.entailment import Cone, Plane
from hypclip.geometry.precision import as_number
from hypclip.search.given import as_whole, shown
from hypclip.search.types import OrderBy, Points, Side


def check_page(k: int, offset: int) -> None:
    """Refuse an empty page, and one before the first.

    Raises:
        InputError: k is below 1 or the offset negative, or one of them is no whole number.
    """
    as_whole(k, "k")
    as_whole(offset, "offset")
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    if offset < 0:
        raise InputError(f"offset must be 0 or more, got {offset}")


def as_distance(value: object) -> float:
    """Return a distance as a float.

    Raises:
        InputError: it is no number, or below 0.
    """
    distance = as_number(value, "distance")
    if not distance >= 0:
        raise InputError(f"distance must be 0 or more, got {distance}")
    return distance


def check_cone(cone: object) -> None:
    """Refuse what is neither a `Cone` nor a `Plane`, such as an eta alone.

    Raises:
        InputError: the message says how to write it.
    """
    if not isinstance(cone, Cone | Plane):
        raise InputError(
            f"a cone is a Cone, such as Cone(eta=0.7), or a Plane, such as Plane(threshold=0.1), got {shown(cone)}"
        )


def check_cone_search(side: object, cone: object, order_by: object) -> None:
    """Check the arguments of a search by cones.

    Raises:
        InputError: one of them is none; the message lists the choices.
    """
    for name, value, known in (("side", side, get_args(Side)), ("order_by", order_by, get_args(OrderBy))):
        if not isinstance(value, str) or value not in known:
            raise InputError(f"{name} must be one of {', '.join(known)}, got {shown(value)}")
    check_cone(cone)


def check_points(points: object) -> None:
    """Refuse what is no `Points`.

    Raises:
        InputError: the message says how to write it.
    """
    if not isinstance(points, Points):
        raise InputError(f"what is written are Points(ids, vectors, modality, metadata), got {shown(points)}")


def check_rows(rows: int) -> None:
    """Refuse blocks of no rows.

    Raises:
        InputError: it is below 1, or no whole number.
    """
    if as_whole(rows, "rows") < 1:
        raise InputError(f"rows must be at least 1, got {rows}")


def check_name(name: str) -> None:
    """Refuse what is no name of a collection: a name is part of file names and URLs.

    Raises:
        InputError: other characters than letters, digits, dot, underscore and hyphen, or more than 64 of them.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise InputError(
            f"a collection is named by up to 64 letters, digits, dots, underscores and hyphens, got {name!r}"
        )
