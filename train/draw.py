"""Draw where a model puts the phrases of a taxonomy: a Poincaré disk as SVG or PNG.

python train/draw.py --checkpoint runs/quickstart/checkpoint --taxonomy emoji --taxonomy emoji-held-out \
    --output docs/hierarchy.svg

The distance from the centre is the model's own. Of the directions, which have many dimensions, the drawing shows only
what the taxonomy says: each root has a sector, and its descendants are in it. A point is hollow where its root does not
entail it. Taxonomies embedded without a model are drawn by train/embed_taxonomy.py --plot.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import hypclip
from hypclip.console import escape_unprintable
from hypclip.errors import HypclipError, InputError
from hypclip.files import check_output, user_path
from hypclip.model import HypCLIP
from hypclip.taxonomy import Taxonomy
from hypclip.taxonomy import load as load_taxonomy
from hypclip.taxonomy.drawing import Picture, disk_picture
from hypclip.taxonomy.drawing.picture import check_name


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    escape_unprintable()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=user_path, required=True, help="a model directory")
    parser.add_argument(
        "--taxonomy",
        action="append",
        required=True,
        help="its name, or a file, as hypclip.taxonomy.load takes it; or several",
    )
    parser.add_argument(
        "--output", type=user_path, required=True, help="FILE.svg or FILE.png; another there is moved aside"
    )
    arguments = parser.parse_args(argv)
    try:
        check_name(arguments.output)
        check_output(arguments.output)
        taxonomy = Taxonomy([edge for source in arguments.taxonomy for edge in load_taxonomy(source).edges])
        drawing(hypclip.load(arguments.checkpoint), taxonomy).write(arguments.output)
    except (HypclipError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def drawing(model: HypCLIP, taxonomy: Taxonomy) -> Picture:
    """Return the picture of a taxonomy's phrases in a model of one hyperbolic space.

    Raises:
        InputError: the model has no radii, or several of them.
    """
    if not model.metric.is_hyperbolic or model.metric.factor_dim:
        raise InputError("a disk is drawn of one hyperbolic space: this model's is a sphere, flat, or a product")
    phrases = list(taxonomy.phrases)
    x = model.embed_text(phrases)
    row = {phrase: i for i, phrase in enumerate(phrases)}
    entailed = model.entails(x[[row[root] for root in taxonomy.roots]], x)
    hollow = [
        phrase
        for i, root in enumerate(taxonomy.roots)
        for phrase in taxonomy.descendants(root)
        if not entailed[i, row[phrase]]
    ]
    return disk_picture(taxonomy, phrases, x, model.curv.item(), hollow=hollow)


if __name__ == "__main__":
    sys.exit(main())
