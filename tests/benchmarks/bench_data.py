"""Time the training transform, JPEGs, tokens (beside torchvision, Pillow, open_clip) and one worker, shard to batch.

python tests/benchmarks/bench_data.py
"""

from __future__ import annotations

import functools
import io
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from torchvision.transforms import v2

from hypclip.client.rgb import to_rgb
from hypclip.data.augment import AugmentConfig, TrainingTransform
from hypclip.data.batch import ExampleMaker, collate
from hypclip.data.image import Normaliser, decode, to_pixels
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
    ours, normalise = TrainingTransform(SIZE, AUGMENT), Normaliser(MEAN, STD)
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
    mine, peer = median_us(lambda: normalise(ours(to_pixels(image), rng))), median_us(lambda: theirs(image))
    print(f"training transform, 96 → {SIZE} px: {mine:.0f} µs; torchvision v2: {peer:.0f} µs; ratio {mine / peer:.2f}")
    jpeg = io.BytesIO()
    compose(0, "train", 0, side=256).image.save(jpeg, "JPEG", quality=90)
    data = jpeg.getvalue()
    mine = median_us(lambda: decode(data))
    peer = median_us(lambda: to_pixels(to_rgb(Image.open(io.BytesIO(data)))))
    print(f"JPEG of 256 × 256 px to pixels: {mine:.0f} µs; Pillow: {peer:.0f} µs; ratio {mine / peer:.2f}")
    captions = [compose(0, "train", index).caption for index in range(512)]
    own, open_clips = Tokenizer({}), SimpleTokenizer()
    mine, peer = (median_us(lambda call=call: call(captions), calls=2) for call in (own, open_clips))
    print(f"a caption to tokens: {mine / 512:.1f} µs; open_clip: {peer / 512:.1f} µs; ratio {mine / peer:.2f}")
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), "train", 2_000)
        roles = frozenset(("image", "text", "box_image", "box_text"))
        stream = BatchStream(
            StreamConfig(find_shards(str(Path(folder) / "train")), batch_size=128, workers=0),
            ExampleMaker(roles, SIZE, AUGMENT, 0.2),  # type: ignore[arg-type]
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
