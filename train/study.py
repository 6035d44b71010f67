"""Train each config over several seeds, evaluate each model, and print a table of the mean and spread of its scores.

python train/study.py --config configs/study/study.yaml --jobs 2

A run that is stopped goes on where it was; what is in the file of results already is not run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, MinLen
from pydantic.dataclasses import dataclass as checked

from hypclip import shipped
from hypclip.config import STRICT_KEYS, UserPath, build, read
from hypclip.console import escape_unprintable
from hypclip.errors import ConfigError, DataError, HypclipError
from hypclip.evaluation.suite import EvaluationConfig
from hypclip.files import check_output, read_text, write_output
from hypclip.objective import recipe_from
from hypclip.training.settings import RunConfig

PRETRAIN, EVALUATE = (Path(__file__).with_name(name) for name in ("pretrain.py", "evaluate.py"))
DIGITS = 5
"""Of the scores that are kept."""


@checked(frozen=True, config=STRICT_KEYS)
class StudyConfig:
    """Settings of a study: the configs to compare, their evaluation, and the files of results.

    Args:
        configs: of train/pretrain.py, by the name of a row; their order is that of the table.
        evaluate: a config of train/evaluate.py.
        tables: by title, `task/measure` of the evaluations by the head of a column; under a head that ends with %, a
            share is shown as a percentage.
        seeds: of train.seed; each config is trained with each.
        one_seed: names of rows that the first seed is enough for.
        output_dir: the runs, each in its own folder.
        results: JSON lines, one per run; kept and added to.
        table: Markdown with all tables, written anew.
        about: text above the table.
    """

    configs: Annotated[dict[str, UserPath], MinLen(1)]
    evaluate: UserPath
    tables: Annotated[dict[str, dict[str, str]], MinLen(1)]
    output_dir: UserPath
    results: UserPath
    table: UserPath
    seeds: Annotated[list[Annotated[int, Ge(0)]], MinLen(1)] = field(default_factory=lambda: [0])
    one_seed: list[str] = field(default_factory=list)
    about: str = ""


@dataclass(frozen=True)
class Run:
    """One config with one seed; `digest` changes where its settings, its recipe or its evaluation do."""

    name: str
    config: Path
    seed: int
    digest: str
    folder: Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    escape_unprintable()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="how many runs at a time (%(default)s)")
    parser.add_argument("--only", metavar="NAME", action="append", help="train this row alone, or these; all are shown")
    parser.add_argument("--table-only", action="store_true", help="train nothing: the table of what there is")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of the file")
    arguments = shipped.parse(parser, argv, "study")
    try:
        if arguments.jobs < 1:
            raise ConfigError(f"--jobs must be at least 1, got {arguments.jobs}")
        config = build(StudyConfig, read(arguments.config, arguments.overrides, StudyConfig))
        wanted = set(arguments.only or config.configs)
        for unknown in sorted({*wanted, *config.one_seed} - config.configs.keys()):
            raise ConfigError(f"{unknown!r} is no row of the study, which has {', '.join(config.configs)}")
        for file in (config.results, config.table):
            check_output(file)
        runs = _planned(config)
        found = _read(config.results)
        missing = [run for run in runs if run.name in wanted and (run.name, run.seed, run.digest) not in found]
        failed = [] if arguments.table_only else _train(missing, config, arguments.jobs)
        found = _read(config.results)
        parts = [f"## {title}\n\n{table(config, columns, runs, found)}" for title, columns in config.tables.items()]
        if left := [f"{run.name} {run.seed}" for run in runs if (run.name, run.seed, run.digest) not in found]:
            parts.append(f"Not run yet, by seed: {', '.join(left)}.")
        text = "\n\n".join(parts)
        print(text)
        _write(config.table, config.about, text)
    except (HypclipError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 1 if failed else 0


def _write(path: Path, about: str, text: str) -> None:
    """Write the page; one that this study wrote before is replaced, and anything else moved aside."""
    if path.is_file() and read_text(path).startswith(about or "## "):
        path.unlink()
    write_output(path, f"{about}\n{text}\n".lstrip())


def _planned(config: StudyConfig) -> list[Run]:
    """Return the runs, ordered by seed: so a table of all rows is there early."""
    evaluation = read(config.evaluate, (), EvaluationConfig)
    runs: list[Run] = []
    for name, path in config.configs.items():
        settings = read(path)
        about = {key: value for key, value in settings.items() if key not in ("output_dir", "name", "evaluate")}
        about["objective"] = asdict(recipe_from(settings.get("objective", RunConfig.objective)))
        digest = hashlib.sha256(json.dumps([about, evaluation], sort_keys=True, default=str).encode()).hexdigest()[:12]
        for seed in config.seeds[: 1 if name in config.one_seed else None]:
            runs.append(Run(name, path, seed, digest, config.output_dir / f"{name}-{seed}"))
    return sorted(runs, key=lambda run: config.seeds.index(run.seed))


def _train(runs: Sequence[Run], config: StudyConfig, jobs: int) -> list[Run]:
    """Train and evaluate, add each result to the file as it comes, and return the runs that failed."""
    failed = []
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(_one, run, config.evaluate, jobs): run for run in runs}
        for count, done in enumerate(as_completed(waiting), 1):
            run = waiting[done]
            try:
                result = done.result()
            except HypclipError as error:
                failed.append(run)
                print(f"{run.name}, seed {run.seed}: failed: {error}", file=sys.stderr, flush=True)
                continue
            with config.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            print(f"{count} of {len(runs)}: {run.name}, seed {run.seed}: {result['minutes']} min", flush=True)
    return failed


def _one(run: Run, evaluate: Path, jobs: int) -> dict[str, Any]:
    """Train and evaluate one run in processes of their own."""
    began = time.perf_counter()
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    environment = {**threads, **os.environ}
    stamp = run.folder / "study"
    stale = stamp.is_file() and read_text(stamp) != run.digest
    run.folder.mkdir(parents=True, exist_ok=True)
    stamp.write_text(run.digest)
    log, scores = run.folder / "study.log", run.folder / "scores.json"
    settings = [f"output_dir={run.folder}", f"name={run.name}", f"train.seed={run.seed}"]
    again = "--overwrite" if stale else "--resume"
    commands: list[list[Any]] = [
        [PRETRAIN, "--config", run.config, again, *settings, "evaluate.retrieval={}", "evaluate.hierarchy={}"],
        [EVALUATE, "--checkpoint", run.folder / "checkpoint", "--config", evaluate, "--output", scores],
    ]
    for arguments in commands:
        with log.open("a", encoding="utf-8") as output:
            called = [sys.executable, *map(str, arguments)]
            code = subprocess.run(called, stdout=output, stderr=subprocess.STDOUT, env=environment).returncode  # noqa: S603, ours
        if code:
            last = read_text(log).strip().splitlines()[-1:]
            raise DataError(f"{arguments[0].name} ended with {code}: {''.join(last)}; its log is {log}")
    found = _flat(json.loads(read_text(scores)))
    minutes = round((time.perf_counter() - began) / 60, 1)
    return {"name": run.name, "seed": run.seed, "digest": run.digest, "minutes": minutes, "scores": found}


def _flat(scores: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for task, values in scores.items():
        if isinstance(values, Mapping):
            found |= {f"{task}/{name}": float(f"{value:.{DIGITS}g}") for name, value in values.items()}
    return found


def _read(path: Path) -> dict[tuple[str, int, str], dict[str, float]]:
    """Return the scores of the runs that are in the file, by name, seed and digest."""
    if not path.is_file():
        return {}
    found = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            one = json.loads(line)
            found[one["name"], one["seed"], one["digest"]] = one["scores"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number}: not a result of a study ({error})") from error
    return found


def table(
    config: StudyConfig,
    columns: Mapping[str, str],
    runs: Sequence[Run],
    found: Mapping[tuple[str, int, str], Mapping[str, float]],
) -> str:
    """Return Markdown: a line for each config that has been run, the mean over seeds and, of several, the deviation."""
    lines = [f"| | seeds | {' | '.join(columns)} |", f"|{'---|' * (len(columns) + 2)}"]
    for name in config.configs:
        rows = [found[key] for run in runs if run.name == name and (key := (name, run.seed, run.digest)) in found]
        if not rows:
            continue
        cells = [_cell([row[m] for row in rows if m in row], head) for head, m in columns.items()]
        lines.append(f"| {name} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float], head: str) -> str:
    if not values:
        return "–"
    factor, digits = (100, 1) if head.endswith("%") else (1, 2 if max(map(abs, values)) >= 1 else 3)
    mean = f"{factor * statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {factor * statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
