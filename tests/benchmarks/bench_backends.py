"""How fast the server's backends run a model beside torch in float32, and how far their embeddings are from its.

python tests/benchmarks/bench_backends.py [--checkpoint DIR] [--towers NAME] [--threads 2] [--items 500] [--processes]

One table a model: the demo's checkpoint and a model of `--towers` with random weights, whose embeddings spread little.
Speeds are medians over rounds, in each of which all backends take their turn; × is the median of the ratios within a
round. Errors are geodesic distances to what torch gives in float32, in units of the median distance between two items.
`--processes` compares one process of `--threads` threads with as many processes of one thread each, both busy.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose
from torchvision.transforms.functional import pil_to_tensor

from hypclip import HypCLIP, ModelConfig, load
from serve.inference.backends import Backend, BackendKind, Precision, load_backend

ROUNDS, TEXTS, IMAGES = 7, 32, 16
WORDS = (
    "a",
    "the",
    "photo",
    "of",
    "dog",
    "red",
    "cat",
    "bus",
    "behind",
    "under",
    "green",
    "old",
    "with",
    "kite",
    "tree",
)
SHARDS = Path("runs/quickstart/data/validation")
BACKENDS: list[tuple[BackendKind, Precision]] = [
    ("torch", "float32"),
    ("torch", "bfloat16"),
    ("compile", "float32"),
    ("compile", "bfloat16"),
    ("onnx", "float32"),
    ("onnx", "int8"),
]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/quickstart/checkpoint"))
    parser.add_argument("--towers", default="ViT-B-32", help="an open_clip model config")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--items", type=int, default=500, help="how many of each modality to compare")
    parser.add_argument("--skip", nargs="*", default=[], help="kinds to leave out, such as compile")
    parser.add_argument("--processes", action="store_true")
    parser.add_argument("--busy", nargs=3, metavar=("MODEL", "KIND", "PRECISION"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.busy:
        be_busy(*args.busy)
        return
    print(f"{args.threads} threads; × is the speed over torch float32")
    for name in [str(args.checkpoint)] * args.checkpoint.is_dir() + [args.towers] * bool(args.towers):
        if args.processes:
            compare_processes(name, args.threads)
        else:
            compare_backends(name, args.items, [pair for pair in BACKENDS if pair[0] not in args.skip])


def model_of(name: str) -> HypCLIP:
    torch.manual_seed(0)
    return load(name) if Path(name).is_dir() else HypCLIP(ModelConfig(name)).eval()


def compare_backends(name: str, count: int, pairs: list[tuple[BackendKind, Precision]]) -> None:
    model = model_of(name)
    texts, pictures = batches_of(model, count)
    backends, starts = {}, {}
    for kind, precision in pairs:
        started = time.perf_counter()
        backends[f"{kind} {precision}"] = load_backend(model, kind, precision)
        starts[f"{kind} {precision}"] = time.perf_counter() - started
    some_texts, some_pictures = texts[:: max(1, len(texts) // 4)], pictures[:1]
    jobs: dict[str, tuple[int, Callable[[Backend], object]]] = {
        "texts/s": (sum(map(len, some_texts)), lambda b: [b.text(x) for x in some_texts]),
        "images/s": (sum(map(len, some_pictures)), lambda b: [b.image(x) for x in some_pictures]),
        "ms a text": (0, lambda b: b.text(texts[len(texts) // 2][:1])),
        "ms an image": (0, lambda b: b.image(pictures[0][:1])),
    }
    speeds = {job: in_turns(backends, run, 1 if items else 10) for job, (items, run) in jobs.items()}
    errors = {name: (text, image) for name, text, image in deviations(model, backends, texts, pictures)}

    print(f"\n{name}: {model.dim} dimensions, {count} captions, {count} pictures")
    print(
        f"{'':18}{'start s':>8}" + "".join(f"{job:>16}" for job in jobs) + f"{'error of texts':>42}{'of pictures':>42}"
    )
    for name in backends:
        cells = ""
        for job, (items, _) in jobs.items():
            seconds, ratio = speeds[job][name]
            cells += f"{items / seconds if items else seconds * 1e3:9.1f} ×{ratio:5.2f}"
        print(f"{name:18}{starts[name]:8.1f}{cells}    texts    {errors[name][0]}")
        print(" " * (26 + 16 * len(jobs)) + f"    pictures {errors[name][1]}")


def in_turns(
    backends: dict[str, Backend], run: Callable[[Backend], object], calls: int
) -> dict[str, tuple[float, float]]:
    """Return the seconds of each backend and its speed over that of the first."""
    times: dict[str, list[float]] = {name: [] for name in backends}
    for _ in range(ROUNDS):
        for name, backend in backends.items():
            run(backend)  # the threads of the backend before are still awake, and the caches full of its weights
            started = time.perf_counter()
            for _ in range(calls):
                run(backend)
            times[name].append((time.perf_counter() - started) / calls)
    first = times[next(iter(times))]
    return {name: (median(t), median(a / b for a, b in zip(first, t, strict=True))) for name, t in times.items()}


def deviations(
    model: HypCLIP, backends: dict[str, Backend], texts: list[Tensor], pictures: list[Tensor]
) -> Iterator[tuple[str, str, str]]:
    """Yield, for each backend, how its texts and its pictures differ from those of the first."""
    curv = model.curv.detach()
    exact: list[Tensor] = []
    for name, backend in backends.items():
        both = [torch.cat([backend.text(x) for x in texts]), torch.cat([backend.image(x) for x in pictures])]
        exact = exact or both
        cells = []
        for x, y in zip(both, exact, strict=True):
            apart = -model.similarity(y, y)
            typical = apart[~torch.eye(len(y), dtype=torch.bool)].median()
            error = (-model.similarity(x, y)).diagonal() / typical
            radius, other = model.metric.radius(x, curv), model.metric.radius(y, curv)
            same = (nearest(model, x) == nearest(model, y)).float().mean()
            cells.append(
                f"{error.median():.4f}, worst {error.max():.4f}; radius {((radius - other) / other).abs().max():.4f}; "
                f"nearest {same:.3f}"
            )
        yield name, cells[0], cells[1]


def nearest(model: HypCLIP, x: Tensor) -> Tensor:
    return model.similarity(x, x).fill_diagonal_(-torch.inf).argmax(1)


def batches_of(model: HypCLIP, count: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return token ids of captions, sorted by length, and pixels, in the batches of a server."""
    captions, images = items(count)
    captions.sort(key=lambda caption: len(model.tokenizer([caption])[0]))
    cut = Compose(model.transform.transforms[:-2])  # all but the conversion and the normalisation
    pixels = torch.stack([pil_to_tensor(cut(image)) for image in images])
    texts = [model.tokenizer(captions[i : i + TEXTS]) for i in range(0, len(captions), TEXTS)]
    return texts, list(pixels.split(IMAGES))


