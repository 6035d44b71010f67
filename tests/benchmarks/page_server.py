"""The server without its model, for the benchmark of the page: text `thing 17` lies before the 17th stored point.

python page_server.py FOLDER PORT     FOLDER as `fill` leaves it
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
import uvloop
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hypclip.search import LocalStore, Points, Space
from hypclip.search.thumbnails import FILE, Thumbnail, ThumbnailFile, make_thumbnail
from serve.app import create_app
from serve.http.server import Server
from serve.inference.engine import TextPoints
from serve.settings import Settings
from tests.support.layouts import collection
from tests.support.serving import FakeEngine

CURV = 0.5
NEARER = 0.9
"""Of the space components of a point, where its text lies."""
TEXTS = 8
"""One point of so many is a text."""
PICTURES = 64
MOST_THUMBNAILS = 10_000
_BLOCK = 10_000


class Rows(FakeEngine):
    """An engine that finds the texts in the stored points."""

    curv = CURV

    def __init__(self, vectors: NDArray[np.float32]):
        super().__init__()
        self._vectors, self.dim = vectors, vectors.shape[1]

    async def embed_text(self, texts: Sequence[str]) -> TextPoints:
        """Return a point on the way from the root to that of the number at the end of each text."""
        rows = [int(text.rsplit(" ", 1)[-1]) for text in texts]
        return TextPoints(torch.from_numpy(NEARER * self._vectors[rows]), 2 * len(texts))


def fill(folder: Path, count: int, dim: int) -> None:
    """Write an index of a hierarchy with captions and fields; thumbnails of the first thousands of its images."""
    vectors, families = collection(count, dim, curv=CURV)
    np.save(folder / "vectors.npy", vectors)
    pictures = [_picture(i) for i in range(PICTURES)]
    with LocalStore(folder / "index", create=True) as store:
        store.create_collection("default", Space(FakeEngine().model_id, CURV, dim))
        for start in range(0, count, _BLOCK):
            rows = range(start, min(count, start + _BLOCK))
            about = [{"caption": f"thing {i}", "family": f"family {families[i]}", "year": 1950 + i % 70} for i in rows]
            kinds = ["image" if i % TEXTS else "text" for i in rows]
            store.upsert("default", Points([str(i) for i in rows], vectors[start : start + _BLOCK], kinds, about))
    thumbnails = ThumbnailFile(folder / "index" / FILE)
    shown = range(min(count, MOST_THUMBNAILS))
    thumbnails.put("default", {str(i): pictures[i % PICTURES] for i in shown if i % TEXTS})
    thumbnails.close()


def _picture(number: int) -> Thumbnail:
    """Return one with edges and grain, so that it has the bytes of a photo."""
    draw = np.random.default_rng(number)
    grain = draw.normal(128, 12, (120, 160, 3)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(grain)
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, side = draw.integers(0, 120, 3).tolist()
        pen.ellipse((x, y, x + side, y + side), fill=tuple(draw.integers(0, 255, 3).tolist()))
    return make_thumbnail(image)


def main() -> int:
    """Serve until a signal comes."""
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    engine = Rows(np.load(folder / "vectors.npy", mmap_mode="r"))
    # A busy machine is to show long times, not refusals.
    settings = Settings(index=folder / "index", port=port, access_log=False, drain_s=0, request_timeout_s=300)
    uvloop.run(Server(create_app(settings, engine), settings).serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
