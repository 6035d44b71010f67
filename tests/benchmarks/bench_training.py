"""How fast training is beside a plain implementation and beside its own towers, and what checkpoints and kills cost.

python tests/benchmarks/bench_training.py [plain] [overhead] [texts] [processes] [checkpoint] [resume] [--steps 6]

Data are scenes of the quickstart, drawn at 256 pixels. What is compared is done in turns in one process, a step each,
and the median of the ratios within a turn counts. `processes` and `resume` start programs, as a user does.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from train import cpu

os.environ.setdefault(*cpu.SPIN_COUNT)  # as train/pretrain.py has it, for every contender

import torch
import yaml
from plain_training import PlainTraining, write_crops
from webdataset import TarWriter

from hypclip.data.batch import Batch
from hypclip.data.quickstart.scenes import compose
from hypclip.data.shards import find_shards
from hypclip.model import HypCLIP
from hypclip.towers.attention import explicit_attention
from hypclip.towers.passes import TextPasses
from hypclip.towers.tokens import TokenRows
from hypclip.training import precision
from hypclip.training.settings import configure
from train.pretrain import Run

ROOT = Path(__file__).parents[2]
SIDE, SCENES = 256, 1_024
TEXT_512 = {"context_length": 77, "width": 512, "heads": 8, "layers": 12}
TOWERS: dict[str, dict[str, Any]] = {
    "tiny": {
        "embed_dim": 128,
        "vision_cfg": {"layers": [1, 2, 2, 1], "width": 16, "image_size": 64},
        "text_cfg": {"context_length": 64, "width": 128, "heads": 4, "layers": 1},
    },
    "vit_s": {
        "embed_dim": 512,
        "vision_cfg": {
            "timm_model_name": "vit_small_patch16_224",
            "timm_model_kwargs": {"num_heads": 12},
            "timm_pool": "token",
            "image_size": 224,
        },
        "text_cfg": TEXT_512,
    },
    "vit_b": {
        "embed_dim": 512,
        "vision_cfg": {"layers": 12, "width": 768, "patch_size": 32, "image_size": 224},
        "text_cfg": TEXT_512,
    },
}
SIZES = [("tiny", 64), ("tiny", 256), ("vit_s", 64)]
CROPS = (0.5, 1.0)


def settings(shards: Path, output: Path, towers: str, batch_size: int, **train: Any) -> dict[str, Any]:
    """Return the settings of a run."""
    return {
        "output_dir": str(output),
        "model": {"towers": TOWERS[towers]},
        "objective": "hycoclip",
        "data": {"shards": str(shards), "workers": 1, "augment": {"crop_scale": list(CROPS)}},
        "train": {"steps": 1_000_000, "batch_size": batch_size, "log_every": 1_000_000, "trackers": [],
                  "checkpoint_every": 1_000_000, **train},
    }  # fmt: skip


def write_scenes(folder: Path, shards: int = 4) -> Path:
    """Write raw shards of scenes as large as pictures of the web are after resizing."""
    folder.mkdir()
    for shard in range(shards):
        with TarWriter(str(folder / f"{shard:03}.tar"), encoder=False) as writer:
            for index in range(shard, SCENES, shards):
                scene = compose(0, "train", index, side=SIDE)
                picture = io.BytesIO()
                scene.image.save(picture, "JPEG", quality=90)
                fields = {"caption": scene.caption, "noun_chunks": scene.noun_chunks, "ref_exps": scene.ref_exps}
                writer.write({"__key__": f"{index:06}", "jpg": picture.getvalue(), "json": json.dumps(fields).encode()})
    return folder


def stepping(run: Run, batches: Iterator[Batch] | None = None) -> Callable[[], None]:
    """Return what makes one step, from shard to update."""
    stream = batches or iter(run.stream)
    return lambda: run.step(run.next_batch(stream))


def in_turns(
    contenders: dict[str, Callable[[], object]], rounds: int, calls: int = 1, before: int = 0
) -> dict[str, list[float]]:
    """Call each so often a round, `before` of the calls uncounted, after a round to warm up; return seconds a call."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, call in contenders.items():
            for _ in range(before):
                call()
            start = time.perf_counter()
            for _ in range(calls):
                call()
            if number:
                times[name].append((time.perf_counter() - start) / calls)
    return times


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> float:
    """Return the median over rounds of slow / fast."""
    return median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def bench_plain(options: argparse.Namespace, folder: Path) -> None:
    """Whole training steps, from shard to update, beside the plain implementation in float32 and in bfloat16."""
    shards = write_scenes(folder / "scenes")
    for towers, batch_size in SIZES:
        if options.towers not in (None, towers):
            continue
        plan = configure(settings(shards, folder / "run", towers, batch_size))
        side = HypCLIP(plan.config.model).image_size
        crops = folder / f"crops-{side}"
        if not crops.exists():
            crops.mkdir()
            write_crops(find_shards(str(shards)), crops, side)
        run = Run(plan, resume=False)
        found = sorted(map(str, crops.glob("*.tar")))
        plain = {
            f"plain {name}": PlainTraining(HypCLIP(plan.config.model), found, batch_size, bf16, CROPS)
            for name, bf16 in (("fp32", False), ("bf16", True))
        }
        contenders: dict[str, Callable[[], object]] = {"ours": stepping(run)}
        contenders |= {name: training.step for name, training in plain.items()}
        # Steps from batches that were made while another contender had its turn do not count.
        times = in_turns(contenders, options.steps, *((20, 6) if towers == "tiny" else (1, 0)))
        for name in plain:
            show(
                "plain",
                f"{towers}, batch {batch_size}: {batch_size / median(times['ours']):.1f} samples/s in {run.precision}; "
                f"{name} {batch_size / median(times[name]):.1f}",
                f"{ratio(times, name, 'ours'):.2f} x",
                "≥ 2 x",
            )


