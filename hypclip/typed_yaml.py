"""YAML that keeps the values of text settings as the user spelled them: 007, 2024-01-01, {a,b}/0.tar.

Numbers are the ones that people mean: 010 is ten.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hypclip.errors import ConfigError

_NULLS = ("", "null", "Null", "NULL")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MISREAD = re.compile(r"[-+]?(0[0-7_]+|[0-9_]+(:[0-5]?[0-9])+(\.[0-9_]*)?)")
"""Numbers that are others in YAML than people mean: 010 is 8 there, 1:30 is 90. As texts they are 10, and no number."""
_NULL_TAG = "tag:yaml.org,2002:null"


def quote_texts(text: str, kind: Any) -> str:
    """Return a YAML document with quotes around the plain values of settings that are texts or paths.

    And around numbers that YAML reads otherwise than people do.

    What is no YAML comes back as it is, for its reader to say so.

    Args:
        text: the document.
        kind: the type of the whole, such as a dataclass.
    """
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError:
        return text
    edits: dict[int, tuple[int, str]] = {}
    _collect(node, _members(kind), text, edits)
    for start, (end, quoted) in sorted(edits.items(), reverse=True):
        text = text[:start] + quoted + text[end:]
    return text


def quote_override(override: str, kind: Any) -> str:
    """Return an override `a.b=value` with quotes around a value that is a text or a path.

    Args:
        override: as the user typed it.
        kind: the type of the whole config.

    Raises:
        ConfigError: a text that is a mapping in YAML, or whose quotes or brackets do not close.
    """
    key, _, value = override.partition("=")
    value = value.strip()
    kinds = _members(kind)
    for part in key.split("."):
        kinds = _child(kinds, part)
    if not _is_text(kinds):
        return f"{key}={quote_texts(value, typing.Union[tuple(kinds)])}" if kinds else override  # noqa: UP007
    if value in _NULLS or (value == "~" and type(None) in kinds):
        return override
    found = _constructed(value)
    is_list = isinstance(found, list) and value[0] == "[" and bool(_elements(kinds))
    if is_list or (isinstance(found, dict) and _takes_mappings(kinds)):
        return f"{key}={quote_texts(value, typing.Union[tuple(kinds)])}"  # noqa: UP007
    if found is None and _elements(kinds) and (several := _split(value)):
        return f"{key}=[{', '.join(map(_quoted, several))}]"
    if value[0] in "'\"":
        broken = not isinstance(found, str)
    elif value[0] == "[":
        broken = found is None and "]" not in value
    elif value[0] == "{":
        broken = found is None and "}" not in value
    else:
        broken = isinstance(found, dict) and ":" in value
    if broken:
        raise ConfigError(
            f"{key}: {value} is no text without quotes in YAML: put it in double quotes, and the whole in single ones, "
            f"'{key}=\"{value.strip(chr(34))}\"'"
        )
    return override if value[0] in "'\"" else f"{key}={_quoted(value)}"


def _collect(node: Any, kinds: list[Any], text: str, edits: dict[int, tuple[int, str]]) -> None:
    """Note which plain scalars to quote: start → end, and the value in quotes."""
    if isinstance(node, yaml.ScalarNode) and _is_text(kinds):
        is_null = node.tag == _NULL_TAG and (node.value != "~" or type(None) in kinds)
        if not is_null:
            _note(node, text, edits)
    elif isinstance(node, yaml.ScalarNode) and {int, float} & {*kinds} and _MISREAD.fullmatch(node.value):
        _note(node, text, edits)
    elif isinstance(node, yaml.SequenceNode):
        for inside in node.value:
            _collect(inside, _elements(kinds), text, edits)
    elif isinstance(node, yaml.MappingNode):
        for name, inside in node.value:
            if isinstance(name, yaml.ScalarNode):
                if any(map(_is_mapping, kinds)):
                    _note(name, text, edits)
                _collect(inside, _child(kinds, name.value), text, edits)


def _note(node: yaml.ScalarNode, text: str, edits: dict[int, tuple[int, str]]) -> None:
    start, end = node.start_mark.index, node.end_mark.index
    written = text[start:end]
    bare = written == node.value or (written.startswith("&") and written.endswith(node.value))  # behind an anchor
    if not node.style and bare and node.value not in ("", "<<"):
        edits[end - len(node.value)] = (end, _quoted(node.value))


def _constructed(value: str) -> Any:
    """Return a value as YAML reads it; None where it is not valid YAML."""
    try:
        return yaml.load(value, Loader=_LOADER)  # noqa: S506  it is a safe one
    except (yaml.YAMLError, ValueError):
        return None


def _split(value: str) -> list[str]:
    """Return the texts of a list such as [a/{0..9}.tar, b/*.tar], which is no YAML list; [] if it is no list at all."""
    texts, depth = [""], 0
    for place, letter in enumerate(value):
        depth += (letter in "[{") - (letter in "]}")
        if depth == 0 and place < len(value) - 1:
            return []  # a pattern that begins with a set of letters, or no bracket at all
        if depth == 1 and letter == ",":
            texts.append("")
        else:
            texts[-1] += letter
    texts[0], texts[-1] = texts[0][1:], texts[-1][:-1]
    return [text.strip() for text in texts] if value.endswith("]") and len(texts) > 1 else []


def _quoted(value: str) -> str:
    escaped = value.replace("'", "''")
    return f"'{escaped}'"


def _members(kind: Any) -> list[Any]:
    """Return the types of a union, or the one."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _members(typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        return [member for one in typing.get_args(kind) for member in _members(one)]
    return [kind]


def _child(kinds: Sequence[Any], name: str) -> list[Any]:
    """Return the types that a setting may have, by its name inside settings of these types; none if it is unknown."""
    found: list[Any] = []
    for kind in kinds:
        if dataclasses.is_dataclass(kind):
            hint = typing.get_type_hints(kind).get(name)
            found += _members(hint) if hint is not None else []
        elif _is_mapping(kind):
            found += _members(typing.get_args(kind)[1])
    return found


def _elements(kinds: Sequence[Any]) -> list[Any]:
    lists = [kind for kind in kinds if issubclass(typing.get_origin(kind) or object, Sequence)]
    return [member for kind in lists for member in _members(typing.get_args(kind)[0])]


def _takes_mappings(kinds: Sequence[Any]) -> bool:
    return any(dataclasses.is_dataclass(kind) or _is_mapping(kind) for kind in kinds)


def _is_mapping(kind: Any) -> bool:
    return issubclass(typing.get_origin(kind) or object, Mapping)


def _is_text(kinds: Sequence[Any]) -> bool:
    return any(kind in (str, Path) for kind in kinds) and not any(kind in (int, float, bool, Any) for kind in kinds)
