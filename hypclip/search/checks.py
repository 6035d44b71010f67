"""What every store refuses before it looks for anything: arguments that would mean another search, or none."""

from __future__ import annotations

import re
from typing import get_args

from hypclip.errors import InputError
from hypclip.geometry.entailment import Cone, Plane
from hypclip.geometry.precision import as_number
from hypclip.search.given import as_whole, shown
from hypclip.search.types import Order, Points, Side


def check_page(limit: int, offset: int) -> None:
    """Refuse an empty page, and one before the first.

    Raises:
        InputError: the limit is below 1 or the offset negative, or one of them is no whole number.
    """
    as_whole(limit, "k, or the limit of a page,")
    as_whole(offset, "offset")
    if limit < 1:
        raise InputError(f"k, or the limit of a page, must be at least 1, got {limit}")
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


def check_cone_search(side: object, cone: object, order: object) -> None:
    """Refuse a search by cones that would be another than was meant.

    Raises:
        InputError: one of them is not what it should be; the message has what it may be.
    """
    for name, value, known in (("side", side, get_args(Side)), ("order", order, get_args(Order))):
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
