"""Evaluations by name, as a YAML file lists them, and what they find."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Annotated, TypeAlias

import networkx as nx
from annotated_types import Ge, Gt, Le
from pydantic.dataclasses import dataclass

from hypclip.config import STRICT_KEYS, UserPath, UserPlace, UserPlaces
from hypclip.data.record import Reading
from hypclip.data.shards import find_shards
from hypclip.errors import ConfigError, DataError, first_few
from hypclip.evaluation.few_shot import few_shot, tangent
from hypclip.evaluation.hierarchical import ACCURACIES, Hierarchical, read_node_texts
from hypclip.evaluation.hierarchy import (
    ancestors_at,
    hierarchy_scores,
    read_taxonomy,
    require_classes,
    same_ancestor,
)
from hypclip.evaluation.instruments import Captioned, Hierarchy
from hypclip.evaluation.is_a import Phrases, call
from hypclip.evaluation.retrieval import read_pairs, retrieval
from hypclip.evaluation.zero_shot import (
    DEFAULT_TEMPLATES,
    LabelledImages,
    check_templates,
    embed_files,
    read_labelled_images,
    zero_shot,
)
from hypclip.model import HypCLIP
from hypclip.taxonomy import Taxonomy
from hypclip.taxonomy import load as load_taxonomy

logger = logging.getLogger(__name__)

Evaluation: TypeAlias = Callable[[HypCLIP], Mapping[str, int | float]]


@dataclass(frozen=True, config=STRICT_KEYS)
class HierarchicalTask:
    """Answers by the taxonomy beside the flat ones; see hypclip/evaluation/hierarchical.py.

    Args:
        calibration: folder with one folder of images per class key: other images, which the weights of the evidence and
            the height of answers are fitted to.
        weights: in place of fitted ones, of the similarity and of each level below the root that has nodes above
            classes; without either the model's logit scale, and 0 for levels.
        node_texts: JSON, what nodes above classes are called; by default what their key says behind the last colon.
        accuracies: shares of answers that shall be right where they may stop above classes.
    """

    calibration: UserPath | None = None
    weights: list[float] | None = None
    node_texts: UserPath | None = None
    accuracies: list[Annotated[float, Gt(0), Le(1)]] = field(default_factory=lambda: list(ACCURACIES))


@dataclass(frozen=True, config=STRICT_KEYS)
class ZeroShotTask:
    """Images by class; see train/zero_shot.py.

    Args:
        images: folder with one folder of images per class key.
        classes: JSON, class key to its name or names.
        taxonomy: JSON, is-a edges over class keys and inner nodes.
        templates: prompts, with {} for the name.
        ancestors: by the name of a score, the depth of the taxonomy at which answers are right.
        hierarchical: answers by the taxonomy too, {} for those without images to fit to.
    """

    images: UserPath
    classes: UserPath
    taxonomy: UserPath | None = None
    templates: list[str] = field(default_factory=lambda: list(DEFAULT_TEMPLATES))
    ancestors: dict[str, Annotated[int, Ge(0)]] = field(default_factory=dict)
    hierarchical: HierarchicalTask | None = None


@dataclass(frozen=True, config=STRICT_KEYS)
class RetrievalTask:
    """Images and captions of shards, each to be found by the other.

    Args:
        shards: as data.shards of a run.
        samples: how many, the first of them.
        caption_field: as data.caption_field of a run.
    """

    shards: UserPlaces
    samples: Annotated[int, Ge(2)] = 1_000
    caption_field: str = "caption"


@dataclass(frozen=True, config=STRICT_KEYS)
class HierarchyTask:
    """Scores of is-a edges in the embedding; hypclip/evaluation/instruments.py has the measures.

    Args:
        taxonomy: its name or a JSON file, as hypclip.taxonomy reads them.
        held_out: edges that no training term knew, which are measured apart too.
        images: labelled images, in a folder per class; class names are phrases of the taxonomy as they are, with an
            article or in one of the `templates`.
        classes: JSON, class key to its name or names.
        templates: prompts, with {} for the name.
        shards: captions and their images.
        samples: how many of them.
        caption_field: as data.caption_field of a run.
    """

    taxonomy: UserPlace
    held_out: UserPlace | None = None
    images: UserPath | None = None
    classes: UserPath | None = None
    templates: list[str] = field(default_factory=lambda: list(DEFAULT_TEMPLATES))
    shards: UserPlaces | None = None
    samples: Annotated[int, Ge(2)] = 1_000
    caption_field: str = "caption"


@dataclass(frozen=True, config=STRICT_KEYS)
class FewShotTask:
    """Images classified by a few labelled ones of each class, over many draws; see hypclip/evaluation/few_shot.py.

    Args:
        images: folder with one folder of images per class key.
        classes: JSON, class key to its name or names.
        taxonomy: JSON, is-a edges over class keys and inner nodes.
        depth: classes are joined that have the same ancestor at this depth of the taxonomy, which is 0 at its root.
        ways: classes of a draw.
        shots: labelled images of each class, each number measured by itself.
        queries: images to classify, of each.
        episodes: draws.
        probe: whether a linear probe takes part, by the extra `few-shot`.
        seed: of the draws.
    """

    images: UserPath
    classes: UserPath
    taxonomy: UserPath | None = None
    depth: Annotated[int, Ge(0)] | None = None
    ways: Annotated[int, Ge(2)] = 5
    shots: list[Annotated[int, Ge(1)]] = field(default_factory=lambda: [1, 5])
    queries: Annotated[int, Ge(1)] = 15
    episodes: Annotated[int, Ge(2)] = 1_000
    probe: bool = True
    seed: int = 0


@dataclass(frozen=True, config=STRICT_KEYS)
class EvaluationConfig:
    """Evaluations by name.

    Args:
        zero_shot: images named without training on their classes.
        retrieval: images and captions, each found by the other.
        hierarchy: whether is-a edges hold.
        few_shot: images classified by a few labelled ones.
    """

    zero_shot: dict[str, ZeroShotTask] = field(default_factory=dict)
    retrieval: dict[str, RetrievalTask] = field(default_factory=dict)
    hierarchy: dict[str, HierarchyTask] = field(default_factory=dict)
    few_shot: dict[str, FewShotTask] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The names of all of them."""
        return [*self.zero_shot, *self.retrieval, *self.hierarchy, *self.few_shot]


