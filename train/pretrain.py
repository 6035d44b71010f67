"""Train a hyperbolic vision-language model. The main path of hypclip.

accelerate launch train/pretrain.py --config configs/quickstart.yaml
accelerate launch train/pretrain.py --config configs/quickstart.yaml --resume train.steps=2000 output_dir=runs/x
"""

from __future__ import annotations

import argparse
import functools
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from hypclip import checkpoint
from hypclip.config import build, read
from hypclip.data.batch import Batch, ExampleMaker, collate
from hypclip.data.shards import find_shards
from hypclip.data.stream import BatchStream, StreamConfig, StreamState
from hypclip.errors import ConfigError, HypclipError, TrainingError
from hypclip.evaluation.retrieval import read_pairs, retrieval
from hypclip.model import HypCLIP
from hypclip.objective import Loss, Objective
from hypclip.objective.recipe import LOGIT_SCALE
from hypclip.training import distributed
from hypclip.training.health import find_trouble
from hypclip.training.metrics import MetricsLog
from hypclip.training.optim import adamw, learning_rate_at
from hypclip.training.settings import RunConfig
from hypclip.training.state import (
    TrainState,
    checkpoint_path,
    latest_checkpoint,
    load_state,
    prune_checkpoints,
    save_state,
)
from hypclip.training.step import Embedded, forward_backward


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see configs/")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of output_dir, if any")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of the file")
    arguments = parser.parse_intermixed_args(argv)
    try:
        settings, objective = configure(read(arguments.config, arguments.overrides))
        train(settings, objective, resume=arguments.resume)
    except (HypclipError, OSError) as error:
        tqdm.write(f"error: {error}", file=sys.stderr)  # on its own line, above a progress bar
        return 1
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


def configure(settings: Mapping[str, Any]) -> tuple[RunConfig, Objective]:
    """Return the settings of a run and its objective; what the model does not say of its space, the recipe does.

    Raises:
        ConfigError: an unknown key, a value out of range, or a model whose space is not that of the recipe.
    """
    given = settings.get("model")
    objective = Objective.from_recipe(settings.get("objective", RunConfig.objective))
    if not isinstance(given, Mapping):
        return build(RunConfig, settings), objective  # which says what is wrong with it
    recipe = objective.recipe
    wanted: dict[str, Any] = {
        "geometry": recipe.geometry,
        "distance": recipe.distance,
        "factor_dim": recipe.factor_dim,
        "other_scales": {name: value for name, value in recipe.scales.items() if name != LOGIT_SCALE},
    }
    if LOGIT_SCALE in recipe.scales:
        wanted["logit_scale_init"] = recipe.scales[LOGIT_SCALE]
    for name in ("geometry", "distance", "factor_dim"):
        if name in given and given[name] != wanted[name]:
            raise ConfigError(
                f"model.{name} is {given[name]!r} and the objective's {name} is {wanted[name]!r}: "
                f"leave model.{name} out, and it follows the objective"
            )
    config = build(RunConfig, {**settings, "model": {**wanted, **given}})
    if missing := wanted["other_scales"].keys() - config.model.other_scales.keys():
        raise ConfigError(f"model.other_scales lacks {sorted(missing)}, which the objective names")
    return config, objective


