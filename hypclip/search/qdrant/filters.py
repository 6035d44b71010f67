"""Filters of Qdrant with the meaning of a `Where`.

The definition is `where.matches`. Qdrant tells numbers, truth values and strings apart as JSON does, looks
into lists one level deep, and never into objects. Three things need care. Its exact match knows no floats, so a number
is asked for as a range from itself to itself. Its integer index forgets 1.0, so numbers are indexed as floats. And it
compares integers as float64, so that beyond 2^53 neighbours fall together: there bounds are widened, and the client
decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from qdrant_client import models

from hypclip.search.where import (
    MAX_INTEGER,
    Condition,
    Equal,
    Scalar,
    Where,
    Within,
    check_where,
    is_number,
)

FieldType = Literal["keyword", "integer", "float", "bool"]
"""Type of the values of an indexed metadata field."""


def conditions(where: Where) -> list[models.Condition]:
    """Return the conditions of a filter; other points than those of `where` pass only where `is_decisive` is false."""
    check_where(where)
    found = [_condition(field_key(name), condition) for name, condition in where.conditions.items()]
    if where.modality is not None:
        found.append(equals("modality", where.modality))
    if where.by_radius:
        found.append(between("radius", float(where.min_radius), float(where.max_radius)))
    return found


def is_decisive(where: Where) -> bool:
    """Tell whether the conditions alone decide, so that the engine can count."""
    check_where(where)
    return not any(abs(number) >= MAX_INTEGER for c in where.conditions.values() for number in _numbers(c))


def field_key(name: str) -> str:
    """Return the path of a metadata field, whatever characters it has but quotes and backslashes."""
    return f"metadata.{name}" if all(sign.isalnum() or sign in "_-" for sign in name) else f'metadata."{name}"'


def field_index(kind: FieldType) -> models.PayloadSchemaType:
    """Return the index of a metadata field that leaves the meaning of conditions as it is."""
    return models.PayloadSchemaType("float" if kind == "integer" else kind)


def equals(key: str, value: str | int) -> models.FieldCondition:
    """Return the condition that a string or an integer of our own is this one."""
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def one_of(key: str, values: list[int]) -> models.FieldCondition:
    """Return the condition that an integer of our own is one of these."""
    return models.FieldCondition(key=key, match=models.MatchAny(any=values))


def between(key: str, low: float, high: float) -> models.FieldCondition:
    """Return the condition that a number lies within bounds, which may be infinite."""
    bounds = models.Range(gte=low if low > -math.inf else None, lte=high if high < math.inf else None)
    return models.FieldCondition(key=key, range=bounds)


def all_of(found: Sequence[models.Condition]) -> models.Filter | None:
    """Return the filter that all conditions hold."""
    return models.Filter(must=list(found)) if found else None


def _condition(key: str, condition: Condition) -> models.Condition:
    match condition:
        case Within(bounds):
            return models.FieldCondition(key=key, range=models.Range(**dict(_widened(*bound) for bound in bounds)))
        case Equal(values):
            choices = _choices(key, values)
            return choices[0] if len(choices) == 1 else models.Filter(should=choices)


def _choices(key: str, values: tuple[Scalar, ...]) -> list[models.Condition]:
    found: list[models.Condition] = []
    if strings := [value for value in values if isinstance(value, str)]:
        found.append(models.FieldCondition(key=key, match=models.MatchAny(any=strings)))
    for value in values:
        if value is None:
            found.append(models.FieldCondition(key=key, is_null=True))
        elif isinstance(value, bool):
            found.append(models.FieldCondition(key=key, match=models.MatchValue(value=value)))
        elif not isinstance(value, str):
            found.append(between(key, float(value), float(value)))
    return found


def _widened(kind: str, limit: float) -> tuple[str, float]:
    return (kind if abs(limit) < MAX_INTEGER else kind[:2] + "e", limit)


def _numbers(condition: Condition) -> list[float]:
    match condition:
        case Within(bounds):
            return [limit for _, limit in bounds]
        case Equal(values):
            return [float(value) for value in values if isinstance(value, (int, float)) and is_number(value)]
