"""Padded passes of a text tower, planned by length so that little of the computation is spent on padding."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from hypclip.towers.tokens import TokenRows

_MOST = 4
"""Passes that sorted texts are cut into at most."""
_WORTH_IT = 0.9
"""The share of its time that sorting has to leave, since it takes time itself."""


@dataclass(frozen=True)
class TextPasses:
    """The texts of several roles, in the padded passes in which a text tower reads them.

    Args:
        passes: token ids (n, L) of each pass.
        counts: role → number of texts.
        order: the row of each text among those of all passes, role after role; None if each pass is one role's texts.
    """

    passes: list[Int[Tensor, "_ _"]]
    counts: dict[str, int]
    order: Int[Tensor, " _"] | None = None

    @classmethod
    def plan(cls, texts: Mapping[str, TokenRows], pad_id: int, pass_tokens: int | None = None) -> TextPasses:
        """Plan a pass per role, or passes by length where those save more than they take.

        Args:
            texts: role → token ids.
            pad_id: what rows are filled with.
            pass_tokens: what a pass costs besides its tokens, in tokens; None for a pass per role whatever the lengths.
        """
        counts = {role: len(rows.lengths) for role, rows in texts.items()}
        if pass_tokens is not None and any(counts.values()):
            rows = TokenRows.joined(texts.values())
            order = sorted(range(len(rows.lengths)), key=rows.lengths.__getitem__)
            lengths = [rows.lengths[text] for text in order]
            padded = sum(len(role.lengths) * max(role.lengths, default=0) for role in texts.values())
            if sizes := passes_by_length(lengths, padded, len(texts), pass_tokens):
                tokens, by_length = rows.padded(pad_id), torch.tensor(order)
                ends = itertools.accumulate(sizes)
                parts = zip(torch.split(by_length, sizes), ends, strict=True)
                return cls([tokens[texts, : lengths[end - 1]] for texts, end in parts], counts, by_length.argsort())
        return cls([rows.padded(pad_id) for rows in texts.values()], counts)

    def map(self, change: Callable[[Tensor], Tensor]) -> TextPasses:
        """Return the same with every tensor changed, such as moved to a device."""
        order = None if self.order is None else change(self.order)
        return replace(self, passes=[change(tokens) for tokens in self.passes], order=order)

    def part(self, ranges: Mapping[str, slice]) -> TextPasses:
        """Return the texts in a range of each role, in the same passes; roles and passes without texts are left out."""
        order = range(sum(self.counts.values())) if self.order is None else self.order.tolist()
        kept: dict[str, Sequence[int]] = {}
        first = 0
        for role, count in self.counts.items():
            if rows := order[first : first + count][ranges.get(role, slice(0))]:
                kept[role] = rows
            first += count
        new = {row: place for place, row in enumerate(sorted(itertools.chain(*kept.values())))}
        passes, first = [], 0
        for tokens in self.passes:
            if here := [row - first for row in new if first <= row < first + len(tokens)]:
                passes.append(tokens[here])
            first += len(tokens)
        places = None if self.order is None else self.order.new_tensor([new[r] for rows in kept.values() for r in rows])
        return TextPasses(passes, {role: len(rows) for role, rows in kept.items()}, places)

    def read(self, tower: Callable[[Tensor], Tensor]) -> Tensor:
        """Return a tower's features of every text, role after role."""
        features = torch.cat([tower(tokens) for tokens in self.passes])
        return features if self.order is None else features.index_select(0, self.order)


def cost_of_a_pass(width: int) -> int:
    """Return the overhead of a pass, in tokens: small kernels, as many for a narrow tower as for a wide one.

    Args:
        width: of the tower; the cost of a token grows with its square.
    """
    return round(512 * (512 / width) ** 2)


def passes_by_length(lengths: Sequence[int], padded: int, passes: int, overhead: int) -> list[int]:
    """Return the number of rows per pass, the shortest first; nothing where sorting them would not save time.

    Never fewer passes than without sorting, so that only padding is saved.

    Args:
        lengths: of the rows, ascending. Each pass is padded to its longest.
        padded: tokens that the tower computes if they are not sorted, padding counted.
        passes: how many passes that takes.
        overhead: the cost of a pass besides its tokens, in tokens.
    """
    values, counts = np.unique(lengths, return_counts=True)
    rows = np.concatenate([[0], counts.cumsum()])
    # Of a pass with all rows of the i-th to the j-th length, at [i, j].
    costs = np.where(np.tri(len(values)).T > 0, (rows[1:] - rows[:-1, None]) * values + overhead, np.inf)
    so_far, begins = costs[0], [np.zeros(len(values), dtype=np.int64)]
    least, best = (so_far[-1] if passes == 1 else np.inf), 1
    for count in range(2, min(_MOST, len(values)) + 1):
        ways = so_far[:-1, None] + costs[1:]  # the last of `count` passes begins at [i], those before it end there
        begins.append(ways.argmin(0) + 1)
        so_far = ways.min(0)
        if count >= passes and so_far[-1] < least:
            least, best = so_far[-1], count
    if least > _WORTH_IT * (padded + passes * overhead):
        return []
    end, cuts = len(values), [len(lengths)]
    for begin in reversed(begins[1:best]):
        end = int(begin[end - 1])
        cuts.append(int(rows[end]))
    return [b - a for a, b in itertools.pairwise([0, *reversed(cuts)])]
