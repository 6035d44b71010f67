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
from hypclip import shipped
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
    parser.add_argument(
        "--output", type=user_path, help="where to write the scores as JSON; others there are moved aside"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of the file")
    arguments = shipped.parse(parser, argv, "evaluate")
    try:
        if arguments.output:
            check_output(arguments.output)
        config = build(EvaluationConfig, read(arguments.config, arguments.overrides, EvaluationConfig))
        if not config.names:
            raise ConfigError(
                "the config names no evaluation: expected some under zero_shot, retrieval, hierarchy or few_shot"
            )
        if taken := {"model", "curv"}.intersection(config.names):
            raise ConfigError(
                f"evaluations need names of their own, other than model and curv, got {', '.join(sorted(taken))}"
            )
        evaluations = prepare(config, lambda line: print(f"warning: {line}", file=sys.stderr))
        model = hypclip.load(arguments.checkpoint)
        scores = {name: evaluate(model) for name, evaluate in evaluations.items()}
        print(table(scores))
        if arguments.output:
            content = {"model": model.model_id, "curv": model.curv.tolist(), **scores}
            if aside := write_output(arguments.output, json.dumps(content, indent=1) + "\n"):
                print(f"the scores that were in {arguments.output} are now in {aside}", file=sys.stderr)
    except (HypclipError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def table(scores: Mapping[str, Mapping[str, int | float]]) -> str:
    """Return the scores as lines `task  measure  value`, and those called `row/column` as grids below a task's lines.

    Rows that have a column in common are of one grid.
    """
    task_width = max(map(len, scores))
    name_width = max((len(name) for values in scores.values() for name in values if "/" not in name), default=0)
    lines = []
    for task, values in scores.items():
        rows: dict[str, dict[str, str]] = {}
        for name, value in values.items():
            row, _, column = name.partition("/")
            if column:
                rows.setdefault(row, {})[column] = _shown(value)
            else:
                lines.append(f"{task:<{task_width}}  {name:<{name_width}}  {_shown(value)}")
        grids: list[dict[str, dict[str, str]]] = []
        for row, cells in rows.items():
            if not grids or not any(cells.keys() & other.keys() for other in grids[-1].values()):
                grids.append({})
            grids[-1][row] = cells
        for grid in grids:
            lines += ["", *_grid(task, grid)]
    return "\n".join(lines)


def _grid(title: str, rows: Mapping[str, Mapping[str, str]]) -> list[str]:
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    widths = {c: max(len(c), *(len(cells.get(c, "")) for cells in rows.values())) for c in columns}
    first = max(len(title), *(len(row) + 2 for row in rows))
    heads = "".join(f"  {column:>{widths[column]}}" for column in columns)
    return [f"{title:<{first}}{heads}"] + [
        f"{'  ' + row:<{first}}"
        + "".join(f"  {cells.get(column, ''):>{widths[column]}}" for column in columns).rstrip()
        for row, cells in rows.items()
    ]


def _shown(value: int | float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4f}"


if __name__ == "__main__":
    sys.exit(main())
