"""Token ids of several texts without padding: the form in which texts go from the tokenizer to a tower."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor


class TokenRows(NamedTuple):
    """Token ids of N texts joined end to end, and how many of them each text has, at least one."""

    ids: Int[Tensor, " total"]
    lengths: list[int]

    @classmethod
    def joined(cls, parts: Iterable[TokenRows]) -> TokenRows:
        """Join the texts of several, in order."""
        parts = list(parts)
        return cls(torch.cat([part.ids for part in parts]), [length for part in parts for length in part.lengths])

    def split(self) -> Iterator[Int[Tensor, " length"]]:
        """Return the token ids of each text."""
        return iter(torch.split(self.ids, self.lengths))

    def padded(self, pad_id: int) -> Int[Tensor, "n longest"]:
        """Return one row per text, filled up to the longest."""
        longest = max(self.lengths, default=1)
        rows = self.ids.new_full((len(self.lengths), longest), pad_id)
        rows[torch.arange(longest) < torch.tensor(self.lengths, dtype=torch.int64).unsqueeze(1)] = self.ids
        return rows
