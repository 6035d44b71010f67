"""The head noun of a phrase, and what WordNet means by it: "a small red sports car" is of `sports_car.n.01`.

Rules, no model: what stands before the noun and what follows it is taken away by closed classes of words (`english`),
then the longest compound that WordNet has and that ends the rest is the head. Its first sense counts, but one of the
first four that is a thing or a group of people, which a picture can show, goes before one that is not: the first sense
of "table" is a set of data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hypclip.taxonomy.wordnet import Synset, WordNet, english
from hypclip.taxonomy.wordnet.morphology import Words

MOST_WORDS = 5
"""Words of the longest compound that is looked for."""
MOST_SENSES = 4
"""Senses among which one that a picture can show is preferred."""
_THINGS = ("physical_entity.n.01",)
_SHOWN = (*_THINGS, "social_group.n.01", "people.n.01")
_AGENTS = ("person.n.01", "animal.n.01", "people.n.01")
_PIECE = re.compile(r"[^\W_](?:[\w'.&/+-]*[^\W_])?'?|\S")
_BEFORE = english.PREPOSITIONS | english.CLAUSES | {"of"}
_AFTER = english.PREPOSITIONS | english.CLAUSES | english.CONJUNCTIONS
_SINGULAR = frozenset({"a", "an", "one", "each", "every", "another"})


class Head(NamedTuple):
    """A head noun as WordNet spells it, with spaces, and the name of its synset."""

    lemma: str
    synset: str


class _Noun(NamedTuple):
    """The words of a noun phrase up to its head, and the last determiner before them, if any."""

    words: list[str]
    determiner: str | None


_NONE = _Noun([], None)


class HeadNouns:
    """Finds head nouns.

    Args:
        nouns: of WordNet.
        words: of WordNet.
    """

    def __init__(self, nouns: WordNet, words: Words):
        self._senses, self._words = nouns.senses, words
        self._synsets = nouns.synsets
        below = _children(nouns.synsets.values())
        self._things = _below(_THINGS, below)
        self._shown = _below(_SHOWN, below)
        self._people = _below(_AGENTS[:1], below)
        self._agents = _below(_AGENTS, below)

    def find(self, phrase: str) -> Head | None:
        """Return the head noun of a phrase; None where it has none: a pronoun, a person's name, an unknown word."""
        spelled = phrase.split()
        if len(spelled) > 1 and (key := "_".join(spelled)) in self._senses:
            return self._sense(key, False, False)
        words, determiner = self._noun(_PIECE.findall(phrase.replace("’", "'")))
        if not words:
            return None
        capitals = determiner is None and all(word[0].isupper() for word in words)
        if capitals and words[0].lower() in english.GIVEN_NAMES:
            return self._compound(words, determiner) if len(words) > 1 else None
        for start in range(max(0, len(words) - MOST_WORDS), len(words) - 1):
            if found := self._compound(words[start:], determiner):
                return found
        return self._single(words[-1], determiner)

    # The phrase -------------------------------------------------------------------------------------------------------

    def _noun(self, pieces: Sequence[str]) -> _Noun:
        """Return the part of a phrase that ends in its head."""
        words: list[str] = []
        determiner = None
        skip = False
        for place, piece in enumerate(pieces):
            word = piece.lower()
            following = pieces[place + 1].lower() if place + 1 < len(pieces) else ""
            if skip:
                skip = False
            elif not piece[0].isalnum() and word not in english.CONJUNCTIONS:
                if words and piece not in "\"'%$#*" and (piece != "," or self._is_noun(words[-1])):
                    break
            elif word.endswith(("'s", "s'")) and word not in english.PRONOUNS:
                words, determiner = [], "the"
            elif word in english.DETERMINERS:
                if words:
                    break
                determiner = word
            elif not words and word in english.PRONOUNS:
                return _NONE
            elif word == "of" and words:
                if self._forms(words[-1].lower()) & english.SEEN_THROUGH:
                    words, determiner = [], None
                elif f"{words[-1].lower()}_of_{following}" in self._senses:
                    words += ["of", following]
                    skip = True
                else:
                    break
            elif word in english.CONJUNCTIONS and words:
                if any(f"{words[-1].lower()}_and_{form}" in self._senses for form in self._forms(following)):
                    words += ["and", following]
                    skip = True
                elif self._is_noun(words[-1]):
                    break
            elif word in _BEFORE or word in english.CONJUNCTIONS:
                if words:
                    break
            elif not words:
                if piece[0].isdigit() or self._is_adverb(word):
                    continue
                if word.endswith("ing") and following in english.DETERMINERS and word in self._words.participles:
                    return _NONE
                words.append(piece)
            elif self._is_verb(words[-1], word, following):
                break
            elif not self._is_adverb(word):
                words.append(piece)
        return _Noun(words, determiner)

    def _is_verb(self, before: str, word: str, following: str) -> bool:
        """Return whether a word behind another says what that does or what was done to it."""
        if not self._is_noun(before):
            return False
        behind = following in _AFTER or not following[:1].isalnum()
        is_joined = f"{before.lower()}_{word}" in self._senses
        if word.endswith("ing"):
            if word in self._senses and word not in self._words.participles:
                return False
            if following in english.DETERMINERS:
                return True
            is_joined = is_joined or any(f"{word}_{form}" in self._senses for form in self._forms(following))
            is_verb = word in self._words.gerunds or self._is_agent(before) or not self._is_shown(word)
            return is_verb and not is_joined
        if word.endswith("ed") or word in english.PARTICIPLES:
            return behind and not is_joined and (word in english.PARTICIPLES or not self._is_shown(word))
        verbs = self._forms(word) & self._words.verbs
        if not verbs or is_joined or not (behind or following in english.DETERMINERS) or not following:
            return False
        is_many = before.lower() == "people" or before.lower() not in self._senses
        return (word in verbs) == is_many and self._is_agent(before)

    def _is_noun(self, word: str) -> bool:
        """Return whether a word is a noun, and no colour or what is an adjective more often."""
        word = word.lower()
        if word in english.COLOURS or word in self._words.adjectives:
            return False
        return word in self._senses or any(base in self._senses for base in self._words.bases(word))

    def _is_adverb(self, word: str) -> bool:
        return word.endswith("ly") and word not in self._senses

    def _is_shown(self, word: str) -> bool:
        sense = self._senses.get(word)
        return sense is not None and sense[0][1] in self._shown

    def _is_agent(self, word: str) -> bool:
        found = self._single(word, "the")
        return found is not None and found.synset in self._agents

    def _forms(self, word: str) -> set[str]:
        return {word, *self._words.bases(word)}

    # The head ---------------------------------------------------------------------------------------------------------

    def _compound(self, words: Sequence[str], determiner: str | None) -> Head | None:
        """Return what WordNet has of several words as one, also where it joins them: "ice-cream cone", "wineglass".

        A wineglass is a glass, but a leatherjacket is a fish, and white horses are waves: what is joined, or begins
        with a hue, has to be a kind of its last word.
        """
        *first, last = (word.lower() for word in words)
        stems = ["_".join(first) + "_", "_".join(first) + "-", "-".join(first) + "_"]
        if len(first) == 1:
            stems.append(first[0])
        is_plain = first[0] not in english.HUES
        keys = [
            stem + form
            for stem in dict.fromkeys(stems)
            for form in (last, *self._words.bases(last))
            if stem + form in self._senses and ((is_plain and stem[-1] in "_-") or self._is_kind(stem + form, form))
        ]
        return self._first(keys, words[-1], determiner)

    def _is_kind(self, word: str, of: str) -> bool:
        """Return whether a sense of a word is, or lies below, a sense of another."""
        wanted = {synset for _, synset in self._senses.get(of, ())}
        stack = [synset for _, synset in self._senses.get(word, ())] if wanted else []
        while stack and stack[-1] not in wanted:
            stack += self._synsets[stack.pop()].hypernyms
        return bool(stack)

    def _single(self, word: str, determiner: str | None) -> Head | None:
        """Return what WordNet has of one word, if it is a noun there."""
        lower = word.lower()
        irregular = self._words.irregular.get(lower, ())
        keys = list(dict.fromkeys((*irregular, lower, *self._words.bases(lower))))
        if lower in self._words.adjectives and determiner not in _SINGULAR:
            keys.remove(lower)
        return self._first(keys, word, determiner)

    def _first(self, keys: Iterable[str], word: str, determiner: str | None) -> Head | None:
        """Return the first of some words that a picture can show, else the first that there is."""
        found = None
        for key in keys:
            if key not in self._senses:
                continue
            is_plural = not key.endswith(word.lower())
            head = self._sense(key, word[0].isupper(), determiner is not None or is_plural)
            if head is None:
                continue
            if head.synset in self._things:
                return head
            found = found or head
        return found

    def _sense(self, key: str, is_capital: bool, is_determined: bool) -> Head | None:
        """Return the sense of a word; of those spelled with a capital only if it is, and names of persons never."""
        senses = self._senses[key]
        if is_determined or not is_capital:
            senses = tuple(sense for sense in senses if not sense[0][0].isupper()) or senses
        if not is_determined:
            senses = tuple(s for s in senses if not (s[0][0].isupper() and s[1] in self._people))
        if not senses:
            return None
        lemma, synset = next((s for s in senses[:MOST_SENSES] if s[1] in self._shown), senses[0])
        return Head(lemma.replace("_", " "), synset)


def _children(synsets: Iterable[Synset]) -> dict[str, list[str]]:
    children: dict[str, list[str]] = {}
    for synset in synsets:
        for up in synset.hypernyms:
            children.setdefault(up, []).append(synset.name)
    return children


def _below(roots: Iterable[str], children: dict[str, list[str]]) -> frozenset[str]:
    """Return some synsets and all below them."""
    found, stack = set(roots), list(roots)
    while stack:
        new = [child for child in children.get(stack.pop(), ()) if child not in found]
        found.update(new)
        stack += new
    return frozenset(found)
