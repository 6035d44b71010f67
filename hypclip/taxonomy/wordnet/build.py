"""Make the tables of this folder from the database files of WordNet 3.0, as Debian's wordnet-base has them.

    apt-get install wordnet-base && python -m hypclip.taxonomy.wordnet.build --source /usr/share/wordnet

A line of a table is a synset: its offset in WordNet's own file, a space, its lemmas, each with the number of the sense
that it is of it, a tab, and the lines of its hypernyms, instance hypernyms among them. Lines are ordered by offset. A
line of words.txt is a single word, a tab, marks, a tab, and what it is an irregular plural of. A noun has the mark a or
v if the texts that senses were counted in use it as an adjective or a verb more often, and p if it ends in -ing and
they use the verb that it is a participle of no less often, with a g where that is by far, as of "hanging" but not of
"building".
"""

from __future__ import annotations

import argparse
import lzma
from collections import Counter
from pathlib import Path

_HYPERNYMS = ("@", "@i")
_PARTS = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
"""Parts of speech by the number in a sense key; 5 is an adjective that another stands for."""

_RARELY = 10
"""How many times as often as a noun in -ing its verb is used where the noun is rare."""


def table(source: Path, part: str) -> str:
    """Return the table of a part of speech, noun or verb, from WordNet's `data` and `index` files."""
    sense: dict[tuple[str, str], int] = {}
    for line in _lines(source / f"index.{part}"):
        lemma, *rest = line.split()
        offsets = rest[-int(rest[1]) :]
        sense |= {(lemma, offset): number for number, offset in enumerate(offsets, 1)}
    synsets: dict[str, tuple[list[str], list[str]]] = {}
    for line in _lines(source / f"data.{part}"):
        fields = line.partition("|")[0].split()
        offset, words = fields[0], int(fields[3], 16)
        lemmas = fields[4 : 4 + 2 * words : 2]
        pointers = fields[5 + 2 * words :]
        up = [pointers[i + 1] for i in range(0, 4 * int(fields[4 + 2 * words]), 4) if pointers[i] in _HYPERNYMS]
        synsets[offset] = ([f"{lemma}:{sense[lemma.lower(), offset]}" for lemma in lemmas], up)
    line_of = {offset: number for number, offset in enumerate(synsets)}
    return "".join(
        f"{offset} {' '.join(lemmas)}\t{' '.join(str(line_of[o]) for o in up)}\n"
        for offset, (lemmas, up) in synsets.items()
    )


def words(source: Path) -> str:
    """Return the table of single words, see above, from WordNet's `index`, `noun.exc` and `cntlist.rev` files."""
    nouns, verbs = (
        {word for line in _lines(source / f"index.{part}") if "_" not in (word := line.split()[0])}
        for part in ("noun", "verb")
    )
    counts: Counter[tuple[str, str]] = Counter()
    for line in _lines(source / "cntlist.rev"):
        key, _, count = line.split()
        word, _, rest = key.partition("%")
        counts[word, _PARTS[rest[0]]] += int(count)
    marks: dict[str, str] = {}
    for word in nouns:
        found = "".join(part[0] for part in ("adj", "verb") if counts[word, part] > counts[word, "noun"])
        of = [counts[base, "verb"] for base in _bases(word.removesuffix("ing")) if base in verbs]
        if word.endswith("ing") and of and max(of) >= counts[word, "noun"]:
            found += "pg" if max(of) > _RARELY * counts[word, "noun"] else "p"
        marks[word] = found
    irregular = {word: bases for word, *bases in map(str.split, _lines(source / "noun.exc")) if "_" not in word}
    return "".join(
        f"{word}\t{marks.get(word, '')}\t{' '.join(irregular.get(word, ()))}\n"
        for word in sorted(marks.keys() | irregular.keys())
        if marks.get(word) or word in irregular
    )


def _bases(stem: str) -> tuple[str, ...]:
    """Return the verbs that a participle may be of, by what stands before -ing: skat-e, walk, run-n."""
    return stem, stem + "e", stem[:-1] if stem[-1:] == stem[-2:-1] else stem


def _lines(file: Path) -> list[str]:
    return [line for line in file.read_text(encoding="ascii").splitlines() if not line.startswith("  ")]


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("/usr/share/wordnet"), help="Folder of the database files.")
    arguments = parser.parse_args()
    tables = {"nouns": table(arguments.source, "noun"), "verbs": table(arguments.source, "verb")}
    for name, content in (tables | {"words": words(arguments.source)}).items():
        compressed = lzma.compress(content.encode("ascii"), preset=9 | lzma.PRESET_EXTREME)
        (Path(__file__).parent / f"{name}.txt.xz").write_bytes(compressed)


if __name__ == "__main__":
    main()
