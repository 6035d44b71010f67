"""The parts that a run of train/pretrain.py is made of, each from the settings and the parts before it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, DistributedType
from accelerate.tracking import get_available_trackers

from hypclip import distributed
from hypclip.data.batch import ExampleMaker, collate
from hypclip.data.record import Reading
from hypclip.data.shards import bad_shards_allowed, find_shards
from hypclip.data.stream import BatchStream, StreamConfig, StreamState
from hypclip.errors import ConfigError
from hypclip.model import HypCLIP
from hypclip.training import parallel, precision, tuning
from hypclip.training.checkpointing import output_dir
from hypclip.training.checkpointing.state import TrainState, load_weights, restore, same_settings, set_generators
from hypclip.training.checkpointing.writer import Saver
from hypclip.training.ema import AveragedWeights
from hypclip.training.monitoring.log import MetricsLog
from hypclip.training.optim import adamw
from hypclip.training.runtime.launch import check_launch
from hypclip.training.settings import RunConfig, RunPlan, WarmStartConfig, read_source
from hypclip.training.sizes import check_sizes

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """The processes of a run: this one's rank and device among them, and what all compute in.

    `sharded` says whether weights are sharded over the processes by FSDP.
    """

    accelerator: Accelerator
    device: torch.device
    rank: int
    size: int
    precision: precision.Precision
    sharded: bool

    @property
    def is_first(self) -> bool:
        """True in the process that writes and reports."""
        return self.rank == 0

    def together(self, make: Callable[[], T]) -> T:
        """Return make(), or raise in every process if it fails in one."""
        return distributed.together(make, self.device)


def start_processes(config: RunConfig) -> Group:
    """Join the processes of the launcher and choose what they compute in.

    Raises:
        ConfigError: a setting or a launcher that this machine cannot follow.
    """
    settings = config.train
    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(settings.deterministic)
    if settings.deterministic:  # without it torch refuses matrix products on a GPU
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    _check_trackers(settings.trackers)
    check_launch(os.environ)
    accelerator = Accelerator(
        # Unless told, accelerate takes each of several processes without a GPU for the only one.
        cpu=not torch.accelerator.is_available(),
        mixed_precision="no",  # which is our own affair
        log_with=list(settings.trackers) or None,
        project_dir=config.output_dir,
    )
    device, size = accelerator.device, accelerator.num_processes
    if settings.batch_size % size:
        raise ConfigError(f"train.batch_size {settings.batch_size} does not divide among {size} processes")
    chosen = precision.choose(settings.precision, device)
    fsdp = settings.parallel == "fsdp" or accelerator.distributed_type == DistributedType.FSDP
    return Group(accelerator, device, accelerator.process_index, size, chosen, fsdp and size > 1)


def find_checkpoint(
    folder: Path, group: Group, resume: bool, overwrite: bool, warn: Callable[[str], Any]
) -> Path | None:
    """Return the checkpoint to go on from; the first process looks, before anything is made."""

    def look() -> Path | None:
        return output_dir.look(folder, resume=resume, overwrite=overwrite, warn=warn) if group.is_first else None

    found: Path | None = distributed.gather_plain(group.together(look))[0]
    return found


def build_model(plan: RunPlan, group: Group, found: Path | None, say: Callable[[str], Any]) -> HypCLIP:
    """Return the model to train, on its device: new, from a warm start, or as the checkpoint `found` has it."""
    config, settings = plan.config, plan.config.train
    torch.manual_seed(settings.seed)
    model = HypCLIP(config.model)
    check_sizes(model, config.data.box_size)
    if config.warm_start is not None and found is None:
        _start_warm(model, plan, config.warm_start, say)
    tuning.apply(model, config.tune)
    if found is not None:
        load_weights(model, found)
    # FSDP does not shard channels-last weights.
    model.to(group.device).to(memory_format=torch.preserve_format if group.sharded else torch.channels_last)
    if settings.gradient_checkpointing:
        model.set_grad_checkpointing()
    if settings.compile:
        model.image_tower.compile()
        model.text_tower.compile()
        model.passes_are_fixed = True
    if group.sharded:
        parallel.shard(model)
    return model


def _start_warm(model: HypCLIP, plan: RunPlan, start: WarmStartConfig, say: Callable[[str], Any]) -> None:
    from hypclip.pretrained.warm_start import load_towers  # which takes seconds to import

    # Not in the plan where there were checkpoints to resume from, of which none is whole.
    towers = plan.config.model.towers if Path(start.source).is_file() else None
    source = plan.warm_start or read_source(start, towers)
    new = load_towers(model, source, keep_logit_scale=start.keep_logit_scale, calibrate=start.calibrate)
    say(f"towers of {start.source}" + (f"; new: {', '.join(new)}" if new else ""))


def build_optimizer(model: HypCLIP, config: RunConfig, *, sharded: bool) -> torch.optim.Optimizer:
    """Return AdamW over the trained parameters of a model."""
    settings, tune = config.train, config.tune
    optimizer = adamw(
        model,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        betas=settings.betas,
        decay_norms=settings.decay_norms,
        image_layer_decay=tune.image_layer_decay,
        text_layer_decay=tune.text_layer_decay,
    )
    if sharded:
        parallel.separate_groups(optimizer)
    return optimizer


def build_state(
    plan: RunPlan,
    group: Group,
    found: Path | None,
    model: HypCLIP,
    optimizer: torch.optim.Optimizer,
    averaged: AveragedWeights | None,
    scaler: torch.amp.GradScaler,
) -> TrainState:
    """Return the counters of step 0, or those of the checkpoint `found`, which also fills optimiser, averages, scaler.

    Raises:
        CheckpointError: the checkpoint is of a run with other settings.
        ConfigError: it is of another precision.
    """
    invariants = plan.resume_invariants()
    if found is None:
        return TrainState(precision=group.precision, settings=invariants)
    state = restore(found, model, optimizer, group.size, averaged.tensors if averaged else None)
    same_settings(state.settings, invariants, found)
    if state.precision != group.precision:
        raise ConfigError(f"the run began in {state.precision} and this machine would go on in "
                          f"{group.precision}: set train.precision={state.precision}")  # fmt: skip
    scaler.load_state_dict(state.scaler)
    return state


def build_stream(plan: RunPlan, group: Group, model: HypCLIP, state: TrainState) -> BatchStream:
    """Return this process's batches, from where a state left them.

    Raises:
        DataError: no shards.
    """
    config, settings, recipe = plan.config, plan.config.train, plan.objective.recipe
    data = config.data
    shards, allowed = find_shards(data.shards), data.max_bad_shards
    return BatchStream(
        StreamConfig(
            shards,
            settings.batch_size // group.size,
            seed=settings.seed,
            workers=data.workers,
            shuffle_buffer=data.shuffle_buffer,
            max_bad_fraction=data.max_bad_fraction,
            max_bad_shards=bad_shards_allowed(shards) if allowed is None else allowed,
            reading=Reading(data.caption_field, data.boxes_are),
            rank=group.rank,
            world_size=group.size,
        ),
        ExampleMaker(
            recipe.roles,
            model.image_size,
            data.augment,
            data.box_margin,
            recipe.max_boxes,
            data.box_size,
            plan.taxonomy,
        ),
        functools.partial(
            collate,
            tokenizer=model.tokenizer,
            max_boxes=recipe.max_boxes,
            pass_tokens=None if model.passes_are_fixed else model.pass_tokens,
            **plan.phrases(),
        ),
        StreamState.from_plain(state.streams[group.rank]) if state.streams else None,
    )


def open_output(
    config: RunConfig, group: Group, step: int, *, begins: bool, say: Callable[[str], Any], warn: Callable[[str], Any]
) -> tuple[Saver, MetricsLog | None]:
    """Return the writer of checkpoints and, in the first process, the log from `step` on.

    Args:
        config: the run's.
        group: its processes.
        step: updates made so far; later lines of the log are dropped.
        begins: the run begins anew: an earlier one in the output directory is moved aside.
        say: told where it was moved.
        warn: told of copies of checkpoints that failed.

    Raises:
        ConfigError: checkpoints cannot be copied to `train.upload_to`, or those of another run are there.
    """
    settings = config.train
    saver = Saver(config.output_dir, settings.keep_checkpoints, settings.keep_every, settings.upload_to, warn)
    if begins and group.is_first:
        saver.check_no_copies()
        if aside := output_dir.move_aside(config.output_dir):
            say(f"beginning anew: what was there of an earlier run is now in {aside}")
    return saver, MetricsLog(config.output_dir / output_dir.LOG, step) if group.is_first else None


def set_random_state(state: TrainState, group: Group, seed: int) -> None:
    """Seed this process's generators at step 0, each process with another seed; later restore them from the state."""
    if state.generators:
        set_generators(state.generators[group.rank], group.device)
    else:
        torch.manual_seed(seed + 1 + group.rank)


def _check_trackers(wanted: Sequence[str]) -> None:
    """Refuse a tracker whose library is missing, which accelerate would leave out without a word."""
    available = {str(tracker) for tracker in get_available_trackers()}
    if missing := [name for name in wanted if name not in available]:
        raise ConfigError(f"train.trackers: {missing[0]} is not installed: pip install {missing[0]}, or leave it out")
