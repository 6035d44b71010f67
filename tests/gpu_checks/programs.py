"""Whole programs: runs of train/pretrain.py, one of which is killed, and the engine of the server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from tests.gpu_checks.kit import Place, Report
from tests.gpu_checks.project import (
    ROOT,
    TOWERS,
    HypCLIP,
    Metrics,
    ModelConfig,
    ModelEngine,
    Settings,
    atomic_directory,
    load,
    logged_steps,
    make_batch,
    pretrain,
    quadrants,
    read_log,
    run_config,
    save,
    started,
    state_bits,
    wait_for,
    write_config,
    write_shards,
)
from tests.gpu_checks.steps import VIT_B_16

SERVED = {"float32": 1e-3, "bfloat16": 0.1}
"""Points from the server beside those of the model on the CPU in float32, relative; see gpu_checks.arithmetic."""


def resume(place: Place, report: Report) -> None:
    """Kill -9 a run with train.deterministic=true, go on, and compare with one that nothing disturbed."""
    shards, steps = write_shards(place.folder / "shards"), place.of(40, 20)
    precision = "bf16" if place.is_gpu else "fp32"
    commands = {}
    for name in ("whole", "killed"):
        config = run_config(
            place.folder / name, shards, train__deterministic=True, train__steps=steps, train__precision=precision,
            train__checkpoint_every=3, train__trackers=[], data__workers=place.of(2, 0),
        )  # fmt: skip
        file = write_config(place.folder / f"{name}.yaml", config)
        commands[name] = [sys.executable, str(ROOT / "train/pretrain.py"), "--config", str(file), "--resume"]
    killed = place.folder / "killed"
    with started(commands["whole"]) as undisturbed, started(commands["killed"]) as victim:
        wait_for(lambda: _has_checkpoint(killed) or victim.poll() is not None, "a checkpoint to go on from")
        at = logged_steps(killed)
        if victim.poll() is None:
            os.killpg(victim.pid, signal.SIGKILL)
        else:
            _end(victim)
        _end(undisturbed)
    early = not (killed / "checkpoint").exists()
    with started(commands["killed"]) as going_on:
        said = _end(going_on)
    others = []
    for folder in ("checkpoint", f"checkpoints/step-{steps:08d}"):
        want, got = (state_bits(place.folder / name / folder) for name in commands)
        others += [f"{folder}/{file}" for file in want if want[file] != got.get(file)]
    passed = early and "resuming from" in said and not others
    figure = ", ".join(f"{name} differs" for name in others) or "equal"
    figure += f"; killed at step {at} of {steps}" if early else "; but it had ended before it was killed"
    report.judged("deterministic, killed and resumed, against undisturbed", figure, "equal to the bit", passed, step=at)


def data_wait(place: Place, report: Report) -> None:
    """How long a run waits for data, and whether batches travel to the device while the processor goes on."""
    shards = write_shards(place.folder / "shards", *place.of((8, 200), (2, 10)))
    size, steps, every = place.of((64, 40, 10), (4, 6, 2))
    workers = place.of(min(8, max(1, (os.cpu_count() or 2) - 1)), 0)
    changes = {
        "model": {"towers": place.of(VIT_B_16, TOWERS)},
        "data__workers": workers,
        "train__steps": steps,
        "train__batch_size": size,
        "train__log_every": every,
        "train__precision": "bf16",
        "train__checkpoint_every": 1_000,
        "train__threads": 0,
        "train__trackers": [],
    }
    output = place.folder / "run"
    config = write_config(place.folder / "config.yaml", run_config(output, shards, **changes))
    if pretrain(config):
        raise RuntimeError("train/pretrain.py failed: see above")
    lines = read_log(output)[1:]  # the first laps begin with workers that start and kernels that are chosen
    elapsed = sum(every * size / line["samples_per_s"] for line in lines)
    share = sum(line["data_wait_s"] for line in lines) / elapsed
    rate = len(lines) * every * size / elapsed
    report.measured(f"train/pretrain.py, batch {size}, {workers} data workers: share of waiting", f"{share:.1%} at "
                    f"{rate:.0f} samples/s", share=share, samples_per_s=rate)  # fmt: skip
    batch = make_batch(samples=place.of(512, 4), size=place.of(224, 32))
    batch = batch.pin_memory() if place.is_gpu else batch
    batch.to(place.device)
    place.synchronise()
    start = time.perf_counter()
    batch.to(place.device)
    handed_over = time.perf_counter() - start
    place.synchronise()
    done = time.perf_counter() - start
    figure = f"handed over in {1e3 * handed_over:.2f} ms, there in {1e3 * done:.2f} ms"
    if place.is_gpu:
        report.judged("a pinned batch to the device", figure, "handed over in half the time",
                      handed_over < done / 2, handed_over_s=handed_over, done_s=done)  # fmt: skip
    else:
        report.measured("a batch to the device", figure, handed_over_s=handed_over, done_s=done)


def serve(place: Place, report: Report) -> None:
    """Texts and pictures a second of the server's engine, with its own process, by how many come at a time."""
    folder = place.folder / "checkpoint"
    torch.manual_seed(0)
    with atomic_directory(folder) as scratch:
        save(HypCLIP(ModelConfig(place.of(VIT_B_16, TOWERS))), scratch)
    for precision in place.of(("float32", "bfloat16"), ("float32",)):
        asyncio.run(_serve(place, report, folder, precision))


