"""Recognise classes never seen in training by their place in a tree: a head on image features, and its scores.

python train/prepare_data.py drawings --output runs/quickstart/drawings
python train/prototypes.py --images runs/quickstart/drawings/images --classes runs/quickstart/drawings/classes.json \
    --taxonomy runs/quickstart/drawings/taxonomy.json --network imagenet --unseen-every 5 --output runs/prototypes

Features of images come from the image tower of a --checkpoint, from --network imagenet (EfficientNet-Lite0, trained on
ImageNet; extra `imagenet`), or from a --features file, an .npz of `features` (N, F) and `keys` (N), the class key of
each. The taxonomy has is-a edges over class keys and inner nodes; its points are placed in closed form, or read from
a folder that train/embed_taxonomy.py has written (--prototypes). Classes of --unseen, or every fifth, take no part in
training. They are looked for among --test images too, such as those of another style.

Each seed trains a head with the tree's places and one without: at the same radii, in random directions; `neighbour` is
what the most similar image of a seen class says, without a head. The output is a
folder of head-SEED.safetensors, points.safetensors, phrases.json, metrics.json, and the features as files that
--features and --test take.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

import hypclip
from hypclip.console import escape_unprintable
from hypclip.errors import DataError, HypclipError, InputError, first_few
from hypclip.evaluation.hierarchy import read_taxonomy
from hypclip.evaluation.label_tree import LabelTree
from hypclip.evaluation.unseen import neighbour_scores, unseen_scores
from hypclip.evaluation.zero_shot import embed_files, read_labelled_images
from hypclip.files import check_room, make_room, read_text, user_path
from hypclip.geometry import lorentz
from hypclip.pretrained.imagenet import imagenet_features
from hypclip.taxonomy import Taxonomy, same_phrase
from hypclip.taxonomy.prototypes import HeadTraining, Prototypes, place_prototypes, read_prototypes, train_head


class Labelled(NamedTuple):
    """Features of images, and the class of each by its place among the keys."""

    features: Tensor
    labels: list[int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    escape_unprintable()
    arguments = _parser().parse_args(argv)
    try:
        check_room(arguments.output, overwrite=arguments.overwrite)
        _run(arguments)
    except (HypclipError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=user_path, required=True, help="JSON, class key to its name or names")
    parser.add_argument("--taxonomy", type=user_path, required=True, help="JSON, is-a edges over keys and inner nodes")
    parser.add_argument("--images", type=user_path, help="folder with one folder of images a class")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=user_path, help="a model directory, whose image tower makes the features")
    source.add_argument("--network", choices=("imagenet",), help="another network that makes them")
    source.add_argument("--features", type=user_path, help=".npz of features and keys, in place of --images")
    parser.add_argument("--test", type=user_path, help="more images, or an .npz of more features, for the scores alone")
    parser.add_argument("--pixels", type=int, default=224, help="side of the images for --network (%(default)s)")
    unseen = parser.add_mutually_exclusive_group(required=True)
    unseen.add_argument("--unseen", type=user_path, help="text file, keys of the classes to hold out, one per line")
    unseen.add_argument(
        "--unseen-every", type=int, metavar="N", help="hold out every Nth class of classes.json, the first on"
    )
    parser.add_argument("--output", type=user_path, required=True, help="the folder that is written")
    parser.add_argument("--overwrite", action="store_true", help="move aside what is there")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="a head each (%(default)s)")
    parser.add_argument(
        "--prototypes", type=user_path, help="folder of train/embed_taxonomy.py, in place of a placed tree"
    )
    parser.add_argument("--dim", type=int, default=64, help="dimensions of a placed tree (%(default)s)")
    parser.add_argument("--tau", type=float, default=1.0, help="distance of child and parent in it (%(default)s)")
    trained = parser.add_argument_group("training")
    for name, (kind, meaning) in _MEANING.items():
        default = getattr(HeadTraining, name)
        option = f"--{name.replace('_', '-')}"
        trained.add_argument(option, type=kind, default=default, help=f"{meaning} (%(default)s)")
    return parser


_MEANING: Mapping[str, tuple[type, str]] = {
    "steps": (int, "updates of a head"),
    "batch": (int, "images of an update"),
    "rate": (float, "learning rate"),
    "weight_decay": (float, "of the matrices"),
    "dropout": (float, "share of the features that an update leaves out"),
    "hidden": (int, "units of a hidden layer; 0 is a linear head"),
}


def _run(arguments: argparse.Namespace) -> None:
    graph = read_taxonomy(arguments.taxonomy)
    keys = list(json.loads(read_text(arguments.classes)))
    tree = LabelTree(graph, keys)
    if len({same_phrase(node) for node in tree.nodes}) < len(tree.nodes):
        raise DataError(f"{arguments.taxonomy}: nodes must differ in more than case and spaces")
    seen = _seen(arguments, keys)
    placed = _prototypes(arguments, Taxonomy(graph.edges))
    data = _labelled(arguments, arguments.features or arguments.images, keys)
    test = _labelled(arguments, arguments.test, keys) if arguments.test else None
    train = [row for row, label in enumerate(data.labels) if seen[label]]
    if not train:
        raise DataError("no image is of a seen class: there is nothing to train on")
    order = {label: row for row, label in enumerate(seen.nonzero().squeeze(1).tolist())}
    labels = [order[data.labels[row]] for row in train]
    trained_on = [data.labels[row] for row in train]
    print(f"{int(seen.sum())} classes seen in {len(train)} images, {int((~seen).sum())} unseen")

    found: dict[str, list[dict[str, float]]] = {}
    heads = {}
    for seed in arguments.seeds:
        training = HeadTraining(**{name: getattr(arguments, name) for name in _MEANING}, seed=seed)
        for name, prototypes in (("tree", placed), ("without_tree", placed.without_tree(seed))):
            points = prototypes.of(tree.nodes)
            head = train_head(data.features[train], labels, points[tree.of_class][seen], training)
            for where, rows in (("", data), ("test_", test)):
                if rows is not None:
                    with torch.no_grad():
                        images = head(rows.features)
                    scores = dict(unseen_scores(images, rows.labels, points, tree, seen))
                    found.setdefault(f"{where}{name}", []).append(scores)
            if name == "tree":
                heads[seed] = head
    for where, rows in (("", data), ("test_", test)):
        if rows is not None:
            found[f"{where}neighbour"] = [
                dict(neighbour_scores(rows.features, rows.labels, data.features[train], trained_on, tree))
            ]
    print(_table(found))
    make_room(arguments.output, overwrite=arguments.overwrite)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for seed, head in heads.items():
        head.save(arguments.output / f"head-{seed}.safetensors")
    save_file({"points": placed.points.contiguous()}, arguments.output / "points.safetensors", {"curv": "1.0"})
    for name, rows in (("features", data), ("test", test)):
        if rows is not None:
            by_key = np.array([keys[label] for label in rows.labels])
            np.savez(arguments.output / f"{name}.npz", features=rows.features.numpy(), keys=by_key)
    (arguments.output / "phrases.json").write_text(json.dumps(placed.phrases, ensure_ascii=False), encoding="utf-8")
    metrics = {"seeds": arguments.seeds, "unseen": [key for key, s in zip(keys, seen, strict=True) if not s], **found}
    (arguments.output / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")


def _seen(arguments: argparse.Namespace, keys: Sequence[str]) -> Tensor:
    """Return which classes training may see.

    Raises:
        DataError: unknown keys are held out, or all or no classes.
    """
    if arguments.unseen:
        lines = [line.strip() for line in read_text(arguments.unseen).splitlines()]
        out = {line for line in lines if line}
        if unknown := sorted(out - set(keys)):
            raise DataError(f"{arguments.unseen} names no classes: {first_few(list(map(repr, unknown)))}")
    else:
        if arguments.unseen_every < 2:
            raise InputError(f"--unseen-every must be at least 2, got {arguments.unseen_every}")
        out = set(keys[:: arguments.unseen_every])
    seen = torch.tensor([key not in out for key in keys])
    if not 0 < int(seen.sum()) < len(keys):
        raise DataError(f"some classes must be seen and some not, got {int(seen.sum())} seen of {len(keys)}")
    return seen


def _prototypes(arguments: argparse.Namespace, taxonomy: Taxonomy) -> Prototypes:
    if arguments.prototypes:
        return read_prototypes(arguments.prototypes)
    return place_prototypes(taxonomy, arguments.dim, arguments.tau)


def _labelled(arguments: argparse.Namespace, path: Path | None, keys: Sequence[str]) -> Labelled:
    """Return features of a folder of images, or those of an .npz file.

    Raises:
        InputError: no folder of images is given.
        DataError: the file is of another form, or has other classes.
    """
    if path is None:
        raise InputError("--images is needed, the folder that features are made of; or --features, which are there")
    if path.suffix == ".npz":
        return _read_features(path, keys)
    data = read_labelled_images(path, arguments.classes)
    for line in data.passed_over:
        print(f"warning: {line}", file=sys.stderr)
    if arguments.checkpoint:
        model = hypclip.load(arguments.checkpoint)
        if model.metric.geometry != "lorentz":
            raise InputError(f"--checkpoint must be a model on the hyperboloid, got one of {model.metric.geometry}")
        features = lorentz.log_map0(embed_files(model, data.files), model.curv.detach())
    elif arguments.network:
        features = imagenet_features(data.files, arguments.pixels)
    else:
        raise InputError(f"{path} must be an .npz, as --features is: there is nothing to make features of images with")
    return Labelled(features, data.labels)


def _read_features(path: Path, keys: Sequence[str]) -> Labelled:
    try:
        with np.load(path, allow_pickle=False) as file:
            features, names = torch.from_numpy(file["features"]).float(), [str(key) for key in file["keys"]]
    except (ValueError, KeyError, OSError) as error:
        raise DataError(f"{path} must be an .npz of features (N, F) and keys (N): {error}") from error
    if features.dim() != 2 or len(features) != len(names):
        raise DataError(f"{path}: features (N, F) and keys (N) do not fit: {tuple(features.shape)} and {len(names)}")
    place = {key: i for i, key in enumerate(keys)}
    if unknown := sorted(set(names) - set(place)):
        raise DataError(f"{path} has keys that are no classes: {first_few(list(map(repr, unknown)))}")
    return Labelled(features, [place[name] for name in names])


def _table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Return a line for each score, with the mean and the deviation over seeds of each kind of prototypes."""
    heads = list(found)
    measures = list(dict.fromkeys(measure for rows in found.values() for row in rows for measure in row))
    width = max(map(len, measures))
    lines = [" " * width + "".join(f"  {head:>17}" for head in heads)]
    for measure in measures:
        cells = [_cell([row[measure] for row in found[head] if measure in row]) for head in heads]
        lines.append(f"{measure:<{width}}" + "".join(f"  {cell:>17}" for cell in cells))
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    if not values or all(isinstance(value, int) for value in values):
        return str(values[0]) if values else "–"
    mean = f"{statistics.fmean(values):.4f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.4f}"


if __name__ == "__main__":
    sys.exit(main())
