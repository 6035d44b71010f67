"""From records to the tensors of a batch."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hypclip.data.augment import AugmentConfig, TrainingTransform, crop_box
from hypclip.data.record import Box, Record
from hypclip.roles import MISSING, Role

WHOLE_PICTURE = 0.95
"""A box that covers this share of the picture is the picture: it orders nothing."""


@dataclass(frozen=True)
class Example:
    """One sample, ready to be stacked: role → pixels, role → text, role → content id."""

    images: dict[Role, Tensor]
    texts: dict[Role, str]
    content: dict[Role, int]


@dataclass(frozen=True)
class Batch:
    """B samples: role → (B, 3, H, W) pixels, role → (B, L) token ids, role → (B,) content ids (see `Objective`)."""

    images: dict[str, Tensor]
    texts: dict[str, Tensor]
    content: dict[str, Tensor]

    @property
    def size(self) -> int:
        """Number of samples B."""
        return next(iter(self.content.values())).shape[0]


class ExampleMaker:
    """Draw one box of a record, crop it from the decoded picture, and make all random changes.

    Args:
        roles: what the recipe needs; boxes are left out when it needs none.
        image_size: side of the towers' pixels.
        augment: see AugmentConfig.
        mean: pixel statistics.
        std: pixel statistics.
        box_margin: a crop is up to this fraction wider than its box.
    """

    def __init__(
        self,
        roles: frozenset[Role],
        image_size: int,
        augment: AugmentConfig,
        mean: Sequence[float],
        std: Sequence[float],
        box_margin: float = 0.0,
    ):
        self.roles = roles
        self.box_margin = box_margin
        self.transform = TrainingTransform(image_size, augment, mean, std)

    def __call__(self, record: Record, seed: str) -> Example:
        """Return the example; a pure function of the record and `seed`."""
        rng = random.Random(seed)
        box = draw_box(record.boxes, rng)
        name = f"picture/{record.shard}/{record.key}"
        picture = content_id(name)
        images: dict[Role, Tensor] = {}
        texts: dict[Role, str] = {}
        content: dict[Role, int] = {}
        if "image" in self.roles:
            images["image"], content["image"] = self.transform(record.image, rng), picture
        if "text" in self.roles:
            texts["text"], content["text"] = record.caption, text_id(record.caption)
        if "box_image" in self.roles:
            if box is None:
                images["box_image"], content["box_image"] = self.transform(record.image, rng), MISSING
            else:
                margin = rng.uniform(0.0, self.box_margin)
                images["box_image"] = self.transform(crop_box(record.image, box, margin), rng)
                whole = box.area >= WHOLE_PICTURE
                content["box_image"] = picture if whole else content_id(f"{name}/{box}")
        if "box_text" in self.roles:
            texts["box_text"] = record.caption if box is None else box.phrase
            content["box_text"] = MISSING if box is None else text_id(box.phrase)
        return Example(images, texts, content)


def draw_box(boxes: Sequence[Box], rng: random.Random) -> Box | None:
    """Draw one box with probability by score; None where there is none."""
    if not boxes:
        return None
    scores = [b.score for b in boxes]
    return rng.choices(boxes, scores if sum(scores) > 0 else None)[0]


def collate(examples: Sequence[Example], tokenizer: Callable[[Sequence[str]], Tensor]) -> Batch:
    """Stack examples; each role's texts are padded to their own longest."""
    first = examples[0]
    return Batch(
        {role: torch.stack([e.images[role] for e in examples]) for role in first.images},
        {role: tokenizer([e.texts[role] for e in examples]) for role in first.texts},
        {role: torch.tensor([e.content[role] for e in examples]) for role in first.content},
    )


def text_id(text: str) -> int:
    """Return the content id of a text; case and spacing make no difference, as to the tokenizer."""
    return content_id("text/" + " ".join(text.lower().split()))


def content_id(name: str) -> int:
    """Return a non-negative 63-bit id, the same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1
