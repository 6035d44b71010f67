"""Training steps on data that are on the device already: how fast, with what memory, compiled, and over NCCL."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from tempfile import mkdtemp
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.gpu_checks.kit import Place, Report, until_full
from tests.gpu_checks.project import (
    BOX_ROLES,
    ROOT,
    TOWERS,
    Batch,
    Objective,
    Run,
    RunConfig,
    configure,
    forward_backward,
    make_batch,
    model_flops,
    passes_of,
    read,
    tiny_model,
    write_shards,
)

STEPS = 20
REPRODUCED = ROOT / "configs/pretrain/reproduce/hycoclip_vit_b.yaml"
VIT_B_16 = {
    "embed_dim": 512,
    "vision_cfg": {"layers": 12, "width": 768, "patch_size": 16, "image_size": 224},
    "text_cfg": {"context_length": 77, "width": 512, "heads": 8, "layers": 12},
}
COMPILED = 0.02
"""Losses of compiled towers beside plain ones, relative: fused operations round to bfloat16 less often."""
GATHERED = 1e-5
"""Gradients by way of DistributedDataParallel: the same sums in float32, of which a GPU fixes no order."""


def vit_b(place: Place, report: Report) -> None:
    """ViT-B/16 in bfloat16, one picture and one caption a sample, at batch 512, in parts if that does not fit."""
    size = place.of(512, 8)
    for parts in (1, 2, 4, 8):
        changes = {"objective": "meru", "train": {"accumulate": parts}}
        run = trainer(place, {"model": {"towers": place.of(VIT_B_16, TOWERS)}}, changes)
        try:
            what = place.of("ViT-B/16", "tiny") + ", meru" + (f", in {parts} parts" if parts > 1 else "")
            _tell_of_steps(place, report, run, size, what)
        except torch.OutOfMemoryError:
            if parts == 8:
                raise
        else:
            break
        del run
        place.free()


def reproduce(place: Place, report: Report) -> None:
    """The shape of the reproduce config, at the largest power of two that fits."""
    settings = read(REPRODUCED, ["data.workers=0"], RunConfig)
    if place.small:
        settings["model"]["towers"] = TOWERS
    run = trainer(place, settings)
    place.free()
    found = until_full(lambda size: _seconds(place, run, size, 2), *place.of((64, 4_096), (4, 8)), seconds=20.0)
    run.optimizer.zero_grad()
    size = max(found)
    report.measured("largest batch, of powers of two", f"{size}", batch=size)
    _tell_of_steps(place, report, run, size, place.of("hycoclip_vit_b", "hycoclip, tiny"))


def compiled(place: Place, report: Report) -> None:
    """A few steps with compiled towers and with plain ones, from the same weights."""
    size, losses, seconds = place.of(128, 4), {}, {}
    towers: dict[str, Any] = place.of(VIT_B_16, TOWERS)
    if not place.small:  # half the blocks compile in half the time
        towers = {**towers, **{side: {**towers[side], "layers": 6} for side in ("vision_cfg", "text_cfg")}}
    for name in ("plain", "compiled"):
        run = trainer(place, {"model": {"towers": towers}}, {"objective": "meru"})
        if name == "compiled":  # as train.compile=true does it; in small form graphs are traced only
            for tower in (run.model.image_tower, run.model.text_tower):
                tower.compile(backend=place.of("inductor", "eager"))
            run.model.passes_are_fixed = True
        batch = noise(run, size)
        start = time.perf_counter()
        losses[name] = [_loss_of_step(run, batch) for _ in range(3)]
        place.synchronise()
        first = time.perf_counter() - start
        seconds[name] = place.seconds(lambda run=run, batch=batch: run.step(batch), place.of(10, 2))
        del run, batch
        place.free()
    what = f"{place.of('ViT-B/16 of 6 blocks', 'tiny')}, batch {size}"
    report.measured(f"{what}: ms a step", f"{1e3 * seconds['compiled']:.1f}, plain {1e3 * seconds['plain']:.1f}; "
                    f"the first three {first:.0f} s", first_s=first, **seconds)  # fmt: skip
    off = max(abs(a - b) / abs(b) for a, b in zip(losses["compiled"], losses["plain"], strict=True))
    report.judged(f"{what}: losses of three steps, relative", f"{off:.1e}", f"{COMPILED:g}", off <= COMPILED, error=off)


def nccl(place: Place, report: Report) -> None:
    """A group of one process: gathering rows, and a step by way of DistributedDataParallel."""
    backend = "nccl" if place.is_gpu else "gloo"
    where = {"init_method": f"file://{place.folder}/group", "rank": 0, "world_size": 1}
    dist.init_process_group(backend, **where, timeout=timedelta(seconds=20))
    try:
        rows = torch.arange(12.0, device=place.device).view(4, 3)
        gathered = [torch.empty_like(rows)]
        dist.all_gather(gathered, rows)
        place.synchronise()
        same = torch.equal(gathered[0], rows)
        report.judged(f"{backend}, all_gather", "equal" if same else "other rows", "equal", same)
        grown = _gradients(place, as_ddp=True)
    finally:
        dist.destroy_process_group()
    alone = _gradients(place, as_ddp=False)
    square = sum((grown[name] - want).square().sum().item() for name, want in alone.items())
    off = (square / sum(want.square().sum().item() for want in alone.values())) ** 0.5
    report.judged(f"{backend}, gradients of a step in DDP, relative", f"{off:.1e}", f"{GATHERED:g}", off <= GATHERED,
                  error=off)  # fmt: skip


def trainer(place: Place, settings: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> Run:
    """Return a run of train/pretrain.py that begins anew, with tiny shards that nobody reads."""
    shards = place.folder / "shards"
    if not shards.exists():
        write_shards(shards)
    changes = changes or {}
    train = {
        "steps": 1_000_000, "batch_size": 8, "warmup_steps": 2_000, **settings.get("train", {}), "trackers": [],
        "precision": "bf16", "log_every": 1_000_000, "checkpoint_every": 1_000_000, **changes.get("train", {}),
    }  # fmt: skip
    data = {"workers": 0, **settings.get("data", {}), "shards": str(shards)}
    places = {"output_dir": mkdtemp(dir=place.folder), "data": data, "train": train}
    return Run(configure({**settings, **changes, **places}), resume=False)


def noise(run: Run, size: int) -> Batch:
    """Draw pictures and texts that fill the context on the run's device, one box a sample, all of other content."""
    model, wanted = run.model, run.objective.recipe
    generator = torch.Generator(run.device).manual_seed(0)
    roles = [role for role in ("image", "text", "box_image", "box_text") if role in wanted.roles]
    assert wanted.max_boxes == 1 or not BOX_ROLES & set(roles)
    side, length = model.image_size, model.tokenizer.context_length

    def draw(role: str) -> torch.Tensor:
        if "text" in role:
            return torch.randint(1, 49_406, (size, length), generator=generator, device=run.device)
        pixels = torch.randn(size, 3, side, side, generator=generator, device=run.device)
        return pixels.contiguous(memory_format=torch.channels_last)

    drawn = {role: draw(role) for role in roles}
    content = {r: torch.arange(size, device=run.device) + size * place for place, r in enumerate(roles)}
    images = {role: x for role, x in drawn.items() if "image" in role}
    return Batch(images, passes_of({role: x for role, x in drawn.items() if "text" in role}), content)


