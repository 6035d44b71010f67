"""Make the tables of this folder from the database files of WordNet 3.0, as Debian's wordnet-base has them.

    apt-get install wordnet-base && python -m hypclip.taxonomy.wordnet.build --source /usr/share/wordnet

A line of a table is a synset: its offset in WordNet's own file, a space, its lemmas, each with the number of the sense
that it is of it, a tab, and the lines of its hypernyms, instance hypernyms among them. Lines are ordered by offset.
"""

from __future__ import annotations

import argparse
import lzma
from pathlib import Path

_HYPERNYMS = ("@", "@i")


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


def _lines(file: Path) -> list[str]:
    return [line for line in file.read_text(encoding="ascii").splitlines() if not line.startswith("  ")]


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("/usr/share/wordnet"), help="Folder of the database files.")
    arguments = parser.parse_args()
    for part in ("noun", "verb"):
        compressed = lzma.compress(table(arguments.source, part).encode("ascii"), preset=9 | lzma.PRESET_EXTREME)
        (Path(__file__).parent / f"{part}s.txt.xz").write_bytes(compressed)


if __name__ == "__main__":
    main()
