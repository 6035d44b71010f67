"""Run a list of evaluations on a model and print them as a table.

python train/evaluate.py --checkpoint runs/quickstart/checkpoint --config configs/evaluate/quickstart.yaml \
    --output runs/quickstart/metrics.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence

import hypclip
from hypclip.config import build, read
from hypclip.console import escape_unprintable
from hypclip.errors import ConfigError, HypclipError
from hypclip.evaluation.suite import EvaluationConfig, prepare
from hypclip.files import check_output, user_path, write_output


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    escape_unprintable()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=user_path, required=True, help="a model directory")
    parser.add_argument("--config", type=user_path, required=True, help="YAML file, see configs/evaluate/")
    parser.add_argument(
        "--output", type=user_path, help="where to write the scores as JSON; others there are moved aside"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of the file")
    arguments = parser.parse_intermixed_args(argv)
    try:
        if arguments.output:
            check_output(arguments.output)
        config = build(EvaluationConfig, read(arguments.config, arguments.overrides, EvaluationConfig))
        names = {*config.zero_shot, *config.retrieval}
        if not names:
            raise ConfigError("the config names no evaluation: expected some under zero_shot or retrieval")
        if taken := {"model", "curv"} & names:
            raise ConfigError(
                f"evaluations need names of their own, other than model and curv, got {', '.join(sorted(taken))}"
            )
        evaluations = prepare(config, lambda line: print(f"warning: {line}", file=sys.stderr))
        model = hypclip.load(arguments.checkpoint)
        scores = {name: evaluate(model) for name, evaluate in evaluations.items()}
        print(table(scores))
        if arguments.output:
            content = {"model": model.model_id, "curv": model.curv.item(), **scores}
            if aside := write_output(arguments.output, json.dumps(content, indent=1) + "\n"):
                print(f"the scores that were in {arguments.output} are now in {aside}", file=sys.stderr)
    except (HypclipError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def table(scores: Mapping[str, Mapping[str, int | float]]) -> str:
    """Return the scores as lines `task  measure  value`."""
    task_width = max(map(len, scores))
    name_width = max(len(name) for values in scores.values() for name in values)
    return "\n".join(
        f"{task:<{task_width}}  {name:<{name_width}}  {value if isinstance(value, int) else f'{value:.4f}'}"
        for task, values in scores.items()
        for name, value in values.items()
    )


if __name__ == "__main__":
    sys.exit(main())