def train(config: RunConfig, objective: Objective, *, resume: bool = False) -> None:
    """Train to the end, or to a SIGTERM; either way everything is saved.

    Raises:
        HypclipError: anything the user can mend, named.
    """
    # ------------------------------------------------------------------ set up
    stop = _catch_sigterm()
    shards = find_shards(config.data.shards)
    held_out = (
        read_pairs(find_shards(config.evaluate.shards), config.evaluate.samples) if config.evaluate.shards else None
    )
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    torch.manual_seed(config.train.seed)
    model = HypCLIP(config.model)

    found = latest_checkpoint(config.output_dir) if resume else None
    precision = _precision(config.train.precision)
    accelerator = Accelerator(
        mixed_precision="bf16" if precision == "bf16" else "no",
        # Unless told, accelerate takes each of several processes without a GPU for the only one.
        cpu=not torch.accelerator.is_available(),
        log_with="tensorboard",
        project_dir=config.output_dir,
    )
    processes, rank = accelerator.num_processes, accelerator.process_index
    if config.train.batch_size % processes:
        raise ConfigError(f"train.batch_size {config.train.batch_size} does not divide among {processes} processes")
    if found:
        checkpoint.load_weights(model, found)
    model.to(accelerator.device, memory_format=torch.channels_last)
    optimizer = adamw(
        model,
        learning_rate=config.train.learning_rate,
        weight_decay=config.train.weight_decay,
        betas=config.train.betas,
    )
    state = load_state(found, optimizer, processes) if found else TrainState(precision=precision)
    if state.precision != precision:
        raise ConfigError(f"the run began in {state.precision} and this machine would go on in {precision}: "
                          f"set train.precision={state.precision}")  # fmt: skip
    wrapped = accelerator.prepare(model)
    torch.set_rng_state(state.generators[rank]) if found else torch.manual_seed(config.train.seed + 1 + rank)

    stream = BatchStream(
        StreamConfig(
            shards,
            config.train.batch_size // processes,
            seed=config.train.seed,
            workers=config.data.workers,
            shuffle_buffer=config.data.shuffle_buffer,
            max_bad_fraction=config.data.max_bad_fraction,
            rank=rank,
            world_size=processes,
        ),
        ExampleMaker(
            objective.recipe.roles,
            model.image_size,
            config.data.augment,
            config.model.image_mean,
            config.model.image_std,
            config.data.box_margin,
            objective.recipe.max_boxes,
        ),
        functools.partial(collate, tokenizer=model.tokenizer, max_boxes=objective.recipe.max_boxes),
        StreamState.from_plain(state.streams[rank]) if found else None,
    )
    save = functools.partial(_save, config, model, optimizer, stream, objective)
    log = MetricsLog(config.output_dir / "metrics.jsonl", state.step) if accelerator.is_main_process else None
    accelerator.init_trackers("tensorboard")
    bar = tqdm(
        total=config.train.steps,
        initial=state.step,
        unit="step",
        mininterval=2.0,
        disable=not accelerator.is_main_process,
    )
    if found and accelerator.is_main_process:
        bar.write(f"resuming from {found}")

    # ------------------------------------------------------------------ loop
    wrapped.train()
    batches = iter(stream)
    clock = _Clock()
    warned: set[str] = set()
    while state.step < config.train.steps and not distributed.any_process(stop.is_set, accelerator.device):
        batch = clock.waiting(lambda: next(batches))
        loss, seen, gradient_norm = _step(
            wrapped, model, objective, optimizer, batch.to(accelerator.device), config, state.step
        )
        state.step += 1
        clock.samples += config.train.batch_size
        bar.update()

        evaluating = held_out is not None and (
            state.step % config.evaluate.every == 0 or state.step == config.train.steps
        )
        if log and (state.step % config.train.log_every == 0 or state.step == config.train.steps or evaluating):
            values: dict[str, Any] = {
                "step": state.step,
                "loss": loss.loss.item(),
                **{name: value.item() for name, value in loss.parts.items()},
                "lr": optimizer.param_groups[0]["lr"],
                "curv": model.curv.mean().item(),
                **{name: value.item() for name, value in model.scales.items()},
                "grad_norm": gradient_norm,
                **_describe(objective, seen),
                **clock.lap(),
                "skipped": dict(stream.state.skipped),
            }
            if evaluating and held_out:
                images = model.embed_image([record.image for record in held_out])
                values |= dict(retrieval(model, images, model.embed_text([record.caption for record in held_out])))
                clock.lap()
            learned = model.log_curv.requires_grad
            trouble = find_trouble(values, seen.curv, learned=learned)
            for name in trouble.keys() - warned:
                bar.write(f"warning: step {state.step}: {trouble[name]}", file=sys.stderr)
            warned |= trouble.keys()
            log.write(values | {"warnings": sorted(trouble)})
            accelerator.log({k: v for k, v in values.items() if isinstance(v, float)}, step=state.step)
            bar.set_postfix_str(f"loss {values['loss']:.3f}, {values['samples_per_s']:.0f} samples/s")
        if state.step % config.train.checkpoint_every == 0:
            save(state)

    # ------------------------------------------------------------------ end
    bar.close()
    save(state)
    if state.step < config.train.steps:
        bar.write(f"stopped by SIGTERM at step {state.step}: saved, go on with --resume")
    elif accelerator.is_main_process:
        with checkpoint.atomic_directory(config.output_dir / "checkpoint") as folder:
            checkpoint.save(model, folder, **_notes(config, objective, state.step))
        bar.write(f"finished: the model is in {config.output_dir / 'checkpoint'}")
    accelerator.wait_for_everyone()
    accelerator.end_training()