def prepare(config: EvaluationConfig, warn: Callable[[str], None] = logger.warning) -> dict[str, Evaluation]:
    """Read the data of the evaluations, and return each by its name, to be run on any number of models.

    Args:
        config: the evaluations.
        warn: told what a person should know before believing the scores.

    Raises:
        ConfigError: a name stands for two, ancestors or a depth without a taxonomy, or images without classes.
        DataError: data that cannot be read.
    """
    if len(set(config.names)) < len(config.names):
        raise ConfigError(f"evaluations need names of their own, got {', '.join(config.names)}")
    found: dict[str, Evaluation] = {}
    for name, task in config.zero_shot.items():
        if task.ancestors and not task.taxonomy:
            raise ConfigError(f"zero_shot.{name}.ancestors needs zero_shot.{name}.taxonomy")
        if task.hierarchical and not task.taxonomy:
            raise ConfigError(f"zero_shot.{name}.hierarchical needs zero_shot.{name}.taxonomy")
        found[name] = _zero_shot(name, task, warn)
    found |= {name: _retrieval(name, task) for name, task in config.retrieval.items()}
    found |= {name: _hierarchy(name, task, warn) for name, task in config.hierarchy.items()}
    return found | {name: _few_shot(name, task, warn) for name, task in config.few_shot.items()}


def _zero_shot(name: str, task: ZeroShotTask, warn: Callable[[str], None]) -> Evaluation:
    data = read_labelled_images(task.images, task.classes)
    for line in data.warnings():
        warn(f"zero_shot.{name}: {line}")
    templates = check_templates(task.templates)
    taxonomy = read_taxonomy(task.taxonomy) if task.taxonomy else None
    if taxonomy is not None:
        require_classes(taxonomy, data.keys)
    by_tree = task.hierarchical and taxonomy and _hierarchical(name, task.hierarchical, task, taxonomy, data, warn)

    def evaluate(model: HypCLIP) -> dict[str, int | float]:
        images = embed_files(model, data.files)
        scores, predicted = zero_shot(model, data, templates, images)
        result: dict[str, int | float] = dict(scores)
        if taxonomy is not None:
            true = [data.keys[i] for i in data.labels]
            for name, depth in task.ancestors.items():
                result[f"{name}_right"] = same_ancestor(taxonomy, predicted, true, depth)
            result |= dict(hierarchy_scores(taxonomy, predicted, true))
        if by_tree:
            result |= dict(by_tree.scores(model, images))
        return result

    return evaluate


