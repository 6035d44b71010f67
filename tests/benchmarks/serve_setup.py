"""What every part of the benchmark of the server needs: a model, inputs nobody has asked for yet, and a server."""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path

import load
import torch
from PIL import Image
from serve_inputs import captions, image_requests, pictures, text_requests
from serve_plan import Plan, Report
from servers import ROOT, Server, hypclip_server, running

import hypclip
from hypclip.checkpoint import atomic_directory, save
from hypclip.model import HypCLIP, ModelConfig

CLIENTS = 64
WARM_UP_S = 2.0
MOST = {"demo": 8000, "vit": 1000}  # requests a second that there are captions for
DEMO = ROOT / "runs/quickstart/checkpoint"


class Bench:
    """One model and what it takes to measure its server.

    Args:
        name: "demo" or "vit".
        folder: scratch space.
        options: the command line.
    """

    def __init__(self, name: str, folder: Path, options: argparse.Namespace):
        self.name, self.folder, self.options = name, folder, options
        self.checkpoint = DEMO if name == "demo" else _random_vit(folder)
        self.model = hypclip.load(self.checkpoint)
        self.dim = self.model.dim
        self._captions = captions(seed=1)

    @cached_property
    def files(self) -> list[bytes]:
        """Pictures; each time one is sent it has another comment."""
        return pictures(128, seed=1)

    def texts(self, count: int) -> list[str]:
        """Return new captions."""
        return list(islice(self._captions, count))

    @property
    def environment(self) -> dict[str, str]:
        """The deadline that answers are measured against, and no wait for a load balancer at the end."""
        return {"HYPCLIP_REQUEST_TIMEOUT_S": str(self.options.deadline), "HYPCLIP_DRAIN_S": "0"}

    @contextlib.contextmanager
    def server(self) -> Iterator[Server]:
        """Lend our server, with an empty index."""
        with tempfile.TemporaryDirectory(dir=self.folder) as index:
            command = hypclip_server(self.checkpoint, Path(index))
            with running(command, self.folder, environment=self.environment) as server:
                yield server

    def closed(
        self, port: int, what: str = "text", path: str = "/embed", clients: int = CLIENTS, same_model: bool = True
    ) -> Report:
        """Have clients ask for one embedding after the other, and check the answers.

        Args:
            port: of the server.
            what: "text" or "image".
            path: of the route; its schema follows from it.
            clients: how many.
            same_model: whether the answers should be those of our model.
        """
        seconds = self.options.seconds
        texts = self.texts(int(MOST[self.name] * (seconds + WARM_UP_S))) if what == "text" else []
        requests = text_requests(texts, path) if texts else image_requests(self.files, path)
        report = load.run(Plan(port, requests, 1, self.dim, seconds, WARM_UP_S, clients))
        report.check()
        assert not texts or report.statuses.total() <= len(texts), "the captions ran out: raise MOST"
        if same_model:
            self.compare(report, texts or self.files)
        return report

    def compare(self, report: Report, inputs: Sequence[str] | Sequence[bytes], width: int = 1) -> None:
        """Raise unless some answers are what the model itself says of the inputs, `width` of them a request."""
        for index, embeddings in report.samples:
            part = inputs[index * width : (index + 1) * width]
            texts = [item for item in part if isinstance(item, str)]
            images = [Image.open(io.BytesIO(item)) for item in part if isinstance(item, bytes)]
            own = self.model.embed_text(texts) if texts else self.model.embed_image(images)
            torch.testing.assert_close(torch.tensor(embeddings), own, rtol=1e-4, atol=1e-4)

    def show(self, part: str, what: str, figure: str, goal: str = "") -> None:
        """Print a line of the table."""
        print(f"{part:<9} {self.name:<5} {what:<104} {figure:>9}  {goal}", flush=True)


def _random_vit(folder: Path) -> Path:
    path = folder / "vit"
    if not path.exists():
        torch.manual_seed(0)
        with atomic_directory(path) as scratch:
            save(HypCLIP(ModelConfig("ViT-B-32")), scratch)
    return path
