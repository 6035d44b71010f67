"""Run a list of evaluations on a model and print them as a table.

python train/evaluate.py --checkpoint runs/quickstart/checkpoint --config configs/evaluate/quickstart.yaml \
    --output runs/quickstart/metrics.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge
from pydantic.dataclasses import dataclass

import hypclip
from hypclip.config import STRICT_KEYS, build, read
from hypclip.data.shards import find_shards
from hypclip.errors import ConfigError, HypclipError
from hypclip.evaluation.hierarchy import hierarchy_scores, read_taxonomy, require_classes, same_ancestor
from hypclip.evaluation.retrieval import read_pairs, retrieval
from hypclip.evaluation.zero_shot import DEFAULT_TEMPLATES, check_templates, read_labelled_images, zero_shot
from hypclip.model import HypCLIP


@dataclass(frozen=True, config=STRICT_KEYS)
class ZeroShotTask:
    """Pictures by class; see train/zero_shot.py. `ancestors` names depths of the taxonomy to score answers at."""

    images: Path
    classes: Path
    taxonomy: Path | None = None
    templates: list[str] = field(default_factory=lambda: list(DEFAULT_TEMPLATES))
    ancestors: dict[str, Annotated[int, Ge(0)]] = field(default_factory=dict)


@dataclass(frozen=True, config=STRICT_KEYS)
class RetrievalTask:
    """Pictures and captions of shards."""

    shards: str | list[str]
    samples: Annotated[int, Ge(2)] = 1_000


@dataclass(frozen=True, config=STRICT_KEYS)
class EvaluationConfig:
    """Evaluations by name."""

    zero_shot: dict[str, ZeroShotTask] = field(default_factory=dict)
    retrieval: dict[str, RetrievalTask] = field(default_factory=dict)


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="a model directory")
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see configs/evaluate/")
    parser.add_argument("--output", type=Path, help="where to write the scores as JSON")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of the file")
    arguments = parser.parse_intermixed_args(argv)
    try:
        config = build(EvaluationConfig, read(arguments.config, arguments.overrides))
        _check_names(config)
        model = hypclip.load(arguments.checkpoint)
        scores: dict[str, Mapping[str, float]] = {}
        for name, task in config.zero_shot.items():
            scores[name] = _zero_shot(model, task)
        for name, pairs in config.retrieval.items():
            records = read_pairs(find_shards(pairs.shards), pairs.samples)
            images = model.embed_image([record.image for record in records])
            captions = model.embed_text([record.caption for record in records])
            scores[name] = {"n": len(records), **dict(retrieval(model, images, captions))}
        print(table(scores))
        if arguments.output:
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            content = {"model": model.model_id, "curv": model.curv.item(), **scores}
            arguments.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except (HypclipError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _check_names(config: EvaluationConfig) -> None:
    names = [*config.zero_shot, *config.retrieval]
    if not names:
        raise ConfigError("the config names no evaluation: expected some under zero_shot or retrieval")
    if len(set(names)) < len(names) or {"model", "curv"} & set(names):
        raise ConfigError(f"evaluations need names of their own, other than model and curv, got {', '.join(names)}")
    for name, task in config.zero_shot.items():
        if task.ancestors and not task.taxonomy:
            raise ConfigError(f"zero_shot.{name}.ancestors needs zero_shot.{name}.taxonomy")


def _zero_shot(model: HypCLIP, task: ZeroShotTask) -> dict[str, float]:
    data = read_labelled_images(task.images, task.classes)
    taxonomy = read_taxonomy(task.taxonomy) if task.taxonomy else None
    if taxonomy is not None:
        require_classes(taxonomy, data.keys)
    scores, predicted = zero_shot(model, data, check_templates(task.templates))
    result = dict(scores)
    if taxonomy is not None:
        true = [data.keys[i] for i in data.labels]
        for name, depth in task.ancestors.items():
            result[f"{name}_right"] = same_ancestor(taxonomy, predicted, true, depth)
        result |= dict(hierarchy_scores(taxonomy, predicted, true))
    return result


def table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Return the scores as lines `task  measure  value`."""
    rows = [(task, name, value) for task, values in scores.items() for name, value in values.items()]
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    return "\n".join(
        f"{task:<{widths[0]}}  {name:<{widths[1]}}  {value if name == 'n' else f'{value:.4f}'}"
        for task, name, value in rows
    )


if __name__ == "__main__":
    sys.exit(main())