def _hierarchical(
    name: str,
    by: HierarchicalTask,
    task: ZeroShotTask,
    taxonomy: nx.DiGraph,
    data: LabelledImages,
    warn: Callable[[str], None],
) -> Hierarchical:
    calibration = read_labelled_images(by.calibration, task.classes) if by.calibration else None
    for line in calibration.passed_over if calibration else ():
        warn(f"zero_shot.{name}.hierarchical.calibration: {line}")
    texts = read_node_texts(by.node_texts) if by.node_texts else {}
    return Hierarchical(taxonomy, data, check_templates(task.templates), texts, calibration, by.weights, by.accuracies)


def _retrieval(name: str, task: RetrievalTask) -> Evaluation:
    data = _captioned(f"retrieval.{name}.shards", task.shards, task)

    def evaluate(model: HypCLIP) -> dict[str, int | float]:
        images, texts = data.embed(model)
        counts = {"n": len(images), "captions": len(texts), "skipped": len(data.pairs.bad)}
        return {**counts, **dict(retrieval(model, images, texts, data.image_of))}

    return evaluate


def _hierarchy(name: str, task: HierarchyTask, warn: Callable[[str], None]) -> Evaluation:
    where = f"hierarchy.{name}"
    if (task.images is None) != (task.classes is None):
        raise ConfigError(f"{where}.images and {where}.classes belong together: give both or neither")
    known = _load(f"{where}.taxonomy", task.taxonomy)
    held_out = _load(f"{where}.held_out", task.held_out) if task.held_out else None
    try:
        phrases = Phrases(known, held_out)
    except DataError as error:
        raise DataError(f"{where}.held_out: {error}") from error
    instances = None
    if task.images and task.classes:
        data = read_labelled_images(task.images, task.classes)
        instances = call(data, phrases.taxonomy, check_templates(task.templates))
        for line in data.warnings():
            warn(f"{where}: {line}")
        if instances.left_out:
            warn(
                f"{where}: {len(instances.left_out)} of {len(data.keys)} classes are no phrases of the taxonomy, and "
                f"their images take no part: {first_few(instances.left_out)}"
            )
    captioned = _captioned(f"{where}.shards", task.shards, task) if task.shards else None
    hierarchy = Hierarchy(phrases, instances, captioned)
    once = functools.cache(warn)

    def evaluate(model: HypCLIP) -> dict[str, int | float]:
        if not model.metric.has_cones:
            once(
                f"{where}: on the sphere no point is more general than another: ap and auc are those of the cosine, "
                "and what needs radii or regions is left out"
            )
        return hierarchy.measure(model)

    return evaluate


def _few_shot(name: str, task: FewShotTask, warn: Callable[[str], None]) -> Evaluation:
    where = f"few_shot.{name}"
    if (task.taxonomy is None) != (task.depth is None):
        raise ConfigError(f"{where}.taxonomy and {where}.depth belong together: give both or neither")
    data = read_labelled_images(task.images, task.classes)
    for line in data.warnings():
        warn(f"{where}: {line}")
    labels = list(data.labels)
    if task.taxonomy is not None and task.depth is not None:
        graph = read_taxonomy(task.taxonomy)
        require_classes(graph, data.keys)
        joined = ancestors_at(graph, data.keys, task.depth)
        if lost := [key for key in data.keys if len(joined[key]) != 1]:
            raise ConfigError(
                f"{where}.depth {task.depth}: expected one ancestor of each class at that depth of the taxonomy, and "
                f"{len(lost)} of {len(data.keys)} classes have none or several: {first_few(lost)}"
            )
        above = [next(iter(joined[key])) for key in data.keys]
        names = sorted(set(above))
        labels = [names.index(above[label]) for label in labels]

    def evaluate(model: HypCLIP) -> dict[str, int | float]:
        features, curvs = tangent(model, embed_files(model, data.files))
        result: dict[str, int | float] = {"n": len(labels), "classes": len(set(labels)), "episodes": task.episodes}
        for shots in task.shots:
            found = few_shot(
                features,
                labels,
                shots=shots,
                ways=task.ways,
                queries=task.queries,
                episodes=task.episodes,
                curvs=curvs,
                probe=task.probe,
                seed=task.seed,
            )
            for method, accuracy in found.items():
                row = method.partition(" ")[0]  # without the curvature, which is the model's
                result[f"{row}/{shots}-shot"] = accuracy.mean
                result[f"{row}/{shots}-shot ±"] = accuracy.half_width
        return result

    return evaluate


def _captioned(where: str, shards: str | list[str], task: RetrievalTask | HierarchyTask) -> Captioned:
    return Captioned.of(read_pairs(find_shards(shards, where), task.samples, Reading(task.caption_field)))


def _load(where: str, source: str) -> Taxonomy:
    try:
        return load_taxonomy(source)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
