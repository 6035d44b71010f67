"""Taxonomies in files that people write: JSON, tables of edges, and indented text."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from hypclip.errors import DataError, first_few
from hypclip.files import read_text
from hypclip.taxonomy.graph import Edge

_HEADERS = ({"child", "parent"}, {"id1", "id2"}, {"source", "target"})


def read_json(path: Path) -> list[Edge]:
    """Return the edges of [["child", "parent"], ...], or of a tree from its roots: {"animal": {"dog": ["poodle"]}}.

    Raises:
        DataError: other content.
    """
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"cannot read a taxonomy from {path}: {error}") from error
    except RecursionError as error:
        raise DataError(f"cannot read a taxonomy from {path}: it is nested too deeply") from error
    return _tree(content, str(path)) if isinstance(content, dict) else checked(content, str(path))


def read_table(path: Path) -> list[Edge]:
    """Return the edges of a table, comma or tab between child and parent; further columns, and a header, are skipped.

    Raises:
        DataError: a line has one column, or an empty one.
    """
    text = read_text(path)
    rows = list(csv.reader(text.splitlines(), delimiter="\t" if "\t" in text.partition("\n")[0] else ","))
    if rows and {cell.strip().lower() for cell in rows[0][:2]} in _HEADERS:
        rows = [[], *rows[1:]]
    edges: list[Edge] = []
    for number, row in enumerate(rows, 1):
        if not row or row[0].startswith("#"):
            continue
        if len(row) < 2 or not (row[0].strip() and row[1].strip()):
            raise DataError(f"{path}, line {number}: expected a child and its parent, got {','.join(row)!r}")
        edges.append((row[0], row[1]))
    return edges


def read_indented(path: Path) -> list[Edge]:
    """Return the edges of lines of which each stands below the nearest line before it that is indented less.

    Raises:
        DataError: a line is indented like none before it.
    """
    edges: list[Edge] = []
    above: list[tuple[int, str]] = []
    for number, line in enumerate(read_text(path).expandtabs(4).splitlines(), 1):
        phrase = line.strip().removeprefix("- ").strip()
        if not phrase:
            continue
        indent = len(line) - len(line.lstrip())
        while above and above[-1][0] > indent:
            left = above.pop()[0]
            if left > indent and (not above or above[-1][0] < indent):
                raise DataError(f"{path}, line {number}: {phrase!r} is indented like no line before it")
        if above and above[-1][0] == indent:
            above.pop()
        if above:
            edges.append((phrase, above[-1][1]))
        above.append((indent, phrase))
    return edges


def checked(edges: object, where: str) -> list[Edge]:
    """Return is-a edges as pairs of texts.

    Raises:
        DataError: they are something else; the message says where, and shows the first few.
    """
    if not isinstance(edges, list | tuple):
        raise DataError(f'{where} must hold is-a edges [["child", "parent"], ...], got {type(edges).__name__}')
    wrong = [edge for edge in edges if not _is_edge(edge)]
    if wrong:
        raise DataError(
            f'{where} must hold is-a edges [["child", "parent"], ...], got {first_few(list(map(repr, wrong)))}'
        )
    return [(child, parent) for child, parent in edges]


def _is_edge(edge: object) -> bool:
    return isinstance(edge, list | tuple) and len(edge) == 2 and all(isinstance(p, str) and p.strip() for p in edge)


def _tree(content: dict[str, Any], where: str) -> list[Edge]:
    edges: list[Edge] = []
    waiting: list[tuple[str, Any]] = list(content.items())
    while waiting:
        parent, below = waiting.pop()
        match below:
            case dict():
                children = list(below.items())
            case list() if all(isinstance(child, str) for child in below):
                children = [(child, None) for child in below]
            case None:
                children = []
            case _:
                raise DataError(
                    f'{where} must hold is-a edges [["child", "parent"], ...], or a tree {{"animal": {{"dog": '
                    f'["poodle"]}}}}; below {parent!r} it has {below!r}'
                )
        if blank := [parent for name in (parent, *dict(children)) if not name.strip()]:
            raise DataError(f"{where}: a name at or below {blank[0]!r} is empty")
        edges += [(child, parent) for child, _ in children]
        waiting += children
    return edges
