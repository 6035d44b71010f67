"""Score zero-shot classification of a folder of images, and how far wrong answers are from right ones.

python train/zero_shot.py --checkpoint runs/quickstart/checkpoint --images ROOT --classes classes.json \
    --taxonomy taxonomy.json --output scores.json

ROOT/<class key>/*.png|jpg; classes.json {"<class key>": "name" | ["name", "synonym"]};
taxonomy.json [["child", "parent"], ...]. Images of every format that Pillow reads count, also in folders of the class
folders; hidden files are passed over, and others are named. Where classes share a name, "shared_names" says how many.

With --hierarchical the taxonomy also makes answers: "flat", "joint" and "least_wrong" are the classes answered without
it, by the evidence of all levels, and for the fewest expected steps to the right class; "stop_90" may stop above
classes, and is right for 90 of 100. --calibration has the images that this is fitted to, which must be others.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import networkx as nx

import hypclip
from hypclip.console import escape_unprintable
from hypclip.errors import HypclipError, InputError
from hypclip.evaluation.hierarchical import ACCURACIES, Hierarchical, read_node_texts
from hypclip.evaluation.hierarchy import hierarchy_scores, read_taxonomy, require_classes
from hypclip.evaluation.zero_shot import (
    DEFAULT_TEMPLATES,
    LabelledImages,
    embed_files,
    read_labelled_images,
    read_templates,
    zero_shot,
)
from hypclip.files import check_output, user_path, write_output


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    escape_unprintable()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=user_path, required=True, help="a model directory")
    parser.add_argument("--images", type=user_path, required=True, help="folder with one folder of images a class")
    parser.add_argument("--classes", type=user_path, required=True, help="JSON, class key to its name or names")
    parser.add_argument("--taxonomy", type=user_path, help="JSON, is-a edges over class keys and inner nodes")
    parser.add_argument("--templates", type=user_path, help="prompt templates, one per line, {} for the name")
    parser.add_argument(
        "--output", type=user_path, help="where to write the scores as JSON; they are printed in any case"
    )
    answers = parser.add_argument_group("answers by the taxonomy")
    answers.add_argument("--hierarchical", action="store_true", help="score them too; needs --taxonomy")
    answers.add_argument("--calibration", type=user_path, help="images by class, as --images, that they are fitted to")
    answers.add_argument(
        "--weights", type=float, nargs="+",
        help="in place of fitted ones, of the similarity and of each level that has nodes above classes, roots first",
    )  # fmt: skip
    answers.add_argument(
        "--node-texts", type=user_path, help='JSON, what such nodes are called: {"kind:fruit": "a fruit"}'
    )
    answers.add_argument(
        "--accuracies", type=float, nargs="+", default=list(ACCURACIES),
        help="shares of answers that shall be right where they may stop above classes (%(default)s)",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    try:
        if arguments.output:
            check_output(arguments.output)
        data = read_labelled_images(arguments.images, arguments.classes)
        taxonomy = read_taxonomy(arguments.taxonomy) if arguments.taxonomy else None
        if taxonomy is not None:
            require_classes(taxonomy, data.keys)
        templates = read_templates(arguments.templates) if arguments.templates else DEFAULT_TEMPLATES
        by_tree = _by_tree(arguments, taxonomy, data, templates)
        for line in data.warnings():
            print(f"warning: {line}", file=sys.stderr)
        if data.without_images:
            count, first = len(data.without_images), data.without_images[0]
            print(
                f"note: {count} classes have no folder, {first!r} first: they only serve as wrong answers",
                file=sys.stderr,
            )
        model = hypclip.load(arguments.checkpoint)
        images = embed_files(model, data.files)
        flat, predicted = zero_shot(model, data, templates, images)
        scores: dict[str, Any] = dict(flat)
        if taxonomy is not None:
            scores |= dict(hierarchy_scores(taxonomy, predicted, [data.keys[i] for i in data.labels]))
        if by_tree is not None:
            for name, value in by_tree.scores(model, images):
                kind, _, measure = name.partition("/")
                scores.setdefault(kind, {})[measure] = value
        text = json.dumps(scores, indent=1)
        print(text)
        if arguments.output and (aside := write_output(arguments.output, text + "\n")):
            print(f"the scores that were in {arguments.output} are now in {aside}", file=sys.stderr)
    except (HypclipError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _by_tree(
    arguments: argparse.Namespace, taxonomy: nx.DiGraph | None, data: LabelledImages, templates: Sequence[str]
) -> Hierarchical | None:
    """Return what makes answers by the taxonomy, if it is asked for.

    Raises:
        InputError: there is no taxonomy, or an option of such answers without --hierarchical.
    """
    if not arguments.hierarchical:
        if given := [name for name in ("calibration", "weights", "node_texts") if getattr(arguments, name) is not None]:
            raise InputError(f"--{given[0].replace('_', '-')} needs --hierarchical")
        return None
    if taxonomy is None:
        raise InputError("--hierarchical needs --taxonomy, which the answers are made by")
    calibration = read_labelled_images(arguments.calibration, arguments.classes) if arguments.calibration else None
    for line in calibration.passed_over if calibration else ():
        print(f"warning: --calibration: {line}", file=sys.stderr)
    texts = read_node_texts(arguments.node_texts) if arguments.node_texts else {}
    return Hierarchical(taxonomy, data, templates, texts, calibration, arguments.weights, arguments.accuracies)


if __name__ == "__main__":
    sys.exit(main())
