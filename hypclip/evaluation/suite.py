"""Evaluations by name, as a YAML file lists them, and what they find."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Annotated, TypeAlias

import torch
from annotated_types import Ge
from pydantic.dataclasses import dataclass

from hypclip.config import STRICT_KEYS, UserPath, UserPlaces
from hypclip.data.record import Reading
from hypclip.data.shards import find_shards
from hypclip.errors import ConfigError
from hypclip.evaluation.hierarchy import hierarchy_scores, read_taxonomy, require_classes, same_ancestor
from hypclip.evaluation.retrieval import read_pairs, retrieval
from hypclip.evaluation.zero_shot import DEFAULT_TEMPLATES, check_templates, read_labelled_images, zero_shot
from hypclip.model import HypCLIP

logger = logging.getLogger(__name__)

Evaluation: TypeAlias = Callable[[HypCLIP], Mapping[str, int | float]]


@dataclass(frozen=True, config=STRICT_KEYS)
class ZeroShotTask:
    """Pictures by class; see train/zero_shot.py. `ancestors` names depths of the taxonomy to score answers at."""

    images: UserPath
    classes: UserPath
    taxonomy: UserPath | None = None
    templates: list[str] = field(default_factory=lambda: list(DEFAULT_TEMPLATES))
    ancestors: dict[str, Annotated[int, Ge(0)]] = field(default_factory=dict)


@dataclass(frozen=True, config=STRICT_KEYS)
class RetrievalTask:
    """Pictures and captions of shards; `caption_field` as in data.caption_field of a run."""

    shards: UserPlaces
    samples: Annotated[int, Ge(2)] = 1_000
    caption_field: str = "caption"


@dataclass(frozen=True, config=STRICT_KEYS)
class EvaluationConfig:
    """Evaluations by name."""

    zero_shot: dict[str, ZeroShotTask] = field(default_factory=dict)
    retrieval: dict[str, RetrievalTask] = field(default_factory=dict)


def prepare(config: EvaluationConfig, warn: Callable[[str], None] = logger.warning) -> dict[str, Evaluation]:
    """Read what the evaluations need, and return each by its name, to be run on a model as often as one likes.

    Args:
        config: the evaluations.
        warn: told what a person should know before believing the scores.

    Raises:
        ConfigError: a name stands for two, or ancestors without a taxonomy.
        DataError: data that cannot be read.
    """
    names = [*config.zero_shot, *config.retrieval]
    if len(set(names)) < len(names):
        raise ConfigError(f"evaluations need names of their own, got {', '.join(names)}")
    found: dict[str, Evaluation] = {}
    for name, task in config.zero_shot.items():
        if task.ancestors and not task.taxonomy:
            raise ConfigError(f"zero_shot.{name}.ancestors needs zero_shot.{name}.taxonomy")
        found[name] = _zero_shot(name, task, warn)
    return found | {name: _retrieval(name, task) for name, task in config.retrieval.items()}


def _zero_shot(name: str, task: ZeroShotTask, warn: Callable[[str], None]) -> Evaluation:
    data = read_labelled_images(task.images, task.classes)
    for line in data.warnings():
        warn(f"zero_shot.{name}: {line}")
    templates = check_templates(task.templates)
    taxonomy = read_taxonomy(task.taxonomy) if task.taxonomy else None
    if taxonomy is not None:
        require_classes(taxonomy, data.keys)

    def evaluate(model: HypCLIP) -> dict[str, int | float]:
        scores, predicted = zero_shot(model, data, templates)
        result: dict[str, int | float] = dict(scores)
        if taxonomy is not None:
            true = [data.keys[i] for i in data.labels]
            for name, depth in task.ancestors.items():
                result[f"{name}_right"] = same_ancestor(taxonomy, predicted, true, depth)
            result |= dict(hierarchy_scores(taxonomy, predicted, true))
        return result

    return evaluate


def _retrieval(name: str, task: RetrievalTask) -> Evaluation:
    records, bad = read_pairs(
        find_shards(task.shards, f"retrieval.{name}.shards"), task.samples, Reading(task.caption_field)
    )
    captions = [caption for record in records for caption in record.captions]
    picture = torch.tensor([row for row, record in enumerate(records) for _ in record.captions])

    def evaluate(model: HypCLIP) -> dict[str, int | float]:
        # A slice at a time: each picture is made anew from its pixels.
        slices = [records[first : first + 128] for first in range(0, len(records), 128)]
        images = torch.cat([model.embed_image([record.image for record in some]) for some in slices])
        counts = {"n": len(records), "captions": len(captions), "skipped": len(bad)}
        return {**counts, **dict(retrieval(model, images, model.embed_text(captions), picture))}

    return evaluate