def _tell_of_steps(place: Place, report: Report, run: Run, size: int, what: str) -> None:
    """Measure the steps of a batch, and the objective alone on its features."""
    place.free()
    seconds = _seconds(place, run, size, place.of(STEPS, 3))
    peak = place.peak_gib()
    batch = noise(run, size)
    flops = model_flops(run.model, batch) * size
    at_best, whose = place.peak_flops()
    share = _objective_seconds(place, run, batch) / seconds
    what = f"{what}, batch {size}"
    report.measured(f"{what}: steps/s", f"{1 / seconds:.3g}", per_s=1 / seconds)
    report.measured(f"{what}: samples/s", f"{size / seconds:.4g}", per_s=size / seconds)
    mfu = flops / seconds / at_best
    report.measured(f"{what}: MFU", f"{mfu:.1%} of {whose}", mfu=mfu, flop_per_s=flops / seconds)
    report.measured(f"{what}: share of the objective", f"{share:.1%}", share=share)
    if place.is_gpu:
        report.measured(f"{what}: peak memory", f"{peak:.1f} GiB", gib=peak)


def _seconds(place: Place, run: Run, size: int, steps: int) -> float:
    """Return the seconds of a step, after two that find memory and kernels."""
    batch = noise(run, size)
    for _ in range(2):
        run.step(batch)
    return place.seconds(lambda: run.step(batch), steps)


def _objective_seconds(place: Place, run: Run, batch: Batch) -> float:
    """Return what the objective takes, forward and backward, of features as the towers give them."""
    run.optimizer.zero_grad()
    with torch.no_grad(), torch.autocast(run.device.type, torch.bfloat16):
        output = run.model(batch.images, batch.texts)
    features = {role: x.detach().requires_grad_() for role, x in output.features.items()}
    curv, *scales = (x.detach().requires_grad_() for x in (output.curv, *output.scales.values()))
    named = dict(zip(output.scales, scales, strict=True))

    def once() -> None:
        run.objective(features, curv=curv, logit_scale=named, content=batch.content).loss.backward()

    once()
    return place.seconds(once, place.of(10, 2))


def _loss_of_step(run: Run, batch: Batch) -> float:
    """Make a step of a run; return the loss before it."""
    loss, _ = forward_backward(run.model, run.model, run.objective, batch, precision="bf16")
    run.step(batch)
    return loss.loss.item()


def _gradients(place: Place, *, as_ddp: bool) -> dict[str, torch.Tensor]:
    model, batch = tiny_model().to(place.device), make_batch().to(place.device)
    ids = [0] if place.is_gpu else None
    wrapped: nn.Module = DistributedDataParallel(model, device_ids=ids) if as_ddp else model
    forward_backward(wrapped, model, Objective.from_recipe("meru"), batch)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
