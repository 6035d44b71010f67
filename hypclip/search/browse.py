"""Browsing: the points of a collection in order, by id and by key, and what their metadata hold."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from hypclip.errors import InputError
from hypclip.search.checks import check_page
from hypclip.search.given import shown
from hypclip.search.where import ANYTHING, Modality, Scalar, Where

Order = Literal["id", "radius"]
"""Order of a listing: by id, or most general first."""

MAX_VALUES_LISTED = 20
MAX_FIELDS_LISTED = 256
MAX_SAMPLE = 100_000
"""Most points whose metadata are read to describe the fields of a collection."""

_MAX_DISTINCT = 10_000
_MAX_VALUE_CHARS = 200


@dataclass(frozen=True)
class Listed:
    """A stored point without its vector.

    `key` is its number in the contents of the collection, see VectorStore.contents; None in a store that has not read
    these yet. `radius` is its distance from the origin.
    """

    id: str
    key: int | None
    radius: float
    modality: Modality
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Listing:
    """A page of the points that meet some conditions: `total` counts them all; `next` is None on the last page."""

    points: list[Listed]
    next: str | None
    total: int


@dataclass(frozen=True)
class FieldSummary:
    """What the points of a collection have in one field of their metadata.

    Args:
        name: of the field.
        count: how many points have it.
        values: the most frequent values and how many points have each, most frequent first; of a list every element
            counts. Empty where `distinct` is None, and without texts of over 200 characters.
        distinct: how many different values there are; None where there are over 10,000.
        min: the least number, None where there is no number.
        max: the greatest one.
    """

    name: str
    count: int
    values: list[tuple[Scalar, int]]
    distinct: int | None
    min: float | int | None
    max: float | int | None


@dataclass(frozen=True)
class Fields:
    """The fields of a collection, those of the most points first, at most 256.

    `sampled` is how many points were looked at where that is not all of them; the counts are then of these.
    """

    fields: list[FieldSummary]
    sampled: int | None


@runtime_checkable
class Browser(Protocol):
    """Reader of one collection, of which it sees every write. Calls block and may come from several threads."""

    def page(self, order: Order = "id", after: str | None = None, k: int = 100, where: Where = ANYTHING) -> Listing:
        """Return the next k points that meet the conditions.

        A walk from page to page gives every point once that is there all the time.

        Args:
            order: "radius" is by distance from the origin, then by id; "id" by id, or in the fixed order of a store
                that cannot sort by id.
            after: `next` of the page before; None for the first page.
            k: at least 1.
            where: which points.

        Raises:
            InputError: k is below 1, or `after` is of no page of this order.
            UnknownField: the filter names a field that no point has.
        """
        ...

    def by_ids(self, ids: Sequence[str]) -> list[Listed]:
        """Return the points that exist, in any order."""
        ...

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return which of the ids there are points of."""
        ...

    def by_keys(self, keys: Sequence[int]) -> list[Listed]:
        """Return the points that exist, in any order."""
        ...

    def modalities(self) -> dict[Modality, int]:
        """Count the points by modality."""
        ...

    def fields(self) -> Fields:
        """Describe the fields of the metadata."""
        ...


def check_listing(order: object, k: int) -> None:
    """Check the arguments of a listing.

    Raises:
        InputError: the order is none of `Order`, or k is below 1.
    """
    if order not in get_args(Order):
        raise InputError(f"order must be one of {', '.join(get_args(Order))}, got {shown(order)}")
    check_page(k, 0)


def to_cursor(order: Order, *place: str | float) -> str:
    """Write the place of the last point of a page as a string without white space or signs of URLs."""
    return base64.urlsafe_b64encode(json.dumps([order, *place]).encode()).decode().rstrip("=")


def of_cursor(order: Order, cursor: str, *kinds: type) -> list[Any]:
    """Read what `to_cursor` wrote: values of these types.

    Raises:
        InputError: it is of another order, or no cursor at all.
    """
    try:
        found = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        json.dumps(found, ensure_ascii=False).encode()  # which no lone surrogate can be
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or [type(value) for value in found] != [str, *kinds]:
        raise InputError(f"after must be the `next` of the page before, got {shown(cursor)}")
    if found[0] != order:
        raise InputError(f"after is of a page in the order {found[0]!r}, and this is one in the order {order!r}")
    return found[1:]


def rounded(radius: float) -> float:
    """Return a radius to 12 digits, for sorting: copies of a point may differ in the last bit."""
    return float(f"{radius:.12e}")


class FieldCounter:
    """Counter of the values that points have in the fields of their metadata."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._values: dict[str, Counter[tuple[bool, Scalar]] | None] = {}
        self._bounds: dict[str, tuple[float | int, float | int]] = {}

    def add(self, metadata: Iterable[Mapping[str, Any]]) -> None:
        """Count some points."""
        columns: dict[str, list[Any]] = {}
        for one in metadata:
            for name, value in one.items():
                columns.setdefault(name, []).append(value)
        for name, column in columns.items():
            self._counts[name] += len(column)
            self._count(name, column)

    def _count(self, name: str, column: list[Any]) -> None:
        """Count the values of a field, those of lists once a point; objects are nothing that a filter compares."""
        scalars = [value for value in column if not isinstance(value, list | dict)]
        for value in column:
            if isinstance(value, list):
                scalars += {(isinstance(v, bool), v): v for v in value if not isinstance(v, list | dict)}.values()
        truths, plain = [v for v in scalars if isinstance(v, bool)], [v for v in scalars if not isinstance(v, bool)]
        if numbers := [v for v in plain if isinstance(v, int | float)]:
            low, high = self._bounds.get(name, (numbers[0], numbers[0]))
            self._bounds[name] = min(low, *numbers), max(high, *numbers)
        values = self._values.setdefault(name, Counter())
        if values is not None:
            # With whether it is a truth value, which 1 is not.
            for is_truth, some in ((False, plain), (True, truths)):
                values.update({(is_truth, value): count for value, count in Counter(some).items()})
            if len(values) > _MAX_DISTINCT:
                self._values[name] = None

    def summaries(self) -> list[FieldSummary]:
        """Return what was counted."""
        return [self._summary(name, count) for name, count in self._counts.most_common(MAX_FIELDS_LISTED)]

    def _summary(self, name: str, count: int) -> FieldSummary:
        values = self._values[name]
        low, high = self._bounds.get(name, (None, None))
        if values is None:
            return FieldSummary(name, count, [], None, low, high)
        short = [
            (value, times)
            for (_, value), times in values.items()
            if not isinstance(value, str) or len(value) <= _MAX_VALUE_CHARS
        ]
        short.sort(key=lambda pair: (-pair[1], str(pair[0])))
        return FieldSummary(name, count, short[:MAX_VALUES_LISTED], len(values), low, high)
