"""Sets of pairs to ask a model about: phrases, and the phrases and images that are instances of them.

A set has general phrases and things that may be below them: every pair of the two is asked about, and a pair is true
if the transitive closure of the taxonomy holds it.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hypclip.data.quickstart.scenes import article
from hypclip.errors import DataError, first_few
from hypclip.evaluation.zero_shot import LabelledImages
from hypclip.taxonomy import Taxonomy, same_phrase

MOST_PAIRS = 5_000_000
"""A larger set keeps all of its general phrases and a fixed random sample of what may be below them."""
_MOST_LEVELS = 4
"""A deeper taxonomy is asked about adjacent levels alone."""


@dataclass(frozen=True)
class EdgeSet:
    """Pairs of a general phrase and something that may be below it.

    Args:
        name: such as "0-2": phrases of level 0 over those of level 2.
        general: rows of the phrases.
        specific: rows of the phrases, or of the images.
        true_pairs: places in `general` and in `specific` of the pairs that are true.
        of_images: whether `specific` are images.
        of_one_level: whether the general phrases are of one level.
    """

    name: str
    general: Int[Tensor, " n"]
    specific: Int[Tensor, " m"]
    true_pairs: Int[Tensor, "2 _"]
    of_images: bool = False
    of_one_level: bool = True

    def truth(self) -> Bool[Tensor, "n m"]:
        """Return a mask of the pairs that are true."""
        true = torch.zeros(len(self.general), len(self.specific), dtype=torch.bool)
        true[self.true_pairs[0], self.true_pairs[1]] = True
        return true

    def asked(self) -> Bool[Tensor, "n m"]:
        """Return a mask of the pairs that count: all but a phrase over itself."""
        if self.of_images:
            return torch.ones(len(self.general), len(self.specific), dtype=torch.bool)
        return self.general[:, None] != self.specific


@dataclass(frozen=True)
class Instances:
    """Images with the phrases that they are instances of.

    Args:
        files: of the images.
        phrases: the names of each; one or more.
        candidates: the names of all their classes, also of classes without images.
        left_out: names of the classes that are called by no phrase; their images are not among the files.
    """

    files: list[Path]
    phrases: list[tuple[str, ...]]
    candidates: frozenset[str]
    left_out: list[str]


class Phrases:
    """The phrases of a taxonomy, and those that are held out: below it, and in no training term that knew it.

    Args:
        known: the taxonomy.
        held_out: further is-a edges, of children that the taxonomy lacks; their parents are in one of the two.

    Raises:
        DataError: a held-out child is in the taxonomy, or a parent is nowhere.
    """

    def __init__(self, known: Taxonomy, held_out: Taxonomy | None = None):
        edges = held_out.edges if held_out else ()
        self.held_out = frozenset(child for child, _ in edges)
        if twice := sorted(phrase for phrase in self.held_out if phrase in known):
            raise DataError(
                f"what is held out must not be in the taxonomy, which has {len(twice)} of its phrases: "
                f"{first_few(list(map(repr, twice)))}; take them out of one of the two"
            )
        if lost := [edge for edge in edges if edge[1] not in known and edge[1] not in self.held_out]:
            raise DataError(
                f"the parent of a held-out edge must be in the taxonomy, as those of {len(lost)} are not: "
                f"{first_few([f'{parent!r} of {child!r}' for child, parent in lost])}; add them there"
            )
        self.taxonomy = Taxonomy([*known.edges, *edges]) if edges else known
        self.all = self.taxonomy.phrases
        self.rows = {phrase: row for row, phrase in enumerate(self.all)}
        self.levels = torch.tensor([self.taxonomy.level(phrase) for phrase in self.all])
        self.depth = int(self.levels.max())

    def edges(self) -> Int[Tensor, "2 _"]:
        """Return rows of the children and of their direct parents."""
        pairs = [(self.rows[child], self.rows[parent]) for child, parent in self.taxonomy.edges]
        return torch.tensor(pairs).T

    def text_sets(self) -> list[EdgeSet]:
        """Return a set for each two levels, of all phrases and of those held out, and one for the whole."""
        general, held = self._of(self.taxonomy.general), self._of(self.held_out)
        levels = range(self.depth + 1)
        sets = []
        for a, b in itertools.combinations(levels, 2):
            if b == a + 1 or self.depth < _MOST_LEVELS:
                above = general[self.levels[general] == a]
                below = (self.levels == b).nonzero().squeeze(1)
                sets.append(self._set(f"{a}-{b}", above, below))
                sets.append(self._set(f"{a}-{b}_held_out", above, held[self.levels[held] == b]))
        sets.append(self._set("all", general, torch.arange(len(self.all)), of_one_level=False))
        sets.append(self._set("held_out", general, held, of_one_level=False))
        return [one for one in sets if len(one.specific)]

    def instance_sets(self, instances: Instances) -> list[EdgeSet]:
        """Return a set for each level, of all images and of those called by a held-out phrase alone.

        An image of a bird may be one of an owl: images that are called by phrases of higher levels alone take no
        part. General are the phrases that stand above another, or that a class is called by.
        """
        general = self._of({*self.taxonomy.general, *instances.candidates})
        deepest = torch.tensor([max(self.taxonomy.level(p) for p in own) for own in instances.phrases])
        held = torch.tensor([self.held_out.issuperset(own) for own in instances.phrases])
        sets = []
        for level in range(self.depth + 1):
            above = general[self.levels[general] == level]
            for suffix, chosen in (("", deepest >= level), ("_held_out", (deepest >= level) & held)):
                below = chosen.nonzero().squeeze(1)
                sets.append(self._set(f"{level}-picture{suffix}", above, below, instances))
        return [one for one in sets if len(one.general) and len(one.specific)]

    def _of(self, phrases: Iterable[str]) -> Int[Tensor, " n"]:
        return torch.tensor(sorted(self.rows[phrase] for phrase in phrases), dtype=torch.long)

    def _set(
        self,
        name: str,
        general: Tensor,
        specific: Tensor,
        instances: Instances | None = None,
        of_one_level: bool = True,
    ) -> EdgeSet:
        most = max(1, MOST_PAIRS // max(1, len(general)))
        if len(specific) > most:
            chosen = torch.randperm(len(specific), generator=torch.Generator().manual_seed(0))[:most]
            specific = specific[chosen.sort().values]
        place = {row: i for i, row in enumerate(general.tolist())}
        pairs = [
            (place[self.rows[phrase]], j)
            for j, row in enumerate(specific.tolist())
            for phrase in (self._above(instances.phrases[row]) if instances else self.taxonomy.ancestors(self.all[row]))
            if self.rows[phrase] in place
        ]
        true = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
        return EdgeSet(name, general, specific, true, instances is not None, of_one_level)

    def _above(self, own: Collection[str]) -> set[str]:
        return {*own, *(phrase for one in own for phrase in self.taxonomy.ancestors(one))}


def call(data: LabelledImages, taxonomy: Taxonomy, templates: Sequence[str]) -> Instances:
    """Find the phrase that each class of images is called by: a name as it is, with an article, or in a template.

    Raises:
        DataError: none that has images is called by a phrase.
    """
    called = [
        tuple(dict.fromkeys(phrase for name in names for phrase in _phrase(name, taxonomy, templates)))
        for names in data.names
    ]
    chosen = [i for i, label in enumerate(data.labels) if called[label]]
    if not chosen:
        raise DataError(
            f"no image of {data.root} is of a class whose name is a phrase of the taxonomy, such as "
            f"{taxonomy.phrases[-1]!r}; its classes are {first_few([repr(names[0]) for names in data.names])}"
        )
    return Instances(
        [data.files[i] for i in chosen],
        [called[data.labels[i]] for i in chosen],
        frozenset(phrase for phrases in called for phrase in phrases),
        [names[0] for names, phrases in zip(data.names, called, strict=True) if not phrases],
    )


def _phrase(name: str, taxonomy: Taxonomy, templates: Sequence[str]) -> list[str]:
    """Return the first form of a name that the taxonomy has, or none."""
    plain = same_phrase(name)
    forms = [plain, article(plain), *(same_phrase(template.format(plain)) for template in templates)]
    return [form for form in forms if form in taxonomy][:1]
