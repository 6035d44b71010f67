"""Sources of taxonomies: names, JSON files, lists of edges."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from hypclip.errors import DataError, first_few
from hypclip.files import read_text, user_path
from hypclip.taxonomy.emoji import emoji_edges
from hypclip.taxonomy.graph import Edge, Taxonomy

NAMES = ("emoji", "emoji-held-out")
"""Taxonomies that come with the package; the second has the fifth of the emoji's names that the first leaves out."""


def load_taxonomy(source: str | Path | Sequence[Sequence[str]]) -> Taxonomy:
    """Return a taxonomy by name, from a JSON file [["child", "parent"], ...], or from such edges.

    Raises:
        DataError: no such name or file, other content, or edges that `Taxonomy` refuses.
    """
    if not isinstance(source, str | Path):
        return Taxonomy(_checked(source, "the taxonomy"))
    if str(source) in NAMES:
        return Taxonomy(emoji_edges(held_out=str(source) == "emoji-held-out"))
    path = user_path(str(source))
    if not path.is_file():
        raise DataError(f"there is no taxonomy {str(source)!r}: expected a JSON file, or one of {', '.join(NAMES)}")
    try:
        edges = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read a taxonomy from {path}: {error}") from error
    try:
        return Taxonomy(_checked(edges, str(path)))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _checked(edges: object, where: str) -> list[Edge]:
    if not isinstance(edges, list | tuple):
        raise DataError(f'{where} must hold is-a edges [["child", "parent"], ...], got {type(edges).__name__}')
    wrong = [
        edge
        for edge in edges
        if not (
            isinstance(edge, list | tuple) and len(edge) == 2 and all(isinstance(p, str) and p.strip() for p in edge)
        )
    ]
    if wrong:
        raise DataError(
            f'{where} must hold is-a edges [["child", "parent"], ...], got {first_few(list(map(repr, wrong)))}'
        )
    return [(child, parent) for child, parent in edges]