def _step(
    wrapped: nn.Module,
    model: HypCLIP,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    config: RunConfig,
    step: int,
) -> tuple[Loss, Embedded, float]:
    """Make one update; return the loss of the whole batch, what it was computed of, and the norm of its gradient."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate_at(
            step, peak=config.train.learning_rate, warmup_steps=config.train.warmup_steps, steps=config.train.steps
        )
    optimizer.zero_grad()
    loss, seen = forward_backward(wrapped, model, objective, batch, config.train.accumulate)
    if not seen.finite:
        raise TrainingError(_non_finite(step, loss, model, seen.features))
    norm = nn.utils.clip_grad_norm_(model.parameters(), config.train.clip_norm)
    if not bool(norm.isfinite()):
        raise TrainingError(_non_finite(step, loss, model, seen.features, gradient_norm=norm))
    optimizer.step()
    model.clamp_scalars()
    return _mean_over_processes(loss), seen, norm.item()


def _describe(objective: Objective, seen: Embedded) -> dict[str, float]:
    described = objective.describe(seen.features, curv=seen.curv, content=seen.content, box_weight=seen.box_weight)
    return {name: value.item() for name, value in described.items()}


def _mean_over_processes(loss: Loss) -> Loss:
    """Return the loss and its parts for the whole batch, detached."""
    names = list(loss.parts)
    values = torch.stack([loss.loss.detach(), *loss.parts.values()]).unsqueeze(0)
    total, *parts = distributed.gather_rows(values).mean(0)
    return Loss(total, dict(zip(names, parts, strict=True)))


def _non_finite(
    step: int, loss: Loss, model: HypCLIP, features: dict[str, Tensor], gradient_norm: Tensor | None = None
) -> str:
    parts = ", ".join(f"{name} {value.item():.4g}" for name, value in loss.parts.items())
    norms = ", ".join(f"{role} {x.norm(dim=-1).max().item():.4g}" for role, x in features.items())
    what = "loss" if gradient_norm is None else f"gradient norm ({gradient_norm.item()})"
    return (
        f"non-finite {what} at step {step + 1}, before the update: loss {loss.loss.item():.4g}; parts: {parts}; "
        f"curv {model.curv.mean().item():.4g}, logit_scale {model.logit_scale.item():.4g}; largest norms: {norms}. "
        "The last checkpoint is intact; lower train.learning_rate or use train.precision=fp32"
    )


def _save(
    config: RunConfig,
    model: HypCLIP,
    optimizer: torch.optim.Optimizer,
    stream: BatchStream,
    objective: Objective,
    state: TrainState,
) -> None:
    """Write a training checkpoint: every process hands in its part, the first one writes."""
    state.streams = distributed.gather_plain(stream.state.to_plain())
    state.generators = distributed.gather_plain(torch.get_rng_state())
    if distributed.rank() == 0:
        with checkpoint.atomic_directory(checkpoint_path(config.output_dir, state.step)) as folder:
            checkpoint.save(model, folder, **_notes(config, objective, state.step))
            save_state(folder, state, optimizer)
        prune_checkpoints(config.output_dir, config.train.keep_checkpoints, state.step)


def _notes(config: RunConfig, objective: Objective, step: int) -> dict[str, Any]:
    return {"name": config.name, "step": step, "objective": asdict(objective.recipe)}


def _precision(wanted: str) -> str:
    """Return bf16 or fp32; auto takes bf16 where the hardware computes in it."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


class _catch_sigterm:
    """Note a SIGTERM instead of dying of it; a launcher's death counts as one."""

    def __init__(self) -> None:
        self.is_set = False
        signal.signal(signal.SIGTERM, self._note)
        parent = psutil.Process().parent()
        if sys.platform == "linux" and parent and any("accelerate" in part for part in parent.cmdline()):
            # `accelerate launch` does not pass signals on: without this its death would leave the run orphaned.
            import ctypes

            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG

    def _note(self, *_: object) -> None:
        self.is_set = True


class _Clock:
    """Samples a second and the seconds spent waiting for data, since the last lap."""

    def __init__(self) -> None:
        self.samples, self.waited_s, self.started = 0, 0.0, time.perf_counter()

    def waiting(self, get: Any) -> Batch:
        """Return get(), counting the time it takes as waiting for data."""
        before = time.perf_counter()
        batch: Batch = get()
        self.waited_s += time.perf_counter() - before
        return batch

    def lap(self) -> dict[str, float]:
        """Return the figures and start again."""
        elapsed = time.perf_counter() - self.started
        values = {"samples_per_s": self.samples / elapsed, "data_wait_s": self.waited_s}
        self.__init__()  # type: ignore[misc]
        return values


if __name__ == "__main__":
    sys.exit(main())
