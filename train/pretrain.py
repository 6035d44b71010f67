"""Train a hyperbolic vision-language model. The main path of hypclip.

accelerate launch --config_file configs/accelerate/cpu.yaml train/pretrain.py --config configs/quickstart.yaml
torchrun --nproc_per_node 8 train/pretrain.py --config FILE --resume train.steps=2000 output_dir=runs/x

An output_dir that holds a run already is refused without --resume or --overwrite.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Read when torch is loaded: its threads wait for each other for some microseconds only before they make room for the
# processes that prepare data, which on a CPU share its cores.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

import torch
from accelerate import Accelerator, DistributedType
from accelerate.tracking import get_available_trackers
from torch import Tensor

from hypclip import distributed, shipped
from hypclip.config import read
from hypclip.console import escape_unprintable
from hypclip.data.batch import Batch, ExampleMaker, collate
from hypclip.data.picture import Normaliser
from hypclip.data.record import Reading
from hypclip.data.shards import bad_shards_allowed, find_shards
from hypclip.data.stream import BatchStream, StreamConfig, StreamState
from hypclip.data.tally import Tally
from hypclip.errors import ConfigError, HypclipError, TrainingError
from hypclip.evaluation.suite import prepare
from hypclip.model import HypCLIP
from hypclip.objective import Loss
from hypclip.training import calibration, parallel, precision, tuning
from hypclip.training.checkpointing import output_dir
from hypclip.training.checkpointing.state import (
    TrainState,
    generators,
    load_weights,
    restore,
    same_settings,
    set_generators,
    snapshot,
)
from hypclip.training.checkpointing.writer import Saver
from hypclip.training.ema import AveragedWeights
from hypclip.training.monitoring import report
from hypclip.training.monitoring.health import find_trouble
from hypclip.training.monitoring.log import MetricsLog
from hypclip.training.monitoring.progress import RunProgress
from hypclip.training.monitoring.spikes import is_spike
from hypclip.training.monitoring.throughput import Throughput, model_flops
from hypclip.training.optim import adamw, learning_rate_at, set_learning_rate
from hypclip.training.runtime.launch import check_launch, precision_notice
from hypclip.training.runtime.memory import keep_freed_memory
from hypclip.training.runtime.signals import StopSignals
from hypclip.training.settings import RunConfig, RunPlan, WarmStartConfig, configure, read_source
from hypclip.training.sizes import check_sizes
from hypclip.training.step import Embedded, forward_backward


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    escape_unprintable()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of output_dir, if any")
    again.add_argument("--overwrite", action="store_true", help="move a run in output_dir to a dated folder beside it")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of the file")
    arguments = shipped.parse(parser, argv, "", "pretrain")
    try:
        settings = read(arguments.config, arguments.overrides, RunConfig)
        plan = configure(settings, resume=arguments.resume)
        train(plan, resume=arguments.resume, overwrite=arguments.overwrite)
    except (HypclipError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


def train(plan: RunPlan, *, resume: bool = False, overwrite: bool = False) -> None:
    """Train to the end, or to a SIGTERM or SIGUSR1; either way everything is saved.

    Args:
        plan: what to do.
        resume: go on from the newest whole checkpoint of the output directory, if there is one.
        overwrite: move a run that is there to a dated folder beside it.

    Raises:
        HypclipError: anything the user can mend, named.
    """
    stop = StopSignals()
    run = Run(plan, resume=resume, overwrite=overwrite)
    try:
        with run.progress, distributed.lost_processes_named():
            batches = iter(run.stream)
            while run.state.step < run.settings.steps and not distributed.any_process(bool(stop.caught), run.device):
                run.step(run.next_batch(batches))
                if run.state.step % run.settings.checkpoint_every == 0:
                    run.save()
            run.finish(stop.caught)
    except BaseException:
        with contextlib.suppress(HypclipError):
            run.saver.wait()  # nothing is to be left half written
        raise


class Run:
    """What a run is made of, and what happens in each of its steps.

    Args:
        plan: the settings, the objective, and the weights to start from.
        resume: go on from the newest whole checkpoint of the output directory, if there is one.
        overwrite: move a run that is there aside.
    """

    def __init__(self, plan: RunPlan, *, resume: bool, overwrite: bool = False):
        self.plan, self.config, self.objective = plan, plan.config, plan.objective
        self.settings = plan.config.train
        self._start_processes()
        found = self._look(resume, overwrite)
        for part in (self._make_model, self._make_optimizer, self._make_state, self._make_stream, self._open_log):
            distributed.together(functools.partial(part, found), self.device)
        self._begin(found)
        if resume and found is None:
            self.progress.say(f"nothing to resume in {self.config.output_dir}: this run begins anew")

    # ------------------------------------------------------------------ set up
    def _start_processes(self) -> None:
        config, settings = self.config, self.settings
        if settings.threads:
            torch.set_num_threads(settings.threads)
        torch.use_deterministic_algorithms(settings.deterministic)
        if settings.deterministic:  # without it torch refuses matrix products on a GPU
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        _check_trackers(settings.trackers)
        check_launch(os.environ)
        self.accelerator = Accelerator(
            # Unless told, accelerate takes each of several processes without a GPU for the only one.
            cpu=not torch.accelerator.is_available(),
            mixed_precision="no",  # which is our own affair
            log_with=list(settings.trackers) or None,
            project_dir=config.output_dir,
        )
        self.device = self.accelerator.device
        if self.device.type == "cpu":
            keep_freed_memory()
        self.rank, self.processes = self.accelerator.process_index, self.accelerator.num_processes
        self.is_first = self.accelerator.is_main_process
        self.progress = RunProgress(settings.steps, quiet=not self.is_first)
        if settings.batch_size % self.processes:
            raise ConfigError(
                f"train.batch_size {settings.batch_size} does not divide among {self.processes} processes"
            )
        self.precision = precision.choose(settings.precision, self.device)
        if self.is_first and (notice := precision_notice(os.environ, self.precision)):
            self.progress.warn(notice)
        wanted = settings.parallel == "fsdp" or self.accelerator.distributed_type == DistributedType.FSDP
        self.sharded = wanted and self.processes > 1

    def _look(self, resume: bool, overwrite: bool) -> Path | None:
        """Return the checkpoint to go on from; the first process looks, before anything is made."""

        def look() -> Path | None:
            if not self.is_first:
                return None
            return output_dir.look(self.config.output_dir, resume=resume, overwrite=overwrite, warn=self.progress.warn)

        found: Path | None = distributed.gather_plain(distributed.together(look, self.device))[0]
        return found

    def _make_model(self, found: Path | None) -> None:
        settings = self.settings
        torch.manual_seed(settings.seed)
        self.model = HypCLIP(self.config.model)
        check_sizes(self.model, self.config.data.box_size)
        if self.config.warm_start is not None and found is None:
            self._start_warm(self.config.warm_start)
        tuning.apply(self.model, self.config.tune)
        if found is not None:
            load_weights(self.model, found)
        order = torch.preserve_format if self.sharded else torch.channels_last  # which FSDP does not cut
        self.model.to(self.device).to(memory_format=order)
        if settings.gradient_checkpointing:
            self.model.set_grad_checkpointing()
        if settings.compile:
            self.model.image_tower.compile()
            self.model.text_tower.compile()
            self.model.passes_are_fixed = True

    def _start_warm(self, start: WarmStartConfig) -> None:
        from hypclip.pretrained.warm_start import load_towers  # which takes seconds to import

        # Not in the plan where there were checkpoints to resume from, of which none is whole.
        towers = self.config.model.towers if Path(start.source).is_file() else None
        source = self.plan.warm_start or read_source(start, towers)
        new = load_towers(self.model, source, keep_logit_scale=start.keep_logit_scale, calibrate=start.calibrate)
        self.progress.say(f"towers of {start.source}" + (f"; new: {', '.join(new)}" if new else ""))

    def _make_optimizer(self, _: Path | None) -> None:
        settings, tune = self.settings, self.config.tune
        if self.sharded:
            parallel.shard(self.model)
        self.averaged = AveragedWeights(self.model, settings.ema_decay) if settings.ema_decay else None
        self.optimizer = adamw(
            self.model,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            betas=settings.betas,
            decay_norms=settings.decay_norms,
            image_layer_decay=tune.image_layer_decay,
            text_layer_decay=tune.text_layer_decay,
        )
        if self.sharded:
            parallel.separate_groups(self.optimizer)
        self.scaler = precision.loss_scaler(self.precision, self.device)

    def _make_state(self, found: Path | None) -> None:
        lasting = self.plan.lasting()
        self.state = TrainState(precision=self.precision, settings=lasting)
        if found is None:
            return
        averages = self.averaged.tensors if self.averaged else None
        self.state = restore(found, self.model, self.optimizer, self.processes, averages)
        same_settings(self.state.settings, lasting, found)
        if self.state.precision != self.precision:
            raise ConfigError(f"the run began in {self.state.precision} and this machine would go on in "
                              f"{self.precision}: set train.precision={self.state.precision}")  # fmt: skip
        self.scaler.load_state_dict(self.state.scaler)

    def _make_stream(self, _: Path | None) -> None:
        config, recipe, model = self.config, self.objective.recipe, self.model
        shards, allowed = find_shards(config.data.shards), config.data.max_bad_shards
        self.stream = BatchStream(
            StreamConfig(
                shards,
                self.settings.batch_size // self.processes,
                seed=self.settings.seed,
                workers=config.data.workers,
                shuffle_buffer=config.data.shuffle_buffer,
                max_bad_fraction=config.data.max_bad_fraction,
                max_bad_shards=bad_shards_allowed(shards) if allowed is None else allowed,
                reading=Reading(config.data.caption_field, config.data.boxes_are),
                rank=self.rank,
                world_size=self.processes,
            ),
            ExampleMaker(
                recipe.roles,
                model.image_size,
                config.data.augment,
                config.data.box_margin,
                recipe.max_boxes,
                config.data.box_size,
                self.plan.taxonomy,
            ),
            functools.partial(
                collate,
                tokenizer=model.tokenizer,
                max_boxes=recipe.max_boxes,
                pass_tokens=None if model.passes_are_fixed else model.pass_tokens,
                **self.plan.phrases(),
            ),
            StreamState.from_plain(self.state.streams[self.rank]) if self.state.streams else None,
        )
        self.normalise = Normaliser(config.model.image_mean, config.model.image_std, self.device)

    def _open_log(self, found: Path | None) -> None:
        config, settings = self.config, self.settings
        self.evaluations = prepare(config.evaluate, self.progress.warn) if self.is_first else {}
        self.progress.start_at(self.state.step)
        self.warned: set[str] = set()
        self.told = Tally()
        self.throughput = Throughput(self.device)
        self.began = time.perf_counter()
        self.saver = Saver(
            config.output_dir, settings.keep_checkpoints, settings.keep_every, settings.upload_to, self.progress.warn
        )
        if found is None and self.is_first:
            self.saver.check_no_copies()
            if aside := output_dir.move_aside(config.output_dir):
                self.progress.say(f"beginning anew: what was there of an earlier run is now in {aside}")
        self.saved_at: int | None = None
        self.log = MetricsLog(config.output_dir / output_dir.LOG, self.state.step) if self.is_first else None

    def _begin(self, found: Path | None) -> None:
        trackers = "wandb" in self.settings.trackers
        self.accelerator.init_trackers(self.config.name if trackers else "tensorboard")
        self.wrapped = self.model if self.sharded else parallel.wrap(self.model, self.device, self.settings.accumulate)
        if found is None:
            torch.manual_seed(self.settings.seed + 1 + self.rank)
        else:
            set_generators(self.state.generators[self.rank], self.device)
            self.progress.say(f"resuming from {found}")
        self.training_mode()

    def training_mode(self) -> None:
        """Put the model into training mode, but for what is locked."""
        self.wrapped.train()
        tuning.keep_locked_in_eval(self.model)

    # ------------------------------------------------------------------ a step
    def next_batch(self, batches: Iterator[Batch]) -> Batch:
        """Return the next batch, or raise in every process what one process has to say of its data."""
        found: Batch | None = None
        failure: Exception | None = None
        try:
            found = self.throughput.waiting(lambda: next(batches))
        except HypclipError as error:
            failure = error
        distributed.raise_together(failure or self.saver.failure, self.device)
        assert found is not None
        batch = found.to(self.device, self.normalise)
        if not self.throughput.is_started:
            self.throughput.start(model_flops(self.model, batch))
        return batch

    def step(self, batch: Batch) -> None:
        """Make one update, and log it when it is time."""
        settings, state = self.settings, self.state
        rate = learning_rate_at(
            state.step, peak=settings.learning_rate, warmup_steps=settings.warmup_steps, steps=settings.steps
        )
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad()
        if state.step == 0 and settings.first_radii is not None:
            calibration.calibrate(settings.first_radii, self.wrapped, self.model, self.objective, batch, self.precision)
        loss, seen = forward_backward(
            self.wrapped, self.model, self.objective, batch, settings.accumulate,
            precision=self.precision, scaler=self.scaler,
        )  # fmt: skip
        if not seen.finite:
            raise TrainingError(self._non_finite(loss, seen))
        if settings.spike is not None and is_spike(loss.loss.item(), state, settings.spike):
            self.progress.warn(f"step {state.step + 1}: a spike of the loss, {loss.loss.item():.4g}: no update")
            norm = torch.tensor(float("nan"))
        else:
            norm = self._update(loss, seen)
        state.step += 1
        self.throughput.done(settings.batch_size)
        self.progress.advance()
        last = state.step == settings.steps
        evaluate = self.config.evaluate
        evaluating = bool(evaluate.names) and (state.step % evaluate.every == 0 or last)
        if state.step % settings.log_every == 0 or last or evaluating:
            self._log(loss, seen, rate, norm, evaluating)

    def _update(self, loss: Loss, seen: Embedded) -> Tensor:
        self.scaler.unscale_(self.optimizer)
        norm = parallel.clip_gradients(self.model, self.settings.clip_norm)
        if not bool(norm.isfinite()) and not self.scaler.is_enabled():
            raise TrainingError(self._non_finite(loss, seen, norm))
        self.scaler.step(self.optimizer)  # which passes over gradients that overflow in fp16
        self.scaler.update()
        self.model.clamp_scalars()
        if self.averaged is not None:
            self.averaged.update(self.model, self.state.step)
        return norm

    def _log(self, loss: Loss, seen: Embedded, rate: float, norm: Tensor, evaluating: bool) -> None:
        scores = self._evaluate() if evaluating else {}
        seen_data = self._tell_of_data()
        if self.log is None:
            return
        model, state = self.model, self.state
        described = self.objective.describe(seen.features, curv=seen.curv, **seen.known)
        values: dict[str, Any] = {
            "step": state.step,
            "loss": loss.loss.item(),
            **{name: value.item() for name, value in loss.parts.items()},
            "lr": rate,
            "curv": model.curv.mean().item(),
            **{name: value.item() for name, value in model.scales.items()},
            "logit_scale_per_rho": (model.logit_scale / model.curv.mean().sqrt()).item(),
            "grad_norm": norm.item(),
            **{name: value.item() for name, value in described.items()},
            **self.throughput.lap(),
            **seen_data,
            **scores,
        }
        trouble = find_trouble(values, seen.curv, learned=model.log_curv.requires_grad)
        for name in trouble.keys() - self.warned:
            self.progress.warn(f"step {state.step}: {trouble[name]}")
        self.warned |= trouble.keys()
        self.log.write(values | {"warnings": sorted(trouble)})
        self.accelerator.log({k: v for k, v in values.items() if isinstance(v, float)}, step=state.step)
        if evaluating:
            picture = report.radius_histogram(seen.features, model.metric, seen.curv)
            for tracker in self.accelerator.trackers:
                order = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({"radius": picture}, step=state.step, **order)
        self.progress.tell(values)

    def _tell_of_data(self) -> dict[str, Any]:
        """Return what all processes have seen of bad data, and name each reason and each damaged shard once.

        Raises:
            DataError: together they have seen too many damaged shards.
        """
        seen = Tally()
        for one in distributed.gather_plain(self.stream.state.seen):
            seen += one
        if self.is_first:
            for reason in seen.examples.keys() - self.told.examples.keys():
                self.progress.warn(f"bad samples are passed over: {reason}: {seen.examples[reason]}")
            for shard in seen.damaged.keys() - self.told.damaged.keys():
                self.progress.warn(f"a damaged shard, of which a part is lost: {shard}: {seen.damaged[shard]}")
        self.told = seen
        seen.judge_shards(self.stream.max_bad_shards)
        return {"skipped": dict(seen.skipped), "damaged_shards": dict(seen.damaged)}

    def _evaluate(self) -> dict[str, float]:
        """Return the scores of the averaged weights, or of the present ones; only the first process has any."""
        with self.throughput.paused(), parallel.whole_model(self.model, self.averaged) as model:
            return {
                f"{name}/{measure}": float(value)
                for name, evaluate in self.evaluations.items()
                for measure, value in evaluate(model).items()
            }

    def _non_finite(self, loss: Loss, seen: Embedded, norm: Tensor | None = None) -> str:
        return report.non_finite(self.state.step + 1, loss, seen, self.model.logit_scale.item(), norm)

    # ------------------------------------------------------------------ saving
    def save(self) -> None:
        """Copy everything and begin to write it; every process hands in its part, the first one writes."""
        state = self.state
        state.streams = distributed.gather_plain(self.stream.state.to_plain())
        state.generators = distributed.gather_plain(generators(self.device))
        state.scaler = self.scaler.state_dict()
        self.saved_at = state.step
        failure: Exception | None = None
        try:
            if self.is_first or self.sharded:  # the others hold the same, and need not copy it
                averages = self.averaged.tensors if self.averaged else None
                taken = snapshot(self.model, self.optimizer, state, self._notes(), averages)
                if self.is_first:
                    self.saver.save(taken)
        except HypclipError as error:
            failure = error
        distributed.raise_together(failure, self.device)

    def finish(self, caught: str) -> None:
        """Save a last time, and write the model itself once it is finished."""
        if self.saved_at != self.state.step:
            self.save()
        with parallel.whole_model(self.model, self.averaged) as model:
            failure: Exception | None = None
            try:
                self.saver.close()
                done = self.is_first and self.state.step >= self.settings.steps
                if done and self.settings.calibrate_threshold and self.plan.taxonomy is not None:
                    calibration.calibrate_threshold(model, self.plan.taxonomy)
                if done and (aside := output_dir.write_model(model, self.config.output_dir, self._notes())):
                    self.progress.say(f"the model that was there is now {aside}")
            except (HypclipError, OSError) as error:
                failure = error
            distributed.raise_together(failure, self.device)
        if self.state.step < self.settings.steps:
            by = caught or "a signal to another process"
            self.progress.say(f"stopped by {by} at step {self.state.step}: saved, go on with --resume")
        elif self.is_first:
            self.progress.say(report.summary(self.config.output_dir, self.state.step, time.perf_counter() - self.began))
        self.accelerator.end_training()

    def _notes(self) -> dict[str, Any]:
        notes = {"name": self.config.name, "step": self.state.step, "objective": asdict(self.objective.recipe)}
        return notes | ({"ema_decay": self.settings.ema_decay} if self.averaged else {})


def _check_trackers(wanted: Sequence[str]) -> None:
    """Refuse a tracker whose library is missing, which accelerate would leave out without a word."""
    available = {str(tracker) for tracker in get_available_trackers()}
    if missing := [name for name in wanted if name not in available]:
        raise ConfigError(f"train.trackers: {missing[0]} is not installed: pip install {missing[0]}, or leave it out")


def program() -> None:
    """Run as a program of its own."""
    parallel.end_process(main())


if __name__ == "__main__":
    program()
