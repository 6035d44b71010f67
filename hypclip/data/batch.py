"""From records to the tensors of a batch."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hypclip.data.augment import AugmentConfig, TrainingTransform, crop_box
from hypclip.data.record import Box, Record
from hypclip.roles import BOX_ROLES, MISSING, Role

WHOLE_PICTURE = 0.95
"""A box that covers this share of the picture is the picture: it orders nothing."""


@dataclass(frozen=True)
class Example:
    """One sample, ready to be stacked: role → pixels, role → texts, role → content ids, one entry a box for box roles.

    Pixels are whole numbers of 0 to 255 with colours last in memory, as they are in a batch until it is normalised.
    `weights` is what each box counts beside the others; a recipe without boxes has none, a picture without boxes too.
    """

    images: dict[Role, Tensor]
    texts: dict[Role, list[str]]
    content: dict[Role, list[int]]
    weights: list[float]


@dataclass(frozen=True)
class Batch:
    """B samples: role → pixels (B, 3, H, W), role → token ids (B, L), role → content ids (B,) (see `Objective`).

    With up to N > 1 boxes a sample, box roles hold the M boxes there are, (M, 3, H, W) and (M, L); their contents are
    (B, N), padded with MISSING, `box_weight` (B, N) is 0 there, and `box_rows` (M,) is the place of each box in B · N.
    """

    images: dict[str, Tensor]
    texts: dict[str, Tensor]
    content: dict[str, Tensor]
    box_weight: Tensor | None = None
    box_rows: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of samples B."""
        return next(iter(self.content.values())).shape[0]

    def split(self, parts: int) -> list[Batch]:
        """Return the batch in up to `parts` parts of nearly equal size, in order."""
        edges = [self.size * k // parts for k in range(parts + 1)]
        return [self._rows(start, stop) for start, stop in itertools.pairwise(edges) if stop > start]

    def to(self, device: torch.device, change: Callable[[Tensor], Tensor] = lambda pixels: pixels) -> Batch:
        """Return the batch on a device, its pixels changed there, such as by a `Normaliser`."""
        return Batch(
            {r: change(x.to(device, non_blocking=True)) for r, x in self.images.items()},
            {r: x.to(device, non_blocking=True) for r, x in self.texts.items()},
            {r: x.to(device, non_blocking=True) for r, x in self.content.items()},
            None if self.box_weight is None else self.box_weight.to(device),
            None if self.box_rows is None else self.box_rows.to(device),
        )

    def pin_memory(self) -> Batch:
        """Return the batch in memory that a GPU reads while the processor goes on; the data loader calls this."""
        return Batch(
            {role: x.pin_memory() for role, x in self.images.items()},
            {role: x.pin_memory() for role, x in self.texts.items()},
            {role: x.pin_memory() for role, x in self.content.items()},
            None if self.box_weight is None else self.box_weight.pin_memory(),
            None if self.box_rows is None else self.box_rows.pin_memory(),
        )

    def _rows(self, start: int, stop: int) -> Batch:
        content = {role: ids[start:stop] for role, ids in self.content.items()}
        if self.box_weight is None or self.box_rows is None:
            return Batch(
                {role: x[start:stop] for role, x in self.images.items()},
                {role: x[start:stop] for role, x in self.texts.items()},
                content,
            )
        boxes = self.box_weight.shape[1]
        first, last = torch.searchsorted(self.box_rows.cpu(), torch.tensor([start * boxes, stop * boxes])).tolist()

        alone = first == last  # towers do not take empty batches: one row that counts nothing stands in

        def rows(role: str, x: Tensor) -> Tensor:
            if role not in BOX_ROLES:
                return x[start:stop]
            return x.new_zeros(1, *x.shape[1:]) if alone else x[first:last]

        return Batch(
            {role: rows(role, x) for role, x in self.images.items()},
            {role: rows(role, x) for role, x in self.texts.items()},
            content,
            self.box_weight[start:stop],
            self.box_rows.new_zeros(1) if alone else self.box_rows[first:last] - start * boxes,
        )


class ExampleMaker:
    """Choose boxes of a record, crop them from the decoded picture, and make all random changes.

    Args:
        roles: what the recipe needs; boxes are left out when it needs none.
        image_size: side of the towers' pixels.
        augment: see AugmentConfig.
        box_margin: a crop is up to this fraction wider than its box.
        max_boxes: 1 draws one box by score, and stands the whole picture in for the box of a picture without any; more
            takes the best by score.
        box_size: side of the pixels of boxes, where it is another.
    """

    def __init__(
        self,
        roles: frozenset[Role],
        image_size: int,
        augment: AugmentConfig,
        box_margin: float = 0.0,
        max_boxes: int = 1,
        box_size: int | None = None,
    ):
        self.roles, self.box_margin, self.max_boxes = roles, box_margin, max_boxes
        self.box_size = box_size or image_size
        self.transform = TrainingTransform(image_size, augment)
        self.box_transform = TrainingTransform(self.box_size, augment)

    def __call__(self, record: Record, seed: str) -> Example:
        """Return the example; a pure function of the record and `seed`."""
        rng = random.Random(seed)
        boxes = self._boxes(record, rng)
        caption = self._caption(record, seed)
        name = f"picture/{record.shard}/{record.key}"
        picture = content_id(name)
        images: dict[Role, Tensor] = {}
        texts: dict[Role, list[str]] = {}
        content: dict[Role, list[int]] = {}
        if "image" in self.roles:
            images["image"], content["image"] = self.transform(record.pixels, rng), [picture]
        if "text" in self.roles:
            texts["text"], content["text"] = [caption], [text_id(caption)]
        if "box_image" in self.roles:
            crops = [self._crop(record.pixels, box, rng) for box in boxes]
            content["box_image"] = [self._content(name, picture, box) for box in boxes]
            images["box_image"] = _stack(crops) if crops else _none(self.box_size)
        if "box_text" in self.roles:
            texts["box_text"] = [caption if box is None else box.phrase for box in boxes]
            content["box_text"] = [MISSING if box is None else text_id(box.phrase) for box in boxes]
        scores = [0.0 if box is None else box.score for box in boxes]
        weights = scores if sum(scores) > 0 else [1.0] * len(boxes)
        return Example(images, texts, content, weights)

    def _caption(self, record: Record, seed: str) -> str:
        """Draw one of several captions; beside boxes the first, which their phrases are of."""
        if len(record.captions) == 1 or (record.boxes and self.roles & BOX_ROLES):
            return record.caption
        return random.Random(f"{seed}/caption").choice(record.captions)

    def _boxes(self, record: Record, rng: random.Random) -> list[Box] | list[Box | None]:
        if not self.roles & BOX_ROLES:
            return []
        if self.max_boxes == 1:
            return [draw_box(record.boxes, rng)]
        return sorted(record.boxes, key=lambda box: -box.score)[: self.max_boxes]

    def _crop(self, pixels: Tensor, box: Box | None, rng: random.Random) -> Tensor:
        if box is None:
            return self.box_transform(pixels, rng)
        return self.box_transform(crop_box(pixels, box, rng.uniform(0.0, self.box_margin)), rng)

    def _content(self, name: str, picture: int, box: Box | None) -> int:
        if box is None:
            return MISSING
        return picture if box.area >= WHOLE_PICTURE else content_id(f"{name}/{box}")


def draw_box(boxes: Sequence[Box], rng: random.Random) -> Box | None:
    """Draw one box with probability by score; None where there is none."""
    if not boxes:
        return None
    scores = [b.score for b in boxes]
    return rng.choices(boxes, scores if sum(scores) > 0 else None)[0]


def collate(examples: Sequence[Example], tokenizer: Callable[[Sequence[str]], Tensor], max_boxes: int = 1) -> Batch:
    """Stack examples; each role's texts are padded to their own longest.

    Args:
        examples: B of them, of one recipe.
        tokenizer: texts → token ids.
        max_boxes: N, as the examples were made with.
    """
    first = examples[0]
    several = max_boxes > 1
    images: dict[str, Tensor] = {
        role: (_cat if role in BOX_ROLES else _stack)([e.images[role] for e in examples]) for role in first.images
    }
    texts: dict[str, list[str]] = {role: [text for e in examples for text in e.texts[role]] for role in first.texts}
    content: dict[str, Tensor] = {
        role: torch.tensor([ids + [MISSING] * (max_boxes - len(ids)) for ids in (e.content[role] for e in examples)])
        if several and role in BOX_ROLES
        else torch.tensor([e.content[role][0] for e in examples])
        for role in first.content
    }
    if not several:
        return Batch(images, {role: tokenizer(rows) for role, rows in texts.items()}, content)
    weight = torch.tensor([e.weights + [0.0] * (max_boxes - len(e.weights)) for e in examples])
    rows = torch.cat([torch.arange(len(e.weights)) + i * max_boxes for i, e in enumerate(examples)])
    if not len(rows):  # towers do not take empty batches: one row that counts nothing stands in
        rows = torch.zeros(1, dtype=torch.int64)
        images |= {role: torch.zeros_like(_none(x.shape[2], 1)) for role, x in images.items() if role in BOX_ROLES}
        texts |= {role: [""] for role in texts if role in BOX_ROLES}
    return Batch(images, {role: tokenizer(found) for role, found in texts.items()}, content, weight, rows)


def _stack(pictures: Sequence[Tensor]) -> Tensor:
    """Stack pictures (3, H, W), colours last in memory as they are there."""
    return torch.stack([x.permute(1, 2, 0) for x in pictures]).permute(0, 3, 1, 2)


def _cat(pictures: Sequence[Tensor]) -> Tensor:
    """Put pictures (N, 3, H, W) one after the other, colours last in memory as they are there."""
    return torch.cat([x.permute(0, 2, 3, 1) for x in pictures]).permute(0, 3, 1, 2)


def _none(size: int, count: int = 0) -> Tensor:
    """Return room for so many pictures."""
    return torch.empty(count, size, size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)


def text_id(text: str) -> int:
    """Return the content id of a text; case and spacing make no difference, as to the tokenizer."""
    return content_id("text/" + " ".join(text.lower().split()))


def content_id(name: str) -> int:
    """Return a non-negative 63-bit id, the same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1
