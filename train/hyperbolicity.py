"""Report the Gromov δ-hyperbolicity of embeddings or features, always beside what noise of the same shape scores.

python train/hyperbolicity.py --index runs/quickstart/index --modality text
python train/hyperbolicity.py --checkpoint runs/quickstart/checkpoint --images photos/
python train/hyperbolicity.py --features features.npy --metric euclidean angle --output report.json

Relative δ is 0 for the distances of a tree and at most 1. It falls with the dimension whatever the data are, so that it
says nothing alone: it is printed beside that of Gaussian points with the same mean and covariance, and beside that of
i.i.d. Gaussian points, and only what lies below the former speaks for a tree. No curvature follows from it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import hypclip
from hypclip.console import escape_unprintable
from hypclip.errors import DataError, HypclipError, InputError
from hypclip.evaluation.folders import find_files
from hypclip.evaluation.zero_shot import embed_files
from hypclip.files import check_output, user_path, write_output
from hypclip.geometry.analysis.gromov import Hyperbolicity, hyperbolicity
from hypclip.search import LocalStore, Where

LEAST_DRAWS = 5
"""Draws of the sample and of each null below which their spread is not known."""
MOST_POINTS = 100_000
"""Points of an index that the draws are taken from; of more, so many at random."""


class _Points(NamedTuple):
    """Points, and the curvature of their hyperboloid; None for flat features."""

    x: Tensor
    curv: float | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    escape_unprintable()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--features", type=user_path, metavar="FILE", help="a .npy file of shape (n, d)")
    source.add_argument("--index", type=user_path, help="folder of an index, as train/embed.py makes it")
    source.add_argument("--checkpoint", type=user_path, help="a model directory, with --images or --texts")
    parser.add_argument("--collection", default="default", help="of the index (%(default)s)")
    parser.add_argument("--modality", choices=("image", "text"), help="only these points of the index")
    parser.add_argument("--images", type=user_path, help="folder whose images the model embeds")
    parser.add_argument("--texts", type=user_path, help="file of a text a line, which the model embeds")
    parser.add_argument(
        "--metric", nargs="+", choices=("euclidean", "angle", "lorentz"),
        help="measured one by one; by default that of the points, of features both flat ones",
    )  # fmt: skip
    parser.add_argument("--curv", type=float, help="c of features that are space components on a hyperboloid")
    parser.add_argument("--sample-size", type=int, default=1000, help="points of a draw; δ grows with it (%(default)s)")
    parser.add_argument("--draws", type=int, default=LEAST_DRAWS, help="draws of the sample (%(default)s)")
    parser.add_argument("--null-draws", type=int, default=LEAST_DRAWS, help="draws of each null (%(default)s)")
    parser.add_argument("--base-points", type=int, default=3, help="base points of each draw (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of draws and nulls (%(default)s)")
    parser.add_argument("--output", type=user_path, help="where to write the reports as JSON")
    arguments = parser.parse_args(argv)
    try:
        for name in ("draws", "null_draws"):
            if (given := getattr(arguments, name)) < LEAST_DRAWS:
                raise InputError(f"--{name.replace('_', '-')} must be at least {LEAST_DRAWS}, got {given}")
        if arguments.output:
            check_output(arguments.output)
        points = _read(arguments)
        reports = [_report(points, metric, arguments) for metric in _metrics(arguments.metric, points.curv)]
        print("\n\n".join(map(table, reports)))
        if arguments.output:
            content = json.dumps([asdict(report) for report in reports], indent=1) + "\n"
            if aside := write_output(arguments.output, content):
                print(f"what was in {arguments.output} is now in {aside}", file=sys.stderr)
    except (HypclipError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def table(report: Hyperbolicity) -> str:
    """Return a report as lines: relative δ and its nulls, then all that it was computed with."""
    assert report.matched_null is not None
    assert report.iid_null is not None
    metric = report.metric if report.curv is None else f"{report.metric}, curv {report.curv:g}"
    rows = {
        "metric": metric,
        "relative δ": report.relative_delta,
        "Gaussian of the same covariance": report.matched_null,
        "i.i.d. Gaussian": report.iid_null,
        "effective dimension": f"{report.effective_dim:.1f} of {report.dim}",
        "points of a draw": f"{report.n} of {report.total}",
        "draws": f"{report.draws}, {report.base_points} base points each",
        "draws of each null": len(report.matched_null.values) // report.base_points,
        "seed": report.seed,
    }
    return "\n".join(f"{name:<33}{value}" for name, value in rows.items())


def _report(points: _Points, metric: Any, arguments: argparse.Namespace) -> Hyperbolicity:
    names = ("sample_size", "draws", "null_draws", "base_points", "seed")
    settings = {name: getattr(arguments, name) for name in names}
    return hyperbolicity(points.x, metric, curv=points.curv if metric == "lorentz" else None, **settings)


def _metrics(wanted: Sequence[str] | None, curv: float | None) -> Sequence[str]:
    if wanted is None:
        return ("euclidean", "angle") if curv is None else ("lorentz",)
    if "lorentz" in wanted and curv is None:
        raise InputError("--metric lorentz needs points on a hyperboloid: features need --curv")
    return list(dict.fromkeys(wanted))


def _read(arguments: argparse.Namespace) -> _Points:
    """Return the points of the source that the command line names."""
    if (arguments.checkpoint is not None) != ((arguments.images or arguments.texts) is not None):
        raise InputError("--checkpoint needs --images or --texts to embed, and they need it")
    if arguments.curv is not None and arguments.features is None:
        raise InputError("--curv is of --features; an index and a model have their own")
    if arguments.features is not None:
        return _Points(_features(arguments.features), arguments.curv)
    if arguments.index is not None:
        return _of_index(arguments)
    model = hypclip.load(arguments.checkpoint)
    embedded = []
    if arguments.images:
        files = find_files(arguments.images).images if arguments.images.is_dir() else []
        if not files:
            raise DataError(f"{arguments.images} is no folder that holds images")
        embedded.append(embed_files(model, files))
    if arguments.texts:
        texts = arguments.texts.read_text(encoding="utf-8").splitlines()
        embedded.append(model.embed_text([text for text in texts if text.strip()]))
    return _Points(torch.cat(embedded), model.curv.item() if model.metric.geometry == "lorentz" else None)


def _features(file: Path) -> Tensor:
    try:
        with file.open("rb") as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"cannot read {file}: {error}; expected a .npy file of numbers") from error
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.floating):
        raise DataError(
            f"{file} must hold floating-point numbers of shape (n, d), got {array.dtype} of shape {array.shape}"
        )
    return torch.from_numpy(array.astype(np.float64))


def _of_index(arguments: argparse.Namespace) -> _Points:
    where = Where(modality=arguments.modality)
    with LocalStore(arguments.index) as store:
        total = store.count(arguments.collection, where)
        chosen = set(random.Random(arguments.seed).sample(range(total), min(total, MOST_POINTS)))
        rows: list[Tensor] = []
        seen = 0
        for points in store.scan(arguments.collection, where):
            vectors = torch.as_tensor(points.vectors)
            rows.append(vectors[[row for row in range(len(vectors)) if seen + row in chosen]])
            seen += len(vectors)
        space = store.space(arguments.collection)
    return _Points(torch.cat(rows) if rows else torch.zeros(0, space.dim), space.curv)


if __name__ == "__main__":
    sys.exit(main())
