"""Measures of a model's hierarchy: radii by level, the content of regions, and how much of it the cosine explains."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hypclip.evaluation.is_a import EdgeSet, Instances, Phrases
from hypclip.evaluation.regions import (
    containment,
    edge_measures,
    geodesic_against_cosine,
    half_spaces,
    radii,
    transitivity,
)
from hypclip.evaluation.retrieval import Pairs
from hypclip.evaluation.zero_shot import embed_files
from hypclip.model import HypCLIP
from hypclip.taxonomy import same_phrase


@dataclass(frozen=True)
class Captioned:
    """Images with their captions, each with the row of its own image, and the phrases of their boxes."""

    pairs: Pairs
    captions: list[str]
    image_of: Tensor

    @functools.cached_property
    def parts(self) -> list[tuple[str, int]]:
        """The phrases of boxes and the rows of the captions they are of; one that is its whole caption is no part."""
        first = {image: row for row, image in reversed(list(enumerate(self.image_of.tolist())))}
        found = {(box.phrase, first[i]) for i, one in enumerate(self.pairs.records) for box in one.boxes}
        return sorted(part for part in found if same_phrase(part[0]) != same_phrase(self.captions[part[1]]))

    @classmethod
    def of(cls, pairs: Pairs) -> Captioned:
        """Lay out the captions of images one after the other."""
        captions = [caption for record in pairs.records for caption in record.captions]
        return cls(pairs, captions, torch.tensor([i for i, one in enumerate(pairs.records) for _ in one.captions]))

    def embed(self, model: HypCLIP) -> tuple[Tensor, Tensor]:
        """Embed the images and the captions."""
        records = self.pairs.records
        # A slice at a time: each image is made anew from its pixels.
        slices = [records[first : first + 128] for first in range(0, len(records), 128)]
        images = torch.cat([model.embed_image([record.image for record in some]) for some in slices])
        return images, model.embed_text(self.captions)


@dataclass(frozen=True)
class Hierarchy:
    """The data that a model's hierarchy is measured with.

    Args:
        phrases: of the taxonomy, and those that are held out.
        instances: labelled images, with the phrases that they are instances of.
        captioned: captions and their own images.
    """

    phrases: Phrases
    instances: Instances | None = None
    captioned: Captioned | None = None

    @functools.cached_property
    def sets(self) -> list[EdgeSet]:
        """The sets of pairs that a model is asked about."""
        shown = self.phrases.instance_sets(self.instances) if self.instances else []
        return [*self.phrases.text_sets(), *shown]

    def measure(self, model: HypCLIP) -> dict[str, int | float]:
        """Measure whether a model's hierarchy holds, by the model's own rule of entailment.

        - phrases, held_out, pictures (labelled images), images (with captions), captions: how many took part;
          skipped: bad samples of the shards;
        - half_spaces: the share of texts so near the origin that MERU's cone (K = 0.1) of them is a half-space;
        - transitivity: of g ⊐ m, m ⊐ s that are asserted of phrases, the share whose g ⊐ s is;
        - geodesic_against_cosine: rank correlation of similarity and cosine over phrases, captions and images, mean
          over up to 100 of the images; without captions the labelled ones stand in for images, and phrases for those;
        - radius/L: median √c · radius of the phrases of level L, 0 for roots, and of captions and images;
        - order/L: of the is-a edges whose parent is of level L, the share whose parent is nearer to the origin than the
          child; the same of the edges that are held out, of captions and their images, and of phrases of boxes and
          their captions (order/phrase);
        - inside/own_image, inside/other_image: the share of captions whose region holds it;
        - violated/all, violated/own_image: the share of what is true that lies outside the region it belongs in;
        - A-B/…, A-B_held_out/…, all/…, held_out/…, A-picture/…, A-picture_held_out/…: the measures of `edge_measures`
          for the phrases of level A over those of level B, all general phrases over all, and the phrases of level A
          over labelled images; and each over what is held out alone.

        The sphere has neither radii nor regions, and only the counts and the last kind. Measures without a value are
        left out, such as transitivity where nothing is asserted.
        """
        texts = model.embed_text(self.phrases.all)
        images, captions = self.captioned.embed(model) if self.captioned else (None, None)
        shown = embed_files(model, self.instances.files) if self.instances else None
        edges: dict[str, int | float] = {}
        for one in self.sets:
            general, specific = texts[one.general], (texts if shown is None or not one.of_images else shown)
            measures = edge_measures(model, general, specific[one.specific], one.truth(), one.asked(), one.of_one_level)
            edges |= {f"{one.name}/{name}": value for name, value in measures}
        found = self._counts()
        if model.metric.has_cones:
            groups = {"caption": captions, "image": images, "picture": shown}
            found |= _of_radii(model, self.phrases, texts, {name: x for name, x in groups.items() if x is not None})
            found |= {"transitivity": transitivity(model, texts), "violated/all": 1 - edges.get("all/recall", math.nan)}
            if self.captioned and images is not None and captions is not None:
                found |= _of_captions(model, captions, images, self.captioned)
        found |= edges
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _counts(self) -> dict[str, int | float]:
        counts: dict[str, int | float] = {"phrases": len(self.phrases.all)}
        if self.phrases.held_out:
            counts["held_out"] = len(self.phrases.held_out)
        if self.instances:
            counts["pictures"] = len(self.instances.files)
        if self.captioned:
            counts |= {"images": len(self.captioned.pairs.records), "captions": len(self.captioned.captions)}
            counts["skipped"] = len(self.captioned.pairs.bad)
        return counts


def _of_radii(model: HypCLIP, phrases: Phrases, texts: Tensor, others: Mapping[str, Tensor]) -> dict[str, int | float]:
    """Measure what needs radii alone; `others` are captions, images and labelled images, those that there are."""
    worded = torch.cat([texts, others.get("caption", texts[:0])])
    queries = others.get("image", others.get("picture", texts[:0]))
    pool = torch.cat([worded, queries])
    asking = torch.arange(len(worded), len(pool)) if len(queries) else torch.arange(len(pool))
    found: dict[str, int | float] = {
        "half_spaces": half_spaces(model, worded),
        "geodesic_against_cosine": geodesic_against_cosine(model, pool, asking),
    }
    radius = radii(model, texts)
    for level in range(phrases.depth + 1):
        found[f"radius/{level}"] = radius[phrases.levels == level].quantile(0.5).item()
    found |= {f"radius/{name}": radii(model, x).quantile(0.5).item() for name, x in others.items()}
    child, parent = phrases.edges()
    nearer = (radius[parent] < radius[child]).double()
    for level in range(phrases.depth):
        found[f"order/{level}"] = nearer[phrases.levels[parent] == level].mean().item()
    found["order/held_out"] = nearer[[phrases.all[row] in phrases.held_out for row in child.tolist()]].mean().item()
    return found


def _of_captions(model: HypCLIP, captions: Tensor, images: Tensor, data: Captioned) -> dict[str, int | float]:
    nearer = radii(model, captions) < radii(model, images)[data.image_of]
    own, other = containment(model, captions, images, data.image_of, data.captions)
    found = {
        "order/caption": nearer.double().mean().item(),
        "inside/own_image": own,
        "inside/other_image": other,
        "violated/own_image": 1 - own,
    }
    if data.parts:
        phrases, wholes = zip(*data.parts, strict=True)
        apart = radii(model, captions)[list(wholes)] - radii(model, model.embed_text(phrases))
        found["order/phrase"] = (apart > 0).double().mean().item()
    return found
