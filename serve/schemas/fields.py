"""The fields that requests are made of, and the base of all requests."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from hypclip.search.types import nesting

MAX_NESTING = 8

_MAX_FIELDS = 64

_BLANK = r"\x09-\x0d\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Characters that `str.strip` removes; dialects of patterns differ in what white space is."""

_VISIBLE = rf"^[{_BLANK}]*[^{_BLANK}][\s\S]*$"


def limits(**keywords: str) -> dict[str, Any]:
    """Return the mark of a field whose JSON Schema has these keywords, with values that only a running server knows.

    `serve.http.openapi` puts them in: those of the settings of these names, and `dim` of the model.
    """
    return {"x-limits": keywords}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""Takes 10.0 for 10, as JSON Schema does, and JavaScript, which knows no other numbers."""


def _unicode(text: str) -> str:
    """Refuse lone surrogates, which JSON can escape but neither a tokenizer nor a response can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("the string is not valid Unicode") from error
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("the string is empty")
    return _unicode(text)


def _storable(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if nesting(metadata, MAX_NESTING + 1) > MAX_NESTING:
        raise ValueError(f"metadata is nested more than {MAX_NESTING} deep")
    _unicode(json.dumps(metadata, ensure_ascii=False))
    return metadata


Visible: TypeAlias = Annotated[
    str, Field(json_schema_extra={"minLength": 1, "pattern": _VISIBLE}), AfterValidator(_not_blank)
]

Text: TypeAlias = Annotated[Visible, Field(json_schema_extra=limits(maxLength="max_text_chars"))]

Flag: TypeAlias = Annotated[bool, Field(strict=True)]

Embedding: TypeAlias = Annotated[
    list[
        Annotated[
            float,
            Field(
                strict=True,
                allow_inf_nan=False,
                json_schema_extra=limits(minimum="min_component", maximum="max_component"),
            ),
        ]
    ],
    Field(
        fail_fast=True,
        min_length=1,
        json_schema_extra=limits(minItems="dim", maxItems="dim"),
        description="The D space components of a point of this model, as /embed returns them.",
    ),
]

PointId: TypeAlias = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_unicode)]

CollectionName: TypeAlias = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Letters, digits, dot, underscore and hyphen; at most 64.",
    ),
]

Metadata: TypeAlias = Annotated[dict[str, JsonValue], AfterValidator(_storable)]


class Schema(BaseModel):
    """Base of everything sent: unknown fields are refused, numbers are finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _has_few_fields(cls, value: Any) -> Any:
        # Each unknown field becomes an error of its own, a hundred times its size.
        if isinstance(value, dict) and len(value) > _MAX_FIELDS:
            raise ValueError(f"an object of {len(value):,} fields; there are at most {len(cls.model_fields)}")
        return value
