"""Filters: conditions on metadata, modality and radius that mean the same in every store.

A filter names metadata fields, and every one of them must hold:

    {"source": "camera"}                      equal; a string, a number, true, false or null
    {"year": {"gte": 2020, "lt": 2024}}       a number within bounds: gt, gte, lt, lte
    {"animal": ["dog", "cat", None]}          equal to any of these

A field is a key at the top of the metadata. 1 equals 1.0 but not true; null equals null but not a missing field. A
metadata value that is a list holds where any of its elements does; an object never does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, TypeGuard, get_args

import numpy as np

from hypclip.errors import InputError
from hypclip.geometry.precision import as_number
from hypclip.search.given import shown

Modality = Literal["text", "image", "embedding"]
"""What a point was made from; "embedding" for a raw vector of no declared modality."""

MODALITIES: tuple[Modality, ...] = get_args(Modality)

Scalar: TypeAlias = str | float | int | bool | None
BOUNDS = ("gt", "gte", "lt", "lte")
MAX_FIELDS = 32
MAX_VALUES = 1024
MAX_INTEGER = 2**53
"""Numbers are compared as float64; integers beyond this would not be exact."""


@dataclass(frozen=True)
class Equal:
    """The field has one of these values; a number stands for itself, never for a truth value."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Within:
    """The field is a number within all of these bounds: pairs such as ("gte", 2020)."""

    bounds: tuple[tuple[str, float], ...]


Condition: TypeAlias = Equal | Within


@dataclass(frozen=True)
class Where:
    """Conditions on the points that a search may return.

    Args:
        filter: conditions on metadata, as at the top of this module.
        modality: only points of this modality.
        min_radius: only points at least this far from the origin, in units of the space's distance.
        max_radius: only points at most this far from the origin.

    Raises:
        InputError: a condition that is none, or more of them than `MAX_FIELDS`; the message names the field.
    """

    filter: Mapping[str, Any] | None = None
    modality: Modality | None = None
    min_radius: float = 0.0
    max_radius: float = math.inf
    conditions: Mapping[str, Condition] = field(init=False)

    def __post_init__(self) -> None:
        given = {} if self.filter is None else self.filter
        if not isinstance(given, Mapping):
            raise InputError(f"a filter is a mapping such as {{'year': 2024}}, got {shown(given)}")
        if len(given) > MAX_FIELDS:
            raise InputError(f"a filter has at most {MAX_FIELDS} fields, got {len(given)}")
        conditions = {name: _condition(name, wanted) for name, wanted in given.items()}
        object.__setattr__(self, "conditions", MappingProxyType(conditions))
        if self.modality is not None:
            check_modality([self.modality])
        for name in ("min_radius", "max_radius"):
            object.__setattr__(self, name, as_number(getattr(self, name), name))
        if not 0 <= self.min_radius <= self.max_radius:
            raise InputError(
                f"a range of radii needs 0 ≤ min_radius ≤ max_radius, got {self.min_radius} and {self.max_radius}"
            )

    @property
    def by_radius(self) -> bool:
        """Whether radii are restricted."""
        return self.min_radius > 0 or math.isfinite(self.max_radius)


ANYTHING = Where()
"""Restricts nothing."""


def check_where(where: object) -> None:
    """Refuse what is no `Where`, such as the mapping that goes into one.

    Raises:
        InputError: the message says how to write it.
    """
    if not isinstance(where, Where):
        raise InputError(f"where must be a Where, such as Where({{'year': 2024}}, modality='text'), got {where!r:.80}")


def matches(metadata: Mapping[str, Any], conditions: Mapping[str, Condition]) -> bool:
    """Tell whether metadata meets every condition: the definition that the stores are held to."""
    return all(name in metadata and _holds(metadata[name], c) for name, c in conditions.items())


def check_modality(modality: Sequence[str]) -> None:
    """Refuse what is no modality.

    Raises:
        InputError: the message names the first.
    """
    for one in modality:
        if one not in MODALITIES:
            raise InputError(f"unknown modality {one!r}, expected one of {', '.join(MODALITIES)}")


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a JSON value is a number; true and false are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _holds(value: Any, condition: Condition) -> bool:
    if isinstance(value, list):
        return any(_holds(element, condition) for element in value if not isinstance(element, list))
    if isinstance(value, dict):
        return False
    match condition:
        case Equal(values):
            return any(value == wanted and isinstance(value, bool) == isinstance(wanted, bool) for wanted in values)
        case Within(bounds):
            return is_number(value) and all(_bounded(value, kind, limit) for kind, limit in bounds)


def _bounded(value: float | int, kind: str, limit: float) -> bool:
    match kind:
        case "gt":
            return value > limit
        case "gte":
            return value >= limit
        case "lt":
            return value < limit
        case _:
            return value <= limit


def _condition(name: str, wanted: Any) -> Condition:
    if not isinstance(name, str) or not name or not name.isprintable() or '"' in name or "\\" in name:
        raise InputError(f"a filter names metadata fields without quotes, backslashes or control signs, got {name!r}")
    if isinstance(wanted, np.generic | np.ndarray):
        wanted = wanted.tolist()
    if isinstance(wanted, Mapping):
        return _range(name, wanted)
    values = wanted if isinstance(wanted, Sequence) and not isinstance(wanted, str | bytes) else [wanted]
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    if not 0 < len(values) <= MAX_VALUES:
        raise InputError(f"filter on {name!r}: a list has 1 to {MAX_VALUES} values, got {len(values)}")
    for value in values:
        _check_scalar(name, value)
    return Equal(tuple(values))


def _range(name: str, wanted: Mapping[str, Any]) -> Within:
    if not wanted or not set(wanted) <= set(BOUNDS):
        raise InputError(
            f"filter on {name!r}: a range has some of {', '.join(BOUNDS)}, got {', '.join(map(str, wanted)) or '{}'}"
        )
    wanted = {kind: bound.item() if isinstance(bound, np.generic) else bound for kind, bound in wanted.items()}
    for bound in wanted.values():
        if not is_number(bound):
            raise InputError(f"filter on {name!r}: the bounds of a range are numbers, got {bound!r}")
        _check_scalar(name, bound)
    return Within(tuple((kind, float(limit)) for kind, limit in wanted.items()))


def _check_scalar(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, (str, float, int, bool)):
        raise InputError(f"filter on {name!r}: expected a string, a number, true, false or null, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"filter on {name!r}: numbers are finite, got {value}")
    if is_number(value) and abs(value) > MAX_INTEGER:
        raise InputError(f"filter on {name!r}: numbers are compared as float64, up to 2^53, got {value}")
    if isinstance(value, str) and "\0" in value:
        raise InputError(f"filter on {name!r}: a string with a NUL character cannot be compared, got {value!r}")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"filter on {name!r}: the string is not valid Unicode") from error
