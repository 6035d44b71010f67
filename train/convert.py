"""Convert a published checkpoint of CLIP, MERU, HyCoCLIP, PHyCLIP or UNCHA to a model directory.

python train/convert.py hycoclip_vit_s.pth models/hycoclip_vit_s
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from hypclip.checkpoint import atomic_directory, save
from hypclip.console import escape_unprintable
from hypclip.errors import HypclipError
from hypclip.files import check_room, make_room, user_path
from hypclip.pretrained.published import Kind, Published, load_published


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    escape_unprintable()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=user_path, metavar="PEER.pth", help="the published file")
    parser.add_argument("output", type=user_path, metavar="OUT_DIR", help="the directory to write")
    parser.add_argument("--overwrite", action="store_true", help="move what is there to a dated name beside it")
    parser.add_argument(
        "--kind", choices=get_args(Kind), help="tells meru from hycoclip, whose files have the same keys"
    )
    parser.add_argument("--name", help="the name to keep in config.yaml (kind and size, such as hycoclip_vit_s)")
    arguments = parser.parse_args(argv)
    try:
        to_directory(
            arguments.checkpoint, arguments.output, arguments.kind, arguments.name, overwrite=arguments.overwrite
        )
    except (HypclipError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def to_directory(
    checkpoint: Path, output: Path, kind: str | None, name: str | None, *, overwrite: bool = False
) -> None:
    """Convert a published checkpoint to a model directory, in a free place or one whose content may be moved aside."""
    if output.is_symlink():
        output = output.resolve()
    check_room(output, overwrite=overwrite)
    published = load_published(checkpoint, kind)
    with atomic_directory(output) as folder:
        save(published.model, folder, **{**published.notes, **({"name": name} if name else {})})
        if aside := make_room(output, overwrite=overwrite):
            print(f"what was in {output} is now {aside}")
    print(f"{summary_line(published)} → {output}")
    if published.has_swapped_pixel_mean:
        print(
            "warning: the pixel mean in this file is (0.229, 0.224, 0.225), which is the standard deviation of "
            "ImageNet's pixels and not their mean (0.485, 0.456, 0.406): a known mistake in training code. It is kept, "
            "because the weights were most likely trained with it; see image_mean in config.yaml.",
            file=sys.stderr,
        )


def summary_line(published: Published) -> str:
    """Summarise in one line the origin of a checkpoint."""
    model = published.model
    curv = model.curv.detach().flatten().tolist()
    match len(curv):
        case _ if published.kind == "clip":
            space = "no curvature (cosine)"
        case 1:
            space = f"curvature {curv[0]:.4g}"
        case factors:
            space = f"{factors} curvatures from {min(curv):.4g} to {max(curv):.4g}"
    mean = ", ".join(f"{value:.3f}" for value in model.config.image_mean)
    steps = "steps unknown" if published.step is None else f"{published.step} steps"
    return f"{published.kind}, ViT-{published.size.upper()}, {space}, pixel mean ({mean}), {steps}"


if __name__ == "__main__":
    sys.exit(main())
