"""An embedded taxonomy as a collection: a point of modality text for each phrase, and the rule that entails by."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from hypclip.errors import InputError
from hypclip.geometry.entailment import Entailment
from hypclip.search.space import Space
from hypclip.search.store import VectorStore
from hypclip.search.types import Points
from hypclip.taxonomy import Taxonomy, wordnet

_ROWS = 4096
_PARTS: Mapping[str, wordnet.Part] = {"n": "noun", "v": "verb"}
_SYNSET = re.compile(r".+\.([nv])\.\d\d")


def tree_space(name: str, x: Float[Tensor, "n d"], curv: float, entailment: Entailment) -> Space:
    """Return the space of an embedded taxonomy; points of another embedding of it are not compared with these.

    Args:
        name: what the space is called in place of a model.
        x: space components of all phrases.
        curv: c > 0.
        entailment: the rule.
    """
    revision = hashlib.sha256(x.float().contiguous().numpy().astype("<f4").tobytes()).hexdigest()
    return Space(name, curv, x.shape[1], revision, entailment)


def write_tree(
    store: VectorStore, collection: str, space: Space, taxonomy: Taxonomy, phrases: Sequence[str], x: Tensor
) -> int:
    """Write the phrases of a taxonomy into a collection, which is made where there is none; return how many.

    Args:
        store: open.
        collection: its name.
        space: of the points, see `tree_space`.
        taxonomy: says what metadata tell.
        phrases: of the points, in their order: they are the ids.
        x: space components (N, D).

    Raises:
        InputError: points lie too far out for a store, or phrases are not of the taxonomy.
        ModelMismatch: the collection is of another space.
    """
    if unknown := next((phrase for phrase in phrases if phrase not in taxonomy), None):
        raise InputError(f"the phrase {unknown!r} of the points is not in the taxonomy: they are of another one")
    points = x.float()
    space.check_points(points)
    store.create_collection(collection, space)
    for start in range(0, len(phrases), _ROWS):
        some = list(phrases[start : start + _ROWS])
        rows = points[start : start + _ROWS]
        store.upsert(collection, Points(some, rows, ["text"] * len(some), [about(taxonomy, each) for each in some]))
    return len(phrases)


def about(taxonomy: Taxonomy, phrase: str) -> dict[str, Any]:
    """Return the metadata of a phrase: those of `hypclip.indexing.labels`, and its words, parents and depth.

    `caption` is what it is called, `names` all its words (of a synset its lemmas), `text` the phrase itself, `kind_of`
    its most specific parent and `family` what stands above it right below a root, so that a page can label and filter.
    """
    synset = _synset(phrase)
    names = [phrase] if synset is None else [lemma.replace("_", " ") for lemma in synset.lemmas]
    parents, ancestors = taxonomy.parents(phrase), taxonomy.ancestors(phrase)
    level = taxonomy.level(phrase)
    family = [up for up in ancestors if taxonomy.level(up) == 1] or [phrase]
    labels: dict[str, Any] = {
        "caption": ", ".join(names[:4]),
        "text": phrase,
        "names": [name.lower() for name in names],
        "kind": "inner" if taxonomy.children(phrase) else "leaf",
        "level": level,
    }
    if parents:
        labels |= {"kind_of": parents[-1], "parents": list(parents), "family": family[0]}
    return labels


def _synset(phrase: str) -> wordnet.Synset | None:
    found = _SYNSET.fullmatch(phrase)
    return None if found is None else wordnet.load(_PARTS[found[1]]).synsets.get(phrase)
