"""Counts of read, bad and damaged data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypclip.errors import DataError, first_few


@dataclass
class Tally:
    """Counts of samples read, of bad ones by reason with a detail of each reason, and damaged shards with the cause."""

    read: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """Return JSON data."""
        return {**vars(self), "skipped": dict(self.skipped)}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Tally:
        """Read what `to_plain` returned."""
        return cls(data["read"], Counter(data["skipped"]), dict(data["examples"]), dict(data["damaged"]))

    def __iadd__(self, other: Tally) -> Tally:
        """Add the counts of another tally; of each reason and each shard the first detail stays."""
        self.read += other.read
        self.skipped += other.skipped
        self.examples = {**other.examples, **self.examples}
        self.damaged = {**other.damaged, **self.damaged}
        return self

    def __str__(self) -> str:
        """Say how many samples were skipped and why, the most frequent reasons first, with an example of each."""
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.skipped.most_common(10))
        return f"skipped {self.skipped.total()} of {self.read} samples: {reasons}; for example {self._examples()}"

    def judge_samples(self, max_bad_fraction: float) -> None:
        """Raise DataError when more samples are bad than `max_bad_fraction` allows."""
        bad = self.skipped.total()
        if bad > max_bad_fraction * self.read:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.skipped.most_common())
            raise DataError(
                f"{bad} of {self.read} samples are bad ({reasons}), more than data.max_bad_fraction = "
                f"{max_bad_fraction} allows: repair the shards or raise the limit; for example {self._examples()}"
            )

    def judge_shards(self, max_bad_shards: int) -> None:
        """Raise DataError when more shards are damaged than `max_bad_shards` allows."""
        if (count := len(self.damaged)) > max_bad_shards:
            told = first_few([f"{shard}: {why}" for shard, why in self.damaged.items()], 20)
            raise DataError(
                f"{count} {'shard is' if count == 1 else 'shards are'} damaged, more than data.max_bad_shards = "
                f"{max_bad_shards} allows: repair them, leave them out of data.shards, or raise the limit, and what "
                f"can be read of them is used: {told}"
            )

    def _examples(self) -> str:
        return first_few([f"{reason}: {self.examples[reason]}" for reason, _ in self.skipped.most_common()])