def items(count: int) -> tuple[list[str], list[Image.Image]]:
    """Return captions and pictures of the quickstart's validation shards, or made up where there are none."""
    captions, images = [], []
    for shard in sorted(SHARDS.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is None or len(captions) + len(images) >= 2 * count:
                    continue
                if member.name.endswith(".json"):
                    captions.append(json.load(file)["caption"])
                else:
                    images.append(Image.open(io.BytesIO(file.read())).convert("RGB"))
    if not captions:
        captions = [" ".join(random.choices(WORDS, k=random.randint(2, 16))) for _ in range(count)]
        images = [Image.effect_noise((64, 64), random.uniform(20, 200)).convert("RGB") for _ in range(count)]
    return captions, images


def compare_processes(name: str, threads: int) -> None:
    print(f"\n{name}: texts/s and images/s of {threads} cores, all busy")
    forms = {f"1 × {threads} threads": (1, threads, {}), f"{threads} × 1 thread": (threads, 1, {})}
    forms[f"1 × {threads}, OMP passive"] = (1, threads, {"OMP_WAIT_POLICY": "PASSIVE"})
    forms[f"{threads} × {threads} threads"] = (threads, threads, {})
    forms[f"{threads} × {threads}, OMP passive"] = (threads, threads, {"OMP_WAIT_POLICY": "PASSIVE"})
    for kind, precision in (("torch", "float32"), ("torch", "bfloat16"), ("onnx", "float32")):
        for form, (processes, each, variables) in forms.items():
            rates = [busy(name, kind, precision, processes, each, variables) for _ in range(3)]
            text, image = (median(values) for values in zip(*rates, strict=True))
            print(f"{kind + ' ' + precision:18}{form:24}{text:10.1f}{image:10.1f}", flush=True)


def busy(
    name: str, kind: str, precision: str, processes: int, threads: int, variables: dict[str, str]
) -> tuple[float, float]:
    """Return the texts and the images a second of all processes together."""
    command = [sys.executable, __file__, "--threads", str(threads), "--busy", name, kind, precision]
    running = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}
        )
        for _ in range(processes)
    ]
    totals = []
    for _ in range(2):
        for process in running:
            assert process.stdout
            process.stdout.readline()
        for process in running:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        totals.append(sum(float(process.stdout.readline()) for process in running if process.stdout))
    for process in running:
        process.communicate()
    return totals[0], totals[1]


def be_busy(name: str, kind: BackendKind, precision: Precision) -> None:
    """Say ready, wait for a line, work for some seconds and print items a second; texts first, then pictures."""
    model = model_of(name)
    texts, pictures = batches_of(model, 64)
    backend = load_backend(model, kind, precision)
    jobs: tuple[tuple[Callable[[Tensor], Tensor], Tensor], ...] = (
        (backend.text, texts[len(texts) // 2]),
        (backend.image, pictures[0]),
    )
    for run, rows in jobs:
        for _ in range(3):
            run(rows)
        print("ready", flush=True)
        sys.stdin.readline()
        done, started = 0, time.perf_counter()
        while (seconds := time.perf_counter() - started) < 3:
            run(rows)
            done += len(rows)
        print(done / seconds, flush=True)


if __name__ == "__main__":
    main()
