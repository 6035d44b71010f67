"""Draw where a model puts the phrases of a taxonomy: a Poincaré disk as SVG.

python train/draw.py --checkpoint runs/quickstart/checkpoint --taxonomy emoji --taxonomy emoji-held-out \
    --output docs/hierarchy.svg

The distance from the centre is the model's own. Of the directions, which have many dimensions, the drawing shows only
what the taxonomy says: each root has a sector, and its descendants are in it. A point is hollow where its root does not
entail it.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from html import escape

import torch

import hypclip
from hypclip.console import escape_unprintable
from hypclip.errors import HypclipError, InputError
from hypclip.files import check_output, user_path, write_output
from hypclip.model import HypCLIP
from hypclip.taxonomy import Taxonomy
from hypclip.taxonomy import load as load_taxonomy

SIDE, LABELS, REACH = 720, 110, 0.88
COLOURS = ("#1b6ca8", "#c0392b", "#2e8b57", "#8e5ea2", "#d08a1d", "#3f8f8f", "#a0522d", "#5b6abf", "#7a8b2d", "#b0457b")


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
    parser.add_argument("--output", type=user_path, required=True, help="the SVG file; another there is moved aside")
    arguments = parser.parse_args(argv)
    try:
        check_output(arguments.output)
        taxonomy = Taxonomy([edge for source in arguments.taxonomy for edge in load_taxonomy(source).edges])
        write_output(arguments.output, drawing(hypclip.load(arguments.checkpoint), taxonomy))
    except (HypclipError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def drawing(model: HypCLIP, taxonomy: Taxonomy) -> str:
    """Return the SVG of a taxonomy's phrases in a model of one hyperbolic space.

    Raises:
        InputError: the model has no radii, or several of them.
    """
    if not model.metric.is_hyperbolic or model.metric.factor_dim:
        raise InputError("a disk is drawn of one hyperbolic space: this model's is a sphere, flat, or a product")
    phrases = list(taxonomy.phrases)
    x = model.embed_text(phrases)
    rho = torch.asinh(model.curv.detach().cpu().sqrt() * x.double().norm(dim=1)).tolist()
    row = {phrase: i for i, phrase in enumerate(phrases)}
    below: dict[str, list[str]] = {phrase: [] for phrase in phrases}
    for child, parent in sorted(taxonomy.edges):
        below[parent].append(child)
    roots = [phrase for phrase in phrases if taxonomy.level(phrase) == 0]
    entailed = model.entails(x[[row[root] for root in roots]], x)
    lines = [(root, line) for root in roots for line in _lines(below, root, [])]
    leaves = [line for _, line in lines if not below[line[-1]]]
    farthest = REACH / math.tanh(max(rho) / 2) * SIDE / 2
    marks, names = [], []
    for root, way in lines:
        phrase, colour = way[-1], COLOURS[roots.index(root) % len(COLOURS)]
        under = [at for at, leaf in enumerate(leaves) if leaf[: len(way)] == way]
        angle = 2 * math.pi * (sum(under) / len(under) + 0.5) / len(leaves)
        distance = math.tanh(rho[row[phrase]] / 2) * farthest
        px, py = (SIDE / 2 + distance * f(angle) for f in (math.cos, math.sin))
        inside = phrase == root or bool(entailed[roots.index(root), row[phrase]])
        marks.append(
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{(9, 5, 2.5)[min(len(way) - 1, 2)]}" stroke="{colour}" '
            f'fill="{colour if inside else "white"}">'
            f"<title>{escape(phrase)}: √c · radius {rho[row[phrase]]:.2f}</title></circle>"
        )
        if phrase == root:
            px, py = (SIDE / 2 * (1 + (REACH + 0.08) * f(angle)) for f in (math.cos, math.sin))
            side = "start" if math.cos(angle) > 0.3 else "end" if math.cos(angle) < -0.3 else "middle"
            names.append(
                f'<text x="{px:.1f}" y="{py:.1f}" fill="{colour}" font-size="17" font-weight="bold" '
                f'text-anchor="{side}">{escape(root)}</text>'
            )
    middle = SIDE / 2
    rings = "".join(
        f'<circle cx="{middle}" cy="{middle}" r="{math.tanh(r / 2) * farthest:.1f}" fill="none" stroke="#ddd"/>'
        f'<text x="{middle}" y="{middle - math.tanh(r / 2) * farthest - 3:.1f}" fill="#999" font-size="11" '
        f'text-anchor="middle">{r:g}</text>'
        for r in (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
        if r < 1.1 * max(rho)
    )
    width = SIDE + 2 * LABELS
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-LABELS} {-LABELS} {width} {width}" '
        f'font-family="sans-serif"><rect x="{-LABELS}" y="{-LABELS}" width="100%" height="100%" fill="white"/>{rings}'
        f'<circle cx="{middle}" cy="{middle}" r="3" fill="black"/>{"".join(marks)}{"".join(names)}</svg>\n'
    )


def _lines(below: Mapping[str, Sequence[str]], phrase: str, above: list[str]) -> list[list[str]]:
    """Return the ways from a phrase to all below it, each after the one it goes on from."""
    way = [*above, phrase]
    return [way, *(line for child in below[phrase] for line in _lines(below, child, way))]


if __name__ == "__main__":
    sys.exit(main())
