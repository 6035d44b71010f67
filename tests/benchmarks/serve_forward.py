"""The model by itself, in a process of its own: what a server of it is measured against.

Started with a checkpoint as its argument, it answers each line of standard input, {"texts": [...]} or
{"pictures": [paths]}, with one line: what was computed a second, by kind and batch size.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self

import torch
from PIL import Image

import hypclip

BATCHES = (16, 32, 64)
SECONDS = 2.0  # at least, for each batch size


class Forward:
    """The process, from the outside."""

    def __init__(self, checkpoint: Path):
        command = [sys.executable, __file__, str(checkpoint)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def rates(self, **inputs: list[str]) -> dict[str, dict[str, float]]:
        """Return items a second by kind and batch size."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(inputs) + "\n")
        self._process.stdin.flush()
        found: dict[str, dict[str, float]] = json.loads(self._process.stdout.readline())
        return found


def rates(count: int, call: Callable[[int], object]) -> dict[int, float]:
    """Return items a second by batch size, of a call that takes all `count` items in batches of that size."""
    found = {}
    for batch in BATCHES:
        call(batch)
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            call(batch)
            done += count
        found[batch] = done / (time.perf_counter() - start)
    return found


def main(checkpoint: str) -> None:
    """Answer line by line."""
    torch.set_num_threads(2)
    model = hypclip.load(checkpoint)

    def from_files(files: list[bytes], batch: int) -> None:
        model.embed_image([Image.open(io.BytesIO(file)) for file in files], batch)

    @torch.no_grad()
    def from_tensors(pixels: torch.Tensor, batch: int) -> None:
        for part in torch.split(pixels, batch):
            model.encode_image(part)

    for line in sys.stdin:
        inputs = json.loads(line)
        found = {}
        if texts := inputs.get("texts"):
            texts.sort(key=lambda text: len(model.tokenizer([text])[0]))
            found["text"] = rates(len(texts), partial(model.embed_text, texts))
        else:
            files = [Path(path).read_bytes() for path in inputs["pictures"]]
            pixels = torch.stack([model.transform(Image.open(io.BytesIO(file))) for file in files])
            found["image"] = rates(len(files), partial(from_files, files))
            found["tensor"] = rates(len(files), partial(from_tensors, pixels))
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
