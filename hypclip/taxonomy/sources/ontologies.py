"""Taxonomies from ontologies: OBO, and RDF with the class hierarchy of OWL or the concepts of SKOS.

They are read by obonet and rdflib, of the extra `ontologies`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from hypclip.errors import DataError, MissingExtraError
from hypclip.taxonomy.graph import Edge, same_phrase

RDF_FORMATS = {".owl": "xml", ".rdf": "xml", ".xml": "xml", ".ttl": "turtle", ".nt": "nt", ".jsonld": "json-ld"}


def read_obo(path: Path) -> list[Edge]:
    """Return the is_a edges of an OBO file, such as the Gene Ontology's, by the names of its terms; no obsolete ones.

    Raises:
        DataError: it is no OBO.
        MissingExtraError: obonet is not installed.
    """
    try:
        graph = _library("obonet").read_obo(path)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"cannot read a taxonomy from {path}: {error}") from error
    names = {term: attributes.get("name", term) for term, attributes in graph.nodes(data=True)}
    return _named([(child, parent) for child, parent, kind in graph.edges(keys=True) if kind == "is_a"], names)


def read_rdf(path: Path) -> list[Edge]:
    """Return the edges of rdfs:subClassOf, skos:broader and skos:narrower between things with a name of their own.

    A name is the English skos:prefLabel or rdfs:label, or one without a language, or the end of the address. Classes
    without an address, such as OWL's restrictions, are passed over; nothing is inferred.

    Raises:
        DataError: it is not in the format that its name ends with.
        MissingExtraError: rdflib is not installed.
    """
    rdflib = _library("rdflib")
    graph = rdflib.Graph()
    try:
        graph.parse(path, format=RDF_FORMATS[path.suffix.lower()])
    except Exception as error:  # each of rdflib's parsers has errors of its own
        raise DataError(f"cannot read a taxonomy from {path}: {error}") from error
    skos, rdfs, owl = rdflib.SKOS, rdflib.RDFS, rdflib.OWL
    pairs = [*graph.subject_objects(rdfs.subClassOf), *graph.subject_objects(skos.broader)]
    pairs += [(narrow, broad) for broad, narrow in graph.subject_objects(skos.narrower)]
    edges = [
        (child, parent)
        for child, parent in dict.fromkeys(pairs)
        if isinstance(child, rdflib.URIRef) and isinstance(parent, rdflib.URIRef) and parent != owl.Thing
    ]
    things = {thing for edge in edges for thing in edge}
    return _named(edges, {thing: _label(graph, thing, (skos.prefLabel, rdfs.label)) for thing in things})


def _label(graph: Any, thing: Any, properties: Iterable[Any]) -> str:
    for kind in properties:
        labels = sorted(graph.objects(thing, kind), key=lambda label: (label.language or "", label))
        for wanted in ("en", None):
            if found := [str(label) for label in labels if label.language == wanted]:
                return found[0]
    return str(thing).rstrip("/#").replace("#", "/").rpartition("/")[2]


def _named(edges: Iterable[tuple[str, str]], names: Mapping[str, str]) -> list[Edge]:
    """Return edges by name; of a name that several have, each says which one it is."""
    edges = list(edges)
    things = {thing for edge in edges for thing in edge}
    count = Counter(same_phrase(names.get(thing, thing)) for thing in things)

    def name(thing: str) -> str:
        own = names.get(thing, str(thing))
        return own if count[same_phrase(own)] == 1 else f"{own} ({thing})"

    return [(name(child), name(parent)) for child, parent in edges]


def _library(name: str) -> ModuleType:
    try:
        return __import__(name)
    except ImportError as missing:
        raise MissingExtraError(
            f"{missing}: it comes with an extra, run pip install 'hypclip[ontologies]'"
        ) from missing
