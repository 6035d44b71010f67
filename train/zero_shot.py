"""Score zero-shot classification of a folder of images, and how far wrong answers are from right ones.

python train/zero_shot.py --checkpoint runs/quickstart/checkpoint --images ROOT --classes classes.json \
    --taxonomy taxonomy.json --output scores.json

ROOT/<class key>/*.png|jpg; classes.json {"<class key>": "name" | ["name", "synonym"]};
taxonomy.json [["child", "parent"], ...]. Images of every format that Pillow reads count, also in folders of the class
folders; hidden files are passed over, and others are named. Where classes share a name, "shared_names" says how many.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import hypclip
from hypclip.console import escape_unprintable
from hypclip.errors import HypclipError
from hypclip.evaluation.hierarchy import hierarchy_scores, read_taxonomy, require_classes
from hypclip.evaluation.zero_shot import DEFAULT_TEMPLATES, read_labelled_images, read_templates, zero_shot
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
    arguments = parser.parse_args(argv)
    try:
        if arguments.output:
            check_output(arguments.output)
        data = read_labelled_images(arguments.images, arguments.classes)
        taxonomy = read_taxonomy(arguments.taxonomy) if arguments.taxonomy else None
        if taxonomy is not None:
            require_classes(taxonomy, data.keys)
        templates = read_templates(arguments.templates) if arguments.templates else DEFAULT_TEMPLATES
        for line in data.warnings():
            print(f"warning: {line}", file=sys.stderr)
        if data.without_images:
            count, first = len(data.without_images), data.without_images[0]
            print(
                f"note: {count} classes have no folder, {first!r} first: they only serve as wrong answers",
                file=sys.stderr,
            )
        scores, predicted = zero_shot(hypclip.load(arguments.checkpoint), data, templates)
        scores = dict(scores)
        if taxonomy is not None:
            scores |= dict(hierarchy_scores(taxonomy, predicted, [data.keys[i] for i in data.labels]))
        text = json.dumps(scores, indent=1)
        print(text)
        if arguments.output and (aside := write_output(arguments.output, text + "\n")):
            print(f"the scores that were in {arguments.output} are now in {aside}", file=sys.stderr)
    except (HypclipError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
