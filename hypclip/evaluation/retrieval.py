"""Retrieval between pictures and their captions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from jaxtyping import Float
from torch import Tensor

from hypclip.data.record import BadSample, Record, read_record
from hypclip.data.shards import samples_of
from hypclip.errors import DataError
from hypclip.model import HypCLIP


def read_pairs(shards: Sequence[str], limit: int) -> list[Record]:
    """Read the first `limit` usable samples of some shards, in order; bad ones are passed over.

    Raises:
        DataError: a damaged shard, or fewer than two usable samples.
    """
    samples = (sample for shard in shards for sample in samples_of(shard))
    records = list(itertools.islice(_usable(samples), limit))
    if len(records) < 2:
        raise DataError(f"retrieval needs at least two pictures with captions, {list(shards)} hold {len(records)}")
    return records


def _usable(samples: Iterator[dict[str, bytes]]) -> Iterator[Record]:
    for sample in samples:
        try:
            yield read_record(sample)
        except BadSample:
            continue


def retrieval(model: HypCLIP, images: Float[Tensor, "n d"], texts: Float[Tensor, "n d"]) -> Iterator[tuple[str, float]]:
    """Yield image_to_text_r1, _r5, _r10 and text_to_image_r1, _r5, _r10: how often the own partner is that near.

    Row i of both belongs together. Partners at exactly the same similarity, such as equal captions, do not push each
    other down.
    """
    similarity = model.similarity(images, texts)
    own = similarity.diagonal()
    for name, ahead in (
        # Not "greater": a similarity that is not a number is to count as a miss.
        ("image_to_text", (~(similarity <= own.unsqueeze(1))).sum(1)),
        ("text_to_image", (~(similarity <= own.unsqueeze(0))).sum(0)),
    ):
        for k in (1, 5, 10):
            yield f"{name}_r{k}", (ahead < k).double().mean().item()