async def _serve(place: Place, report: Report, folder: Path, precision: str) -> None:
    settings = Settings(
        checkpoint=folder, device=place.device.type, backend="torch", precision=precision, workers=1, text_cache=0,
        max_batch_tokens=4096, max_batch_image=64, batch_wait_ms=0,
    )  # fmt: skip
    texts = [f"a photo of {n} dogs and {n * n} cats on a sofa" for n in range(256)]
    images = [quadrants(corners=((n, 0, 99), (0, n, 0), (9, 9, n), (n, n, n))) for n in range(64)]
    deaths: list[Exception] = []
    engine = await ModelEngine.start(settings, Metrics(), deaths.append)
    try:
        pictures = [engine.prepare(image) for image in images]
        model = load(folder)
        want = model.embed_text(texts[:16]), model.embed_image(images[:16])
        got = (await engine.embed_text(texts[:16])).points, await engine.embed_image(pictures[:16])
        off = max(float((a - b).norm() / b.norm()) for a, b in zip(got, want, strict=True))
        bar = SERVED[precision]
        report.judged(
            f"{precision}: points beside the CPU's, relative", f"{off:.1e}", f"{bar:g}", off <= bar, error=off
        )
        for kind, embed, items in (("texts", engine.embed_text, texts), ("pictures", engine.embed_image, pictures)):
            rates = {}
            for size in (size for size in (1, 16, 64, 256) if size <= len(items)):
                await embed(items[:size])
                done, start = 0, time.perf_counter()
                while time.perf_counter() - start < place.of(1.0, 0.05):
                    await embed(items[:size])
                    done += size
                rates[size] = done / (time.perf_counter() - start)
            figure = ", ".join(f"{rate:.0f} of {size}" for size, rate in rates.items())
            report.measured(f"{precision}: {kind}/s by size of the batch", figure,
                            **{f"per_s_{size}": rate for size, rate in rates.items()})  # fmt: skip
    finally:
        await engine.aclose()
    if deaths:
        raise deaths[0]


def _has_checkpoint(output: Path) -> bool:
    return any(output.glob("checkpoints/step-*"))


def _end(process: subprocess.Popen[str]) -> str:
    """Wait for a run to finish; return what it said."""
    said, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"train/pretrain.py ended with exit code {process.returncode}: {errors[-1_000:]}")
    return said
