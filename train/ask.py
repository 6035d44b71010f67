"""Ask an index what something is an instance of, what is below it, and what lies on its way to the root.

python train/ask.py --checkpoint runs/quickstart/checkpoint --index runs/quickstart/index \
    --image apple.png --below "an animal" --way "a red apple"

Answers are texts of the collection, by the model's own rule of entailment: the image's ancestors from the nearest to
the most general, the descendants that lie deepest, and the texts that entail the places on the way, in its order.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

import hypclip
from hypclip.console import escape_unprintable
from hypclip.errors import HypclipError, InputError
from hypclip.files import user_path
from hypclip.indexing.units import space_of
from hypclip.model import HypCLIP
from hypclip.search import Hit, LocalStore, Route, Where, traverse


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    escape_unprintable()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=user_path, required=True, help="a model directory")
    parser.add_argument("--index", type=user_path, required=True, help="folder of an index, as train/embed.py makes it")
    parser.add_argument("--collection", default="default", help="name of the collection (%(default)s)")
    parser.add_argument("--image", type=user_path, action="append", default=[], help="what is it an instance of?")
    parser.add_argument("--above", metavar="TEXT", action="append", default=[], help="what is it an instance of?")
    parser.add_argument("--below", metavar="TEXT", action="append", default=[], help="what are its instances?")
    parser.add_argument("--way", metavar="TEXT", action="append", default=[], help="what is on its way to the root?")
    parser.add_argument("-k", type=int, default=8, help="how many answers (%(default)s)")
    arguments = parser.parse_args(argv)
    try:
        if not (arguments.image or arguments.above or arguments.below or arguments.way):
            raise InputError("nothing is asked: give --image, --above, --below or --way")
        model = hypclip.load(arguments.checkpoint)
        with LocalStore(arguments.index) as store:
            store.describe(arguments.collection).check_space(space_of(model))
            asked = _Asked(model, store, arguments.collection, arguments.k)
            for image in arguments.image:
                asked.above(f"the image {image}", model.embed_image([image])[0])
            for text in arguments.above:
                asked.above(repr(text), model.embed_text([text])[0])
            for text in arguments.below:
                asked.below(text)
            for text in arguments.way:
                asked.way(text)
    except (HypclipError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


class _Asked:
    """A model, a collection, and how many answers are wanted of it."""

    def __init__(self, model: HypCLIP, store: LocalStore, collection: str, k: int):
        self.model, self.store, self.collection, self.k = model, store, collection, k

    def above(self, what: str, point: Tensor) -> None:
        """Print the concepts that a point is an instance of, the most specific first."""
        found = self.store.cone(
            self.collection, point, "ancestors", where=Where(modality="text"), order_by="distance", k=self.k
        )
        _heading(f"{what} is", found.total)
        for hit in sorted(found.hits, key=lambda hit: -hit.radius):
            _line(hit)

    def below(self, text: str) -> None:
        """Print the instances of a text that lie deepest in its region."""
        point = self.model.embed_text([text])[0]
        for modality in ("text", "image"):
            found = self.store.cone(self.collection, point, "descendants", where=Where(modality=modality), k=self.k)
            _heading(f"{text!r} entails, of {modality}s", found.total)
            for hit in found.hits:
                _line(hit)

    def way(self, text: str) -> None:
        """Print the texts from a text to the origin."""
        point = self.model.embed_text([text])[0]
        rule = self.store.space(self.collection).entailment
        route = Route(point, self.model.curv.item())
        found = traverse(self.store, self.collection, route, rule, Where(modality="text"))
        _heading(f"from {text!r} to the root lie", len(found.stops))
        for stop in found.stops:
            print(f"  {stop.radius:6.3f}  {_name(stop.id, stop.metadata)}")


def _heading(what: str, total: int | None) -> None:
    print(f"\n{what}, {total} in all:" if total else f"\n{what}, nothing")


def _line(hit: Hit) -> None:
    print(f"  {hit.radius:6.3f}  {_name(hit.id, hit.metadata)}")


def _name(point_id: str, metadata: Mapping[str, Any]) -> str:
    """Return the text of a point, or the id of an image; beside it its class, where it has one."""
    name = next((metadata[field] for field in ("phrase", "caption") if field in metadata), point_id)
    about = str(metadata.get("class", ""))
    return str(name) if str(name).endswith(about) else f"{name}  ({about})"


if __name__ == "__main__":
    sys.exit(main())
