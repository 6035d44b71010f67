"""Time the training transform against torchvision's, and one loader worker from shard to batch.

python tests/benchmarks/bench_data.py
"""

from __future__ import annotations

import functools
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torchvision.transforms import v2

from hypclip.data.augment import AugmentConfig, TrainingTransform
from hypclip.data.batch import ExampleMaker, collate
from hypclip.data.quickstart.scenes import compose
from hypclip.data.quickstart.shards import write_shards
from hypclip.data.shards import find_shards
from hypclip.data.stream import BatchStream, StreamConfig
from hypclip.towers.text import Tokenizer

SIZE, MEAN, STD = 64, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
AUGMENT = AugmentConfig(crop_scale=(0.5, 1.0), colour_jitter=0.4, grey=0.1)


def median_us(call: Callable[[], object], rounds: int = 7, calls: int = 300) -> float:
    """Return the median over rounds of the time of one call, in microseconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - start) / calls * 1e6)
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    image = compose(0, "train", 0).image
    ours = TrainingTransform(SIZE, AUGMENT, MEAN, STD)
    theirs = v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, scale=(0.5, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
            v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
            v2.RandomGrayscale(0.1),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    rng = random.Random(0)
    mine, peer = median_us(lambda: ours(image, rng)), median_us(lambda: theirs(image))
    print(f"training transform, 96 → {SIZE} px: {mine:.0f} µs; torchvision v2: {peer:.0f} µs; ratio {mine / peer:.2f}")
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), "train", 2_000)
        roles = frozenset(("image", "text", "box_image", "box_text"))
        stream = BatchStream(
            StreamConfig(find_shards(str(Path(folder) / "train")), batch_size=128, workers=0),
            ExampleMaker(roles, SIZE, AUGMENT, MEAN, STD, 0.2),  # type: ignore[arg-type]
            functools.partial(collate, tokenizer=Tokenizer({})),
        )
        batches = iter(stream)
        next(batches)
        start = time.perf_counter()
        for _ in range(20):
            next(batches)
        print(f"shard to batch, one worker: {20 * 128 / (time.perf_counter() - start):.0f} samples a second")


if __name__ == "__main__":
    main()
