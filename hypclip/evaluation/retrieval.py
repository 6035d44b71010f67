"""Retrieval between images and their captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hypclip.data.record import BadSample, Reading, Record, read_record
from hypclip.data.samples import samples_of
from hypclip.errors import DataError, first_few
from hypclip.model import HypCLIP


class Pairs(NamedTuple):
    """Images with their captions, and the reason of each sample that was skipped."""

    records: list[Record]
    bad: list[str]


def read_pairs(shards: Sequence[str], limit: int, reading: Reading = Reading()) -> Pairs:  # noqa: B008, it is frozen
    """Read the first `limit` usable samples of some shards, in order; bad ones are passed over.

    Raises:
        DataError: a damaged shard, or fewer than two usable samples.
    """
    records: list[Record] = []
    bad: list[str] = []
    for sample in (sample for shard in shards for sample in samples_of(shard)):
        try:
            records.append(read_record(sample, reading))
        except BadSample as error:
            bad.append(str(error))
        if len(records) == limit:
            break
    if len(records) < 2:
        told = f", and {len(bad)} bad samples: {first_few(bad)}" if bad else ""
        raise DataError(f"at least two images with captions are needed, {list(shards)} hold {len(records)}{told}")
    return Pairs(records, bad)


def retrieval(
    model: HypCLIP, images: Float[Tensor, "n d"], texts: Float[Tensor, "m d"], image_of: Int[Tensor, " m"] | None = None
) -> Iterator[tuple[str, float]]:
    """Yield image_to_text_r1, _r5, _r10 and text_to_image_r1, _r5, _r10: how often a partner is that near.

    An image has found a text when any of its captions is among the k nearest; a caption has found its one image. That
    is how the field scores COCO and Flickr30k. Partners at exactly the same similarity, such as equal captions, do not
    push each other down.

    Args:
        model: of the embeddings.
        images: N of them, each with at least one caption.
        texts: all captions.
        image_of: the row of the image of each caption; without it row i of both belongs together.
    """
    similarity = model.similarity(images, texts)
    if image_of is None:
        image_of = torch.arange(len(texts))
    image_of = image_of.to(similarity.device)
    columns = torch.arange(len(texts), device=similarity.device)
    own = similarity[image_of, columns].nan_to_num(nan=-torch.inf)
    best = similarity.new_full((len(images),), -torch.inf).scatter_reduce(0, image_of, own, "amax")
    for name, partner, ahead in (
        # Not "greater": what is not a number counts as nearer, and as a partner it is not found.
        ("image_to_text", best, (~(similarity <= best.unsqueeze(1))).sum(1)),
        ("text_to_image", own, (~(similarity <= own.unsqueeze(0))).sum(0)),
    ):
        found = partner.isfinite()
        for k in (1, 5, 10):
            yield f"{name}_r{k}", ((ahead < k) & found).double().mean().item()
