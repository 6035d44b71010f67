"""Embed a taxonomy in hyperbolic space, and measure how well it is given back.

python train/embed_taxonomy.py --taxonomy wordnet-mammals --method lorentz --dim 10 --output runs/mammals
python train/embed_taxonomy.py --taxonomy emoji --method sarkar --dim 32 --output runs/emoji-tree
python train/embed_taxonomy.py --taxonomy wordnet-mammals --method cones --dim 5 --output runs/mammal-cones
python train/embed_taxonomy.py --embedded runs/mammals --plot disk.svg --centre dog.n.01 --index runs/trees

`lorentz` and `poincare` train on all pairs of a phrase and an ancestor (Nickel & Kiela 2017), on the hyperboloid or in
the ball; `sarkar` places the tree without training; `cones` trains entailment cones (Ganea et al. 2018), and tests them
on pairs that are held out. The output is a folder of `points.safetensors` (space components on the hyperboloid of
curvature −1), `phrases.json` in the same order, and `metrics.json`. Its `entailment` is the rule by which points entail
each other: that of the best F1 over the taxonomy, where training had none.

--plot draws the result as a Poincaré disk, and --index puts it into a collection that `python -m serve --index-only`
serves. With --embedded both take the output of an earlier call.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hypclip.console import escape_unprintable
from hypclip.errors import ConfigError, DataError, HypclipError, InputError
from hypclip.files import check_output, check_room, expand_home, make_room, user_path
from hypclip.geometry import lorentz
from hypclip.geometry.analysis.distortion import (
    average_distortion,
    graph_distances,
    neighbour_map,
    worst_case_distortion,
)
from hypclip.indexing.trees import tree_space, write_tree
from hypclip.search import LocalStore
from hypclip.search.rules import as_entry, described, of_entry
from hypclip.taxonomy import Pairs, Taxonomy, load
from hypclip.taxonomy.calibration import Pairing, best_rule
from hypclip.taxonomy.drawing import disk_picture
from hypclip.taxonomy.drawing.draw import MOST
from hypclip.taxonomy.drawing.picture import check_name
from hypclip.taxonomy.embedding import (
    ConeTraining,
    Progress,
    Training,
    cone_start,
    place,
    predict,
    reconstruction,
    split,
    train,
    train_cones,
)
from hypclip.taxonomy.embedding.closed_form import first_parents
from hypclip.taxonomy.embedding.prediction import is_basic

FLAT_DIMS = (5, 10, 20, 50)
"""Dimensions of the flat embeddings that a hyperbolic one is printed beside: from 20 on the flat one is the better."""
_MOST_MEASURED = 3000
"""Phrases of a tree up to which its distortion is measured, which takes all distances at a time."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    escape_unprintable()
    arguments = _parser().parse_args(argv)
    try:
        _check(arguments)
        if arguments.threads is not None:
            torch.set_num_threads(arguments.threads)
        if arguments.embedded is not None:
            taxonomy, phrases, x, metrics = _read(arguments.embedded, arguments.taxonomy)
        else:
            taxonomy = load(arguments.taxonomy)
            print(f"{len(taxonomy):,} phrases, {len(taxonomy.closure):,} pairs of a phrase and an ancestor")
            phrases, x, metrics = _METHODS.get(arguments.method, _train)(taxonomy, arguments)
            metrics = {"taxonomy": _source(arguments.taxonomy), **metrics}
        metrics = _with_entailment(metrics, taxonomy, phrases, x)
        if arguments.embedded is None:
            make_room(arguments.output, overwrite=arguments.overwrite)
            _write(arguments.output, phrases, x, metrics)
        if arguments.plot is not None:
            choice = {"centre": arguments.centre, "most": arguments.most, "depth": arguments.depth}
            disk_picture(taxonomy, phrases, x, **choice).write(arguments.plot)
            print(f"{arguments.plot}: {arguments.plot.stat().st_size / 1000:.0f} kB")
        if arguments.index is not None:
            _index(arguments, taxonomy, phrases, x, metrics)
    except (HypclipError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--taxonomy", type=expand_home, help="its name or file, as hypclip.taxonomy.load takes it")
    parser.add_argument(
        "--method", choices=("lorentz", "poincare", "sarkar", "cones"), default="lorentz", help="how (%(default)s)"
    )
    parser.add_argument("--dim", type=int, default=10, help="dimensions (%(default)s)")
    parser.add_argument("--output", type=user_path, help="the folder that is written")
    parser.add_argument(
        "--embedded", type=user_path, metavar="DIR", help="embed nothing: take the output of an earlier call"
    )
    parser.add_argument("--overwrite", action="store_true", help="move aside what is there")
    parser.add_argument("--threads", type=int, help="threads; all cores when not given")
    trained = parser.add_argument_group("training")
    for name, kind in (("epochs", int), ("rate", float), ("batch", int), ("negatives", float), ("candidates", int)):
        default = getattr(Training, name)
        trained.add_argument(f"--{name}", type=kind, default=default, help=f"{_MEANING[name]} (%(default)s)")
    trained.add_argument("--burn-in", type=float, default=Training.burn_in, help=f"{_MEANING['burn_in']} (%(default)s)")
    trained.add_argument("--seed", type=int, default=0, help="of places and samples (%(default)s)")
    trained.add_argument(
        "--held-out", type=float, default=0.0, help="share of the pairs that are no edges to leave out and predict"
    )
    trained.add_argument("--no-flat", action="store_true", help="train no flat embeddings to print beside")
    entailed = parser.add_argument_group("cones")
    entailed.add_argument(
        "--closure-share",
        type=float,
        default=0.5,
        help="share of the pairs that follow from others to learn from, 0 to 0.9; 0.1 is held out (%(default)s)",
    )
    entailed.add_argument("--steps", type=int, default=ConeTraining.steps, help="steps of Adam (%(default)s)")
    entailed.add_argument("--cone-rate", type=float, default=ConeTraining.rate, help="its rate (%(default)s)")
    entailed.add_argument(
        "--margin", type=float, default=ConeTraining.margin, help="energy of wrong pairs in radians (%(default)s)"
    )
    entailed.add_argument(
        "--min-radius", type=float, default=ConeTraining.min_radius, help="K of the cones (%(default)s)"
    )
    placed = parser.add_argument_group("placing")
    placed.add_argument(
        "--tau", type=float, default=0.5, help="distance of child and parent, also where cones start (%(default)s)"
    )
    placed.add_argument("--float64", action="store_true", help="in float64, where float32 has too few digits")
    drawn = parser.add_argument_group("drawing")
    drawn.add_argument(
        "--plot", type=user_path, metavar="FILE", help="draw it as a Poincaré disk: FILE.svg or FILE.png"
    )
    drawn.add_argument("--centre", metavar="PHRASE", help="what is in the middle; the root when not given")
    drawn.add_argument("--depth", type=int, help="only what is so many steps from the middle")
    drawn.add_argument("--most", type=int, default=MOST, help="phrases to draw (%(default)s)")
    kept = parser.add_argument_group("indexing")
    kept.add_argument("--index", type=user_path, metavar="DIR", help="put it into an index, made when missing")
    kept.add_argument("--collection", default="default", help="name of the collection (%(default)s)")
    return parser


_MEANING = {
    "epochs": "how often each phrase is seen",
    "rate": "learning rate",
    "batch": "phrases of a batch",
    "negatives": "how many other phrases count against an ancestor",
    "candidates": "how many phrases a batch takes them from",
    "burn_in": "share of the epochs at a hundredth of the rate",
}


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot work, before the work.

    Raises:
        ConfigError, InputError: options that do not go together, or places that cannot be written.
    """
    if arguments.embedded is None:
        if arguments.taxonomy is None or arguments.output is None:
            raise ConfigError("give --taxonomy and --output, or the output of an earlier call with --embedded")
        check_room(arguments.output, overwrite=arguments.overwrite)
    elif arguments.output is not None or not (arguments.plot or arguments.index):
        raise ConfigError("--embedded draws or indexes what is there: give --plot or --index with it, and no --output")
    if arguments.plot is None and (arguments.centre is not None or arguments.depth is not None):
        raise ConfigError("--centre and --depth are of a drawing: give --plot too")
    if arguments.plot is not None:
        check_name(arguments.plot)
        check_output(arguments.plot)


def _source(taxonomy: str) -> str:
    """Return the name of a taxonomy, or the whole path of its file."""
    return str(Path(taxonomy).absolute()) if Path(taxonomy).exists() else taxonomy


def _read(folder: Path, source: str | None) -> tuple[Taxonomy, Sequence[str], Tensor, dict[str, Any]]:
    """Return the taxonomy, phrases, points and metrics of an output.

    Raises:
        DataError: it is none, or does not say of which taxonomy it is.
    """
    try:
        x = load_file(folder / "points.safetensors")["points"]
        phrases = json.loads((folder / "phrases.json").read_text())
        metrics = json.loads((folder / "metrics.json").read_text())
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise DataError(f"{folder} is no output of this command: {error}") from error
    found = source or metrics.get("taxonomy")
    if found is None:
        raise DataError(f"{folder}/metrics.json does not say of which taxonomy it is: give --taxonomy")
    return load(found), phrases, x, metrics


def _with_entailment(metrics: dict[str, Any], taxonomy: Taxonomy, phrases: Sequence[str], x: Tensor) -> dict[str, Any]:
    """Return metrics that have a rule of entailment: the one of training, or else the best one."""
    if "entailment" in metrics:
        return metrics
    pairing = Pairing.of(taxonomy)
    row = {phrase: i for i, phrase in enumerate(phrases)}
    found = best_rule(x[[row[phrase] for phrase in pairing.phrases]], pairing, 1.0)
    ancestors = {"precision": found.precision, "recall": found.recall, "f1": found.f1}
    print(
        f"ancestors by {described(found.rule)}: precision {found.precision:.3f}, recall {found.recall:.3f}, "
        f"F1 {found.f1:.3f}"
    )
    return {**metrics, "entailment": as_entry(found.rule), "ancestors": ancestors}


def _index(
    arguments: argparse.Namespace, taxonomy: Taxonomy, phrases: Sequence[str], x: Tensor, metrics: dict[str, Any]
) -> None:
    """Put an embedding into a collection."""
    name = f"{Path(metrics.get('taxonomy', 'taxonomy')).stem}-{metrics['method']}-{x.shape[1]}"
    space = tree_space(name, x, 1.0, of_entry(metrics["entailment"]))
    with contextlib.closing(LocalStore(arguments.index, create=True)) as store:
        count = write_tree(store, arguments.collection, space, taxonomy, phrases, x)
    print(f"{count:,} points in collection {arguments.collection!r} of {arguments.index}")


def _place(taxonomy: Taxonomy, arguments: argparse.Namespace) -> tuple[Sequence[str], Tensor, dict[str, Any]]:
    """Place a tree, and measure how well it keeps the distances of its edges."""
    start = time.perf_counter()
    dtype = torch.float64 if arguments.float64 else torch.float32
    phrases, x = place(taxonomy, arguments.dim, arguments.tau, dtype)
    metrics: dict[str, Any] = {"method": "sarkar", "dim": arguments.dim, "tau": arguments.tau}
    metrics |= {"seconds": time.perf_counter() - start, "max_radius": float(lorentz.radius(x.double(), 1.0).max())}
    tree = nx.Graph([(child, up) for child, up in first_parents(taxonomy).items() if up is not None])
    if len(phrases) <= _MOST_MEASURED and nx.is_connected(tree):
        nodes, steps = graph_distances(tree)
        row = {phrase: i for i, phrase in enumerate(phrases)}
        points = x.double()[[row[node] for node in nodes]]
        embedded = torch.stack([lorentz.dist(point.expand_as(points), points, 1.0) for point in points])
        embedded = (embedded + embedded.T) / 2
        metrics |= {
            "map": neighbour_map(embedded, steps == 1),
            "distortion": average_distortion(embedded, steps, arguments.tau),
            "worst_distortion": worst_case_distortion(embedded, steps),
        }
    return phrases, x, metrics


def _train(taxonomy: Taxonomy, arguments: argparse.Namespace) -> tuple[Sequence[str], Tensor, dict[str, Any]]:
    """Train an embedding, score it, and flat ones of several dimensions beside it."""
    pairs, n = taxonomy.closure, len(taxonomy)
    learned, held_out = _split(taxonomy, arguments.held_out, arguments.seed)
    names = ("epochs", "rate", "burn_in", "batch", "negatives", "candidates", "seed")
    settings = {name: getattr(arguments, name) for name in names}
    training = Training(method=arguments.method, dim=arguments.dim, **settings)
    start = time.perf_counter()
    x = train(learned, n, training, report=_reporter(training.epochs))
    seconds = time.perf_counter() - start
    metrics = {"method": arguments.method, "dim": arguments.dim, **settings, "seconds": seconds}
    metrics |= {"max_radius": float(lorentz.radius(x, 1.0).max()), **_scores(x, pairs, held_out, flat=False)}
    _print(arguments.method, metrics)
    if not arguments.no_flat:
        metrics["euclid"] = {}
        for dim in FLAT_DIMS:
            start = time.perf_counter()
            flat = train(learned, n, Training(method="euclid", dim=dim, **settings))
            row = {"dim": dim, "seconds": time.perf_counter() - start, **_scores(flat, pairs, held_out, flat=True)}
            metrics["euclid"][str(dim)] = row
            _print("euclid", row)
    return taxonomy.phrases, x, metrics


def _cones(taxonomy: Taxonomy, arguments: argparse.Namespace) -> tuple[Sequence[str], Tensor, dict[str, Any]]:
    """Train entailment cones, and test them on pairs that are held out."""
    cones = {"steps": arguments.steps, "margin": arguments.margin, "min_radius": arguments.min_radius}
    training = ConeTraining(rate=arguments.cone_rate, seed=arguments.seed, **cones)
    if not 0 <= arguments.closure_share <= 0.9:
        raise InputError(f"--closure-share must be 0 to 0.9, as 0.1 is held out, got {arguments.closure_share}")
    parts = split(taxonomy, arguments.closure_share, arguments.seed)
    start = time.perf_counter()
    x = train_cones(cone_start(taxonomy, arguments.dim, arguments.tau), parts, training)
    seconds = time.perf_counter() - start
    found = predict(x, taxonomy, parts, training.min_radius, arguments.seed)
    metrics = {"method": "cones", "dim": arguments.dim, "closure_share": arguments.closure_share, **cones}
    metrics |= {"tau": arguments.tau, "cone_rate": arguments.cone_rate, "seed": arguments.seed, "seconds": seconds}
    metrics |= {"max_radius": float(lorentz.radius(x, 1.0).max()), **found.test._asdict()}
    metrics |= {"threshold": found.threshold, "valid_f1": found.valid.f1}
    metrics["pairs"] = {"learned": len(parts.learned), "valid": len(parts.valid), "test": len(parts.test)}
    metrics["pairs"]["test_wrong"] = found.wrong
    metrics |= {"entailment": as_entry(found.rule), "entailment_f1": found.by_rule.f1}
    print(
        f"cones, D = {arguments.dim}: F1 {found.test.f1:.3f}, precision {found.test.precision:.3f}, recall "
        f"{found.test.recall:.3f} of {len(parts.test):,} pairs, {seconds:.1f} s"
    )
    return taxonomy.phrases, x, metrics


_METHODS = {"sarkar": _place, "cones": _cones}


def _split(taxonomy: Taxonomy, share: float, seed: int) -> tuple[Pairs, Pairs | None]:
    """Return the pairs to learn from and those to predict: a share of those that are no edge of the reduction.

    Raises:
        InputError: the share is not from 0 to below 1.
    """
    if not 0 <= share < 1:
        raise InputError(f"--held-out must be at least 0 and below 1, got {share}")
    pairs = taxonomy.closure
    if not share:
        return pairs, None
    out = ~is_basic(taxonomy) & (np.random.default_rng(seed).random(len(pairs)) < share)
    return Pairs(pairs.below[~out], pairs.above[~out]), Pairs(pairs.below[out], pairs.above[out])


def _scores(x: Tensor, pairs: Pairs, held_out: Pairs | None, *, flat: bool) -> dict[str, float]:
    time_component = (1 + x.square().sum(1)).sqrt()

    def by_distance(rows: Tensor) -> Tensor:
        if flat:
            return torch.cdist(x[rows], x)
        return torch.outer(time_component[rows], time_component) - x[rows] @ x.T

    whole = reconstruction(by_distance, pairs, len(x))
    scores = {"mean_rank": whole.mean_rank, "map": whole.map}
    if held_out is not None:
        predicted = reconstruction(by_distance, pairs, len(x), held_out)
        scores |= {"held_out_mean_rank": predicted.mean_rank, "held_out_map": predicted.map}
    return scores


def _reporter(epochs: int) -> Any:
    every = max(1, epochs // 10)

    def report(progress: Progress) -> None:
        if progress.epoch % every == 0 or progress.epoch == 1:
            print(
                f"epoch {progress.epoch}/{epochs}: loss {progress.loss:.4g} a pair, "
                f"{progress.pairs_per_s:,.0f} pairs/s",
                flush=True,
            )

    return report


def _print(name: str, row: dict[str, Any]) -> None:
    scores = ", ".join(f"{key} {row[key]:.4f}" for key in row if key.endswith(("map", "mean_rank")))
    print(f"{name}, D = {row['dim']}: {scores}, {row['seconds']:.1f} s", flush=True)


def _write(output: Path, phrases: Sequence[str], x: Tensor, metrics: dict[str, Any]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    save_file({"points": x.contiguous()}, output / "points.safetensors", {"curv": "1.0"})
    (output / "phrases.json").write_text(json.dumps(list(phrases), ensure_ascii=False))
    (output / "metrics.json").write_text(json.dumps(metrics, indent=1))


if __name__ == "__main__":
    sys.exit(main())