def bench_overhead(options: argparse.Namespace, folder: Path) -> None:
    """A step of the loop over the forward and backward passes of the same towers, with data at hand and from shards.

    Where a batch is at hand, what the loop adds is objective, update and its own account. From shards a worker reads,
    decodes and crops on the same two cores, which on a machine with a GPU it would not.
    """
    shards = write_scenes(folder / "scenes")
    for towers, batch_size in (("tiny", 64), ("tiny", 256), ("vit_s", 32)):
        if options.towers not in (None, towers):
            continue
        plan = configure(settings(shards, folder / "run", towers, batch_size))
        run = Run(plan, resume=False)
        batches = iter(run.stream)
        batch = run.next_batch(batches)
        pictures = torch.cat(list(batch.images.values())).contiguous(memory_format=torch.channels_last)

        def bare(run: Run = run, pictures: torch.Tensor = pictures, batch: Batch = batch) -> None:
            run.model.zero_grad()
            with precision.towers_in(run.precision, run.device):
                with explicit_attention():  # as the loop's own passes have it
                    image = run.model.image_tower(pictures)
                features = [image, *run.model({}, batch.texts).features.values()]
            torch.stack([x.float().sum() for x in features]).sum().backward()

        calls = 20 if towers == "tiny" else 1
        loop = functools.partial(run.step, batch)
        at_hand = in_turns({"towers": bare, "loop": loop}, options.steps, calls)
        with_data = in_turns({"towers": bare, "loop": stepping(run, batches)}, options.steps, calls, calls // 3)
        for name, times in (("a batch at hand", at_hand), ("batches from shards", with_data)):
            what = f"{towers}, batch {batch_size}, {name}: step {1e3 * median(times['loop']):.0f} ms"
            show("overhead", f"{what}, towers alone {1e3 * median(times['towers']):.0f} ms",
                 f"{ratio(times, 'loop', 'towers') - 1:+.1%}", "≤ 10 %")  # fmt: skip


def bench_texts(options: argparse.Namespace, _: Path) -> None:
    """Texts in passes by length, forward and backward, over a pass per role, with captions as unequal as the web's."""
    for towers, batch_size in SIZES:
        if options.towers not in (None, towers):
            continue
        model = HypCLIP(configure(settings(Path("-"), Path("-"), towers, batch_size)).config.model)
        model.use_explicit_attention()
        generator = torch.Generator().manual_seed(0)
        for name, words in (("captions", {"text": 17}), ("and phrases", {"text": 17, "box_text": 3})):

            def passes(
                fixed: bool,
                model: HypCLIP = model,
                words: dict[str, int] = words,
                rows: int = batch_size,
                generator: torch.Generator = generator,
            ) -> None:
                texts = {r: unequal_texts(rows, n, model.tokenizer.context_length, generator) for r, n in words.items()}
                planned = TextPasses.plan(texts, model.tokenizer.pad_id, None if fixed else model.pass_tokens)
                model.zero_grad()
                with precision.towers_in("bf16", torch.device("cpu")):
                    features = model({}, planned).features
                torch.stack([x.square().sum() for x in features.values()]).sum().backward()

            contenders = {"roles": functools.partial(passes, True), "length": functools.partial(passes, False)}
            times = in_turns(contenders, options.steps, 20 if towers == "tiny" else 1)
            what = f"{towers}, batch {batch_size}, {name}: {1e3 * median(times['length']):.0f} ms by length"
            show("texts", f"{what}, {1e3 * median(times['roles']):.0f} ms a pass per role",
                 f"{ratio(times, 'roles', 'length'):.2f} x", "")  # fmt: skip


def unequal_texts(rows: int, words: int, context: int, generator: torch.Generator) -> TokenRows:
    """Return token ids of texts of log-normal length, half of them longer than `words`."""
    lengths = (2 + (math.log(words) + 0.5 * torch.randn(rows, generator=generator)).exp().round().int()).clamp(
        max=context
    )
    place = torch.arange(int(lengths.max()))
    tokens = torch.randint(1, 49_000, (rows, len(place)), generator=generator) * (place < lengths.unsqueeze(1))
    tokens = tokens.masked_fill(place == lengths.unsqueeze(1) - 1, 49_407)
    return TokenRows(tokens[place < lengths.unsqueeze(1)], lengths.tolist())


def bench_processes(options: argparse.Namespace, folder: Path) -> None:
    """Two processes of one thread over one of one thread, in which each reads and decodes its data too."""
    shards = write_scenes(folder / "scenes")
    for towers, batch_size in (("tiny", 256), ("vit_s", 32)):
        if options.towers not in (None, towers):
            continue
        steps = 60 if towers == "tiny" else 6
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(options.rounds):
            for processes in rates:
                output = folder / f"{towers}-{processes}"
                changes = {"steps": steps, "log_every": steps // 3, "threads": 1}
                config = settings(shards, output, towers, batch_size, **changes)
                config["data"]["workers"] = 0
                launch(config, folder, processes)
                lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
                rates[processes].append(median(line["samples_per_s"] for line in lines[1:]))
                shutil.rmtree(output)
        one, two = median(rates[1]), median(rates[2])
        what = f"{towers}, batch {batch_size}: {two:.1f} samples/s in two processes, {one:.1f} in one"
        show("processes", what, f"{two / one:.2f} x", "≥ 1.7 x")


def bench_checkpoint(options: argparse.Namespace, folder: Path) -> None:
    """What a checkpoint of ViT-B/32 costs the loop: its copy in memory, and slower steps while it is written."""
    shards = write_scenes(folder / "scenes")
    run = Run(configure(settings(shards, folder / "run", "vit_b", 32)), resume=False)
    step = stepping(run)
    added, plain_step, copied = [], [], []
    in_turns({"step": step}, 2)
    for _ in range(max(3, options.steps // 2)):
        quiet = median(in_turns({"step": step}, 3)["step"])
        start = time.perf_counter()
        run.save()
        copied.append(time.perf_counter() - start)
        steps = 0
        while run.saver.is_writing or not steps:
            step()
            steps += 1
        added.append(time.perf_counter() - start - steps * quiet)
        plain_step.append(quiet)
    share = median(a / (1_000 * s) for a, s in zip(added, plain_step, strict=True))
    size = sum(file.stat().st_size for file in max((folder / "run/checkpoints").iterdir()).iterdir()) / 2**30
    run.saver.close()
    what = f"ViT-B/32, batch 32, {size:.1f} GiB: copied in {median(copied):.2f} s, added in all {median(added):.1f} s"
    show("checkpoint", f"{what}; of 1,000 steps of {median(plain_step):.2f} s", f"{share:.2%}", "≤ 1 %")


def bench_resume(options: argparse.Namespace, folder: Path) -> None:
    """Kill -9 at random moments and go on, until the run is finished; then compare it with one never stopped."""
    shards = write_scenes(folder / "scenes")
    changes = {"steps": 60, "checkpoint_every": 3, "threads": 1, "log_every": 5, "ema_decay": 0.99}

    def config(name: str) -> dict[str, Any]:
        found = settings(shards, folder / name, "tiny", 32, **changes)
        found["data"]["shuffle_buffer"] = 50
        return found

    begin = time.monotonic()
    launch(config("whole"), folder, 0)
    whole_s = time.monotonic() - begin
    want = _files(folder / "whole/checkpoint")
    chosen = random.Random(0)
    equal = kills = 0
    while kills < options.kills:
        shutil.rmtree(folder / "killed", ignore_errors=True)
        struck = 0
        while not (folder / "killed/checkpoint").exists():
            after = chosen.uniform(0.3, 1.2) * whole_s if kills + struck < options.kills else None
            struck += launch(config("killed"), folder, 0, kill_after=after)
        kills += struck
        same = _files(folder / "killed/checkpoint") == want
        equal += struck if same else 0
    show("resume", f"kill -9 {kills} times at random moments, then resumed", f"{equal} of {kills}", "equal to the bit")


def launch(config: dict[str, Any], folder: Path, processes: int, kill_after: float | None = None) -> bool:
    """Train in processes of their own; return whether they were killed first. With 0 there is no launcher."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "train/pretrain.py", "--config", str(path), "--resume"]
    if processes:
        program = str(Path(sys.executable).parent / "accelerate")
        several = ["--multi_gpu", "--num_processes", str(processes)] if processes > 1 else ["--num_processes", "1"]
        quiet = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        command = [program, "launch", *several, *quiet, *command[1:]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            _, said = process.communicate(timeout=kill_after)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return True
    if process.returncode:
        raise RuntimeError(said.decode()[-2_000:])
    return False


def _files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def show(part: str, what: str, figure: str, goal: str) -> None:
    """Print a line of the table."""
    print(f"{part:<10} {what:<110} {figure:>10}  {goal}", flush=True)


def main() -> None:
    """Run the parts that are asked for."""
    parts = {name.removeprefix("bench_"): part for name, part in globals().items() if name.startswith("bench_")}
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--towers", help="measure one kind only, of plain, overhead, texts and processes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(2)
    for name in options.parts or parts:
        with tempfile.TemporaryDirectory() as folder:
            parts[name](options, Path(folder))


if __name__ == "__main__":
    main()
