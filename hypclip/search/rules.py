"""Rules of entailment as stores keep, compare and name them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from hypclip.errors import InputError
from hypclip.geometry.entailment import Cone, Entailment, Plane
from hypclip.geometry.precision import as_number

_FORMS: dict[str, type[Cone] | type[Plane]] = {"cone": Cone, "plane": Plane}


def as_entry(rule: Entailment) -> dict[str, Any]:
    """Return a rule as JSON holds it, every number of it."""
    return {field.name: getattr(rule, field.name) for field in fields(rule)}


def as_text(rule: Entailment) -> str:
    """Return a rule as JSON."""
    return json.dumps(as_entry(rule))


def of_entry(entry: object) -> Entailment:
    """Return the rule that was kept.

    Raises:
        InputError: it is none that this version of hypclip knows.
    """
    form = entry.get("form") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(form, str) or form not in _FORMS:
        raise InputError(f"the rule of entailment {entry!r} is none of the forms {', '.join(_FORMS)}")
    wanted = {field.name for field in fields(_FORMS[form])}
    if entry.keys() != wanted or not isinstance(entry["strict"], bool):
        raise InputError(f"the rule of entailment {dict(entry)!r} has not the entries {', '.join(sorted(wanted))}")
    if form == "plane":
        return Plane(as_number(entry["threshold"], "threshold of a plane"), entry["strict"])
    eta, min_radius = (as_number(entry[name], f"{name} of a cone") for name in ("eta", "min_radius"))
    return Cone(eta, min_radius, entry["strict"])


def of_text(text: str) -> Entailment:
    """Return the rule that was kept as JSON.

    Raises:
        InputError: it is none that this version of hypclip knows.
    """
    try:
        entry = json.loads(text)
    except ValueError as error:
        raise InputError(f"the rule of entailment {text!r} is no JSON: {error}") from error
    return of_entry(entry)


def same_rule(one: Entailment, other: Entailment) -> bool:
    """Tell whether two rules are one; numbers may differ in the last bits, as those of a curvature may."""
    if isinstance(one, Plane) and isinstance(other, Plane):
        numbers = [(one.threshold, other.threshold)]
    elif isinstance(one, Cone) and isinstance(other, Cone):
        numbers = [(one.eta, other.eta), (one.min_radius, other.min_radius)]
    else:
        return False
    close = all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9) for a, b in numbers)
    return close and one.strict == other.strict


def described(rule: Entailment) -> str:
    """Return the rule in words, for messages."""
    loose = "" if rule.strict else ", not strict"
    if isinstance(rule, Plane):
        return f"half-spaces of threshold {rule.threshold:.9g}{loose}"
    return f"cones of eta {rule.eta:.9g} and min_radius {rule.min_radius:.9g}{loose}"
