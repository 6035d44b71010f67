"""Embed pictures and texts into a collection of an index, ready to serve.

python train/embed.py --checkpoint runs/quickstart/checkpoint --index runs/quickstart/index \
    --shards runs/quickstart/data/validation --images ROOT --classes classes.json

Each sample of a shard becomes two points, KEY/image and KEY/text; each file ROOT/<class key>/<name>.png one point; each
name of classes.json one text point.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import hypclip
from hypclip.data.shards import find_shards
from hypclip.errors import ConfigError, HypclipError
from hypclip.evaluation.retrieval import read_pairs
from hypclip.evaluation.zero_shot import embed_files, read_labelled_images
from hypclip.model import HypCLIP
from hypclip.search.local import LocalStore
from hypclip.search.store import Modality, Points, Space


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="a model directory")
    parser.add_argument("--index", type=Path, required=True, help="folder of the index, created when missing")
    parser.add_argument("--collection", default="default", help="name of the collection (%(default)s)")
    parser.add_argument("--shards", nargs="+", help="shards whose pictures and captions to embed")
    parser.add_argument("--samples", type=int, default=100_000, help="how many samples of the shards (%(default)s)")
    parser.add_argument("--images", type=Path, help="folder with one folder of pictures a class; needs --classes")
    parser.add_argument("--classes", type=Path, help="JSON, class key to its name or names")
    arguments = parser.parse_args(argv)
    try:
        if not arguments.shards and not arguments.images:
            raise ConfigError("nothing to embed: give --shards, --images with --classes, or both")
        if (arguments.images is None) != (arguments.classes is None):
            raise ConfigError("--images and --classes belong together")
        model = hypclip.load(arguments.checkpoint)
        points = []
        if arguments.shards:
            points += _shards(model, arguments.shards, arguments.samples)
        if arguments.images:
            points += _folders(model, arguments.images, arguments.classes)
        with LocalStore(arguments.index, create=True) as store:
            store.create_collection(arguments.collection, Space(model.model_id, model.curv.item(), model.dim))
            for block in points:
                store.upsert(arguments.collection, block)
            count = store.describe(arguments.collection).count
        print(f"{count} points in collection {arguments.collection!r} of {arguments.index}")
    except (HypclipError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _shards(model: HypCLIP, shards: Sequence[str], samples: int) -> list[Points]:
    records = read_pairs(find_shards(shards), samples)
    keys = [record.key for record in records]
    metadata = [{"caption": record.caption} for record in records]
    images = model.embed_image([record.image for record in records])
    texts = model.embed_text([record.caption for record in records])
    pictures: list[Modality] = ["image"] * len(keys)
    captions: list[Modality] = ["text"] * len(keys)
    return [
        Points([f"{key}/image" for key in keys], images, pictures, metadata),
        Points([f"{key}/text" for key in keys], texts, captions, metadata),
    ]


def _folders(model: HypCLIP, root: Path, classes: Path) -> list[Points]:
    data = read_labelled_images(root, classes)
    ids = [f"{file.parent.name}/{file.name}" for file in data.files]
    pictures: list[Modality] = ["image"] * len(ids)
    named = [(key, name) for key, names in zip(data.keys, data.names, strict=True) for name in names]
    texts: list[Modality] = ["text"] * len(named)
    return [
        Points(ids, embed_files(model, data.files), pictures, [{"class": data.names[i][0]} for i in data.labels]),
        Points(
            [f"{key}/{name}" for key, name in named],
            model.embed_text([name for _, name in named]),
            texts,
            [{"class": name} for _, name in named],
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
