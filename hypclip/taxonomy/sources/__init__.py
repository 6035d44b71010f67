"""Sources of taxonomies: names, files of several formats, folders, lists of edges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hypclip.errors import DataError
from hypclip.files import user_path
from hypclip.taxonomy import wordnet
from hypclip.taxonomy.graph import Edge, Taxonomy
from hypclip.taxonomy.sources import folders, ontologies, texts
from hypclip.taxonomy.sources.emoji import emoji_edges
from hypclip.taxonomy.sources.imagenet import imagenet_edges
from hypclip.taxonomy.wordnet import phrases

NAMED: Mapping[str, Callable[[], Taxonomy]] = {
    "emoji": lambda: Taxonomy(emoji_edges()),
    "emoji-held-out": lambda: Taxonomy(emoji_edges(held_out=True)),
    "imagenet-1k": lambda: Taxonomy(imagenet_edges()),
    "wordnet": phrases.taxonomy,
    "wordnet-mammals": lambda: Taxonomy(wordnet.mammals()),
    "wordnet-nouns": lambda: Taxonomy(wordnet.load("noun").edges),
    "wordnet-verbs": lambda: Taxonomy(wordnet.load("verb").edges),
}
"""Taxonomies that come with the package.

`emoji-held-out` has the fifth of the names that `emoji` leaves out; `wordnet` stands above any phrase with a noun, the
others know synsets by their names.
"""

FORMATS: Mapping[str, Callable[[Path], list[Edge]]] = {
    ".json": texts.read_json,
    ".csv": texts.read_table,
    ".tsv": texts.read_table,
    ".txt": texts.read_indented,
    ".obo": ontologies.read_obo,
    **dict.fromkeys(ontologies.RDF_FORMATS, ontologies.read_rdf),
}
"""What reads a file, by the end of its name."""


def load(source: str | Path | Sequence[Sequence[str]]) -> Taxonomy:
    """Return a taxonomy by name, from a file or a folder, or from is-a edges.

    Args:
        source: one of `NAMED`; a file of one of `FORMATS`; a folder, whose folders are the phrases; or edges
            [["child", "parent"], ...].

    Raises:
        DataError: no such name or file, other content, or edges that `Taxonomy` refuses.
        MissingExtraError: an ontology, without the extra `ontologies`; `imagenet-1k`, without the extra `imagenet`.
    """
    if not isinstance(source, str | Path):
        return Taxonomy(texts.checked(source, "the taxonomy"))
    if str(source) in NAMED:
        return NAMED[str(source)]()
    path = user_path(str(source))
    if path.is_dir():
        read: Callable[[Path], list[Edge]] | None = folders.read_folders
    elif not path.is_file():
        raise DataError(
            f"there is no taxonomy {str(source)!r}: expected one of {', '.join(NAMED)}, a folder of classes, or a file "
            f"of a format {', '.join(FORMATS)}"
        )
    else:
        read = FORMATS.get(path.suffix.lower())
    if read is None:
        raise DataError(f"cannot read a taxonomy from {path}: expected one of the formats {', '.join(FORMATS)}")
    try:
        edges = read(path)
    except OSError as error:
        raise DataError(f"cannot read a taxonomy from {path}: {error}") from error
    try:
        return Taxonomy(edges)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
