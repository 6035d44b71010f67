"""From records to the tensors of a batch."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hypclip.data.augment import AugmentConfig, TrainingTransform, crop_box
from hypclip.data.record import Box, Record
from hypclip.roles import BOX_ROLES, CONCEPT, MISSING, Role
from hypclip.taxonomy import Taxonomy
from hypclip.towers.passes import TextPasses
from hypclip.towers.text import Tokenizer

WHOLE_IMAGE = 0.95
"""Share of the image from which a box is treated as the whole image and gives no entailment edge."""


@dataclass(frozen=True)
class Example:
    """One sample before collation: role → pixels, role → texts, role → content ids; box roles have one entry per box.

    Pixels are uint8 and channels-last, as they are in a batch until it is normalised. `weights` has one relative weight
    per box, none without boxes. `above` has for each text its ancestors in the taxonomy, the nearest first; it is empty
    without a taxonomy.
    """

    images: dict[Role, Tensor]
    texts: dict[Role, list[str]]
    content: dict[Role, list[int]]
    weights: list[float]
    above: dict[Role, list[tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """B samples: role → pixels (B, 3, H, W), token ids of B texts per role, role → content ids (B,) (see `Objective`).

    With up to N > 1 boxes per sample, box roles hold the M boxes there are, (M, 3, H, W) and M texts; contents are
    (B, N), padded with MISSING, `box_weight` (B, N) is 0 there, and `box_rows` (M,) is the place of each box in B · N.

    With a taxonomy, the role "concept" has C of its phrases, of no sample: C texts, contents and `levels` (C,).
    `ancestors` has for it and for each text role the content ids of its ancestors, (…, A), padded with MISSING.
    """

    images: dict[str, Tensor]
    texts: TextPasses
    content: dict[str, Tensor]
    box_weight: Tensor | None = None
    box_rows: Tensor | None = None
    ancestors: dict[str, Tensor] = field(default_factory=dict)
    levels: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of samples B."""
        return next(ids.shape[0] for role, ids in self.content.items() if role != CONCEPT)

    def split(self, parts: int) -> list[Batch]:
        """Return the batch in up to `parts` parts of nearly equal size, in order."""
        parts = min(parts, self.size)
        return [self._part(part, parts) for part in range(parts)]

    def to(self, device: torch.device, change: Callable[[Tensor], Tensor] = lambda pixels: pixels) -> Batch:
        """Return the batch on a device, its pixels changed there, such as by a `Normaliser`."""
        images = {r: change(x.to(device, non_blocking=True)) for r, x in self.images.items()}
        return replace(self._mapped(lambda x: x.to(device, non_blocking=True), without_images=True), images=images)

    def pin_memory(self) -> Batch:
        """Return the batch in memory that a GPU reads while the processor goes on; the data loader calls this."""
        return self._mapped(lambda x: x.pin_memory())

    def _mapped(self, change: Callable[[Tensor], Tensor], without_images: bool = False) -> Batch:
        def each(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {role: change(x) for role, x in tensors.items()}

        def one(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else change(tensor)

        return Batch(
            self.images if without_images else each(self.images),
            self.texts.map(change),
            each(self.content),
            one(self.box_weight),
            one(self.box_rows),
            each(self.ancestors),
            one(self.levels),
        )

    def _part(self, part: int, parts: int) -> Batch:
        start, stop = (self.size * k // parts for k in (part, part + 1))
        concepts = slice(*(self._concepts * k // parts for k in (part, part + 1)))
        boxes, weight, box_rows = slice(start, stop), self.box_weight, self.box_rows
        if weight is not None and box_rows is not None:
            ends = torch.tensor([start, stop]) * weight.shape[1]
            first, last = torch.searchsorted(box_rows.cpu(), ends).tolist()
            # Towers do not take empty batches: a box of another sample stands in, at a place whose weight is 0.
            boxes = slice(first, last) if first < last else slice(0, 1)
            box_rows = box_rows[boxes] - start * weight.shape[1] if first < last else box_rows.new_zeros(1)
            weight = weight[start:stop]

        def rows(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            found = {role: x[concepts if role == CONCEPT else slice(start, stop)] for role, x in tensors.items()}
            return {role: x for role, x in found.items() if role != CONCEPT or len(x)}

        return Batch(
            {role: x[boxes if role in BOX_ROLES else slice(start, stop)] for role, x in self.images.items()},
            self.texts.part({"text": slice(start, stop), "box_text": boxes, CONCEPT: concepts}),
            rows(self.content),
            weight,
            box_rows,
            rows(self.ancestors),
            None if self.levels is None else self.levels[concepts],
        )

    @property
    def _concepts(self) -> int:
        return len(self.content[CONCEPT]) if CONCEPT in self.content else 0


class ExampleMaker:
    """Choose boxes of a record, crop them from the decoded image, and make all random changes.

    Args:
        roles: what the recipe needs; boxes are left out when it needs none.
        image_size: side of the towers' pixels.
        augment: see AugmentConfig.
        box_margin: a crop is up to this fraction wider than its box.
        max_boxes: 1 draws one box by score, and stands the whole image in for the box of an image without any; more
            takes the best by score.
        box_size: side of the pixels of boxes, where it is another.
        taxonomy: what stands above the phrases of captions and boxes, if it is known.
    """

    def __init__(
        self,
        roles: frozenset[Role],
        image_size: int,
        augment: AugmentConfig,
        box_margin: float = 0.0,
        max_boxes: int = 1,
        box_size: int | None = None,
        taxonomy: Taxonomy | None = None,
    ):
        self.taxonomy = taxonomy
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
        image_id = content_id(name)
        images: dict[Role, Tensor] = {}
        texts: dict[Role, list[str]] = {}
        content: dict[Role, list[int]] = {}
        if "image" in self.roles:
            images["image"], content["image"] = self.transform(record.pixels, rng), [image_id]
        if "text" in self.roles:
            texts["text"], content["text"] = [caption], [text_id(caption)]
        if "box_image" in self.roles:
            crops = [self._crop(record.pixels, box, rng) for box in boxes]
            content["box_image"] = [self._content(name, image_id, box) for box in boxes]
            images["box_image"] = _stack(crops) if crops else _none(self.box_size)
        if "box_text" in self.roles:
            texts["box_text"] = [caption if box is None else box.phrase for box in boxes]
            content["box_text"] = [MISSING if box is None else text_id(box.phrase) for box in boxes]
        scores = [0.0 if box is None else box.score for box in boxes]
        weights = scores if sum(scores) > 0 else [1.0] * len(boxes)
        above = {}
        if self.taxonomy is not None:
            above = {role: [self.taxonomy.ancestors(text) for text in some] for role, some in texts.items()}
        return Example(images, texts, content, weights, above)

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

    def _content(self, name: str, image_id: int, box: Box | None) -> int:
        if box is None:
            return MISSING
        return image_id if box.area >= WHOLE_IMAGE else content_id(f"{name}/{box}")


def draw_box(boxes: Sequence[Box], rng: random.Random) -> Box | None:
    """Draw one box with probability by score; None where there is none."""
    if not boxes:
        return None
    scores = [b.score for b in boxes]
    return rng.choices(boxes, scores if sum(scores) > 0 else None)[0]


def collate(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    max_boxes: int = 1,
    taxonomy: Taxonomy | None = None,
    concepts: int = 0,
    pass_tokens: int | None = None,
) -> Batch:
    """Stack examples, and plan the passes in which the text tower reads their texts.

    Args:
        examples: B of them, of one recipe.
        tokenizer: of the model.
        max_boxes: N, as the examples were made with.
        taxonomy: as the examples were made with.
        concepts: C, how many of its phrases join the batch: first the ancestors of the texts of the batch, the most
            frequent first, then others, drawn by what is in the batch.
        pass_tokens: see `TextPasses.plan`.
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
    ancestors: dict[str, Tensor] = {}
    levels = None
    if taxonomy is not None:
        boxes = {role: max_boxes if several and role in BOX_ROLES else 1 for role in first.above}
        for role in first.above:
            padded = [e.above[role] + [()] * (boxes[role] - len(e.above[role])) for e in examples]
            ids = _ids_above([above for one in padded for above in one], taxonomy)
            ancestors[role] = ids.view(len(examples), boxes[role], -1) if boxes[role] > 1 else ids
        phrases = _concepts(examples, taxonomy, concepts)
        if phrases:
            texts[CONCEPT] = phrases
            content[CONCEPT] = torch.tensor([text_id(phrase) for phrase in phrases])
            ancestors[CONCEPT] = _ids_above([taxonomy.ancestors(phrase) for phrase in phrases], taxonomy)
            levels = torch.tensor([taxonomy.level(phrase) for phrase in phrases])
    weight = rows = None
    if several:
        weight = torch.tensor([e.weights + [0.0] * (max_boxes - len(e.weights)) for e in examples])
        rows = torch.cat([torch.arange(len(e.weights)) + i * max_boxes for i, e in enumerate(examples)])
        if not len(rows):  # towers do not take empty batches: one row that counts nothing stands in
            rows = torch.zeros(1, dtype=torch.int64)
            images |= {role: torch.zeros_like(_none(x.shape[2], 1)) for role, x in images.items() if role in BOX_ROLES}
            texts |= {role: [""] for role in texts if role in BOX_ROLES}
    tokens = {role: tokenizer.encode(found) for role, found in texts.items()}
    passes = TextPasses.plan(tokens, tokenizer.pad_id, pass_tokens)
    return Batch(images, passes, content, weight, rows, ancestors, levels)


def _concepts(examples: Sequence[Example], taxonomy: Taxonomy, count: int) -> list[str]:
    """Return up to `count` phrases of a taxonomy, always as many: those above the texts of a batch, and others."""
    count = min(count, len(taxonomy))
    above = Counter(up for e in examples for some in e.above.values() for one in some for up in one)
    found = sorted(above, key=lambda phrase: (-above[phrase], phrase))[:count]
    if len(found) == count:
        return found
    rng = random.Random(str([e.content for e in examples]))
    known = set(found)
    for of in ("general", "phrases"):
        pool: tuple[str, ...] = getattr(taxonomy, of) if len(found) < count else ()
        rest = [phrase for phrase in pool if phrase not in known]
        more = rng.sample(rest, min(count - len(found), len(rest)))
        found += more
        known |= set(more)
    return found


def _ids_above(above: Sequence[tuple[str, ...]], taxonomy: Taxonomy) -> Tensor:
    """Return the content ids of what stands above each text, (n, A), padded with MISSING."""
    most = taxonomy.most_ancestors
    return torch.tensor([[text_id(up) for up in one] + [MISSING] * (most - len(one)) for one in above])


def _stack(images: Sequence[Tensor]) -> Tensor:
    """Stack images (3, H, W) that are channels-last, and keep them so."""
    return torch.stack([x.permute(1, 2, 0) for x in images]).permute(0, 3, 1, 2)


def _cat(images: Sequence[Tensor]) -> Tensor:
    """Concatenate images (N, 3, H, W) that are channels-last, and keep them so."""
    return torch.cat([x.permute(0, 2, 3, 1) for x in images]).permute(0, 3, 1, 2)


def _none(size: int, count: int = 0) -> Tensor:
    """Return room for so many images."""
    return torch.empty(count, size, size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)


def text_id(text: str) -> int:
    """Return the content id of a text; case and spacing make no difference, as to the tokenizer."""
    return content_id("text/" + " ".join(text.lower().split()))


def content_id(name: str) -> int:
    """Return a non-negative 63-bit id, the same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1
