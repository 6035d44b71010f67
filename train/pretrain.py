"""Train a hyperbolic vision-language model. The main path of hypclip.

accelerate launch --config_file configs/accelerate/cpu.yaml train/pretrain.py --config configs/quickstart.yaml
torchrun --nproc_per_node 8 train/pretrain.py --config FILE --resume train.steps=2000 output_dir=runs/x

An output_dir that holds a run already is refused without --resume or --overwrite.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from train import cpu

os.environ.setdefault(*cpu.SPIN_COUNT)  # before torch is loaded, which reads it

import torch
from torch import Tensor

from hypclip import distributed, shipped
from hypclip.config import read
from hypclip.console import escape_unprintable
from hypclip.data.batch import Batch
from hypclip.data.image import Normaliser
from hypclip.data.tally import Tally
from hypclip.errors import HypclipError, TrainingError
from hypclip.evaluation.suite import prepare
from hypclip.objective import Loss
from hypclip.training import calibration, parallel, precision, tuning
from hypclip.training.checkpointing import output_dir
from hypclip.training.checkpointing.state import generators, snapshot
from hypclip.training.ema import AveragedWeights
from hypclip.training.monitoring import report
from hypclip.training.monitoring.health import find_trouble
from hypclip.training.monitoring.progress import RunProgress
from hypclip.training.monitoring.spikes import check_spike
from hypclip.training.monitoring.throughput import Throughput, model_flops
from hypclip.training.optim import learning_rate_at, set_learning_rate
from hypclip.training.runtime.launch import precision_notice
from hypclip.training.runtime.signals import StopSignals
from hypclip.training.settings import RunConfig, RunPlan, configure
from hypclip.training.step import Embedded, forward_backward
from train.parts import (
    build_model,
    build_optimizer,
    build_state,
    build_stream,
    find_checkpoint,
    open_output,
    set_random_state,
    start_processes,
)


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
    """The parts of a run, and what happens in each of its steps.

    Args:
        plan: the settings, the objective, and the weights to start from.
        resume: go on from the newest whole checkpoint of the output directory, if there is one.
        overwrite: move a run that is there aside.
    """

    def __init__(self, plan: RunPlan, *, resume: bool, overwrite: bool = False):
        self.plan, self.config, self.objective = plan, plan.config, plan.objective
        self.settings = settings = plan.config.train
        self.group = group = start_processes(plan.config)
        self.device, self.precision, self.is_first = group.device, group.precision, group.is_first
        self.progress = RunProgress(settings.steps, quiet=not group.is_first)
        say, warn = self.progress.say, self.progress.warn
        if group.is_first and (notice := precision_notice(os.environ, group.precision)):
            warn(notice)
        found = find_checkpoint(plan.config.output_dir, group, resume, overwrite, warn)
        self.model = group.together(lambda: build_model(plan, group, found, say))
        if group.device.type == "cpu":
            cpu.tune(self.model)
        self.averaged = AveragedWeights(self.model, settings.ema_decay) if settings.ema_decay else None
        self.optimizer = group.together(lambda: build_optimizer(self.model, plan.config, sharded=group.sharded))
        self.scaler = precision.loss_scaler(group.precision, group.device)
        self.state = group.together(
            lambda: build_state(plan, group, found, self.model, self.optimizer, self.averaged, self.scaler)
        )
        self.stream = group.together(lambda: build_stream(plan, group, self.model, self.state))
        self.normalise = Normaliser(plan.config.model.image_mean, plan.config.model.image_std, group.device)
        self.evaluations = group.together(lambda: prepare(plan.config.evaluate, warn) if group.is_first else {})
        self.saver, self.log = group.together(
            lambda: open_output(plan.config, group, self.state.step, begins=found is None, say=say, warn=warn)
        )
        group.accelerator.init_trackers(plan.config.name if "wandb" in settings.trackers else "tensorboard")
        self.wrapped = self.model if group.sharded else parallel.wrap(self.model, group.device, settings.accumulate)
        set_random_state(self.state, group, settings.seed)
        self.progress.start_at(self.state.step)
        if found is not None:
            say(f"resuming from {found}")
        elif resume:
            say(f"nothing to resume in {plan.config.output_dir}: this run begins anew")
        self.throughput, self.began = Throughput(group.device), time.perf_counter()
        self.warned: set[str] = set()
        self.told = Tally()
        self.saved_at: int | None = None
        self.training_mode()

    def training_mode(self) -> None:
        """Put the model into training mode, but for locked parts."""
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
        self.scaler.unscale_(self.optimizer)
        norm = self._update(loss, seen, parallel.clip_gradients(self.model, settings.clip_norm))
        state.step += 1
        self.throughput.done(settings.batch_size)
        self.progress.advance()
        last = state.step == settings.steps
        evaluate = self.config.evaluate
        evaluating = bool(evaluate.names) and (state.step % evaluate.every == 0 or last)
        if state.step % settings.log_every == 0 or last or evaluating:
            self._log(loss, seen, rate, norm, evaluating)

    def _update(self, loss: Loss, seen: Embedded, norm: Tensor) -> float:
        """Make the update if the numbers of the step allow it; return the gradient norm, NaN where there is no update.

        This is where a step waits for the device, once: for the loss and the norm, which all processes share.
        """
        spike, state = self.settings.spike, self.state
        value, length = torch.stack([loss.loss, norm.to(loss.loss)]).tolist()
        if not math.isfinite(value):
            raise TrainingError(self._non_finite(loss, seen))
        if spike is not None and check_spike(value, state, spike):
            self.progress.warn(f"step {state.step + 1}: a spike of the loss, {value:.4g}: no update")
            self.scaler.update()
            return math.nan
        if not math.isfinite(length) and not self.scaler.is_enabled():
            raise TrainingError(self._non_finite(loss, seen, norm))
        self.scaler.step(self.optimizer)  # which skips gradients that overflow in fp16
        self.scaler.update()
        self.model.clamp_scalars()
        if self.averaged is not None:
            self.averaged.update(self.model, state.step)
        return float(length)

    def _log(self, loss: Loss, seen: Embedded, rate: float, norm: float, evaluating: bool) -> None:
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
            "grad_norm": norm,
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
        self.group.accelerator.log({k: v for k, v in values.items() if isinstance(v, float)}, step=state.step)
        if evaluating:
            histogram = report.radius_histogram(seen.features, model.metric, seen.curv)
            for tracker in self.group.accelerator.trackers:
                order = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({"radius": histogram}, step=state.step, **order)
        self.progress.tell(values)

    def _tell_of_data(self) -> dict[str, Any]:
        """Return the bad data that all processes have seen, and report each reason and each damaged shard once.

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
            if self.is_first or self.group.sharded:  # the others hold the same, or gather and keep nothing
                averages = self.averaged.tensors if self.averaged else None
                taken = snapshot(self.model, self.optimizer, state, self._notes(), averages, keep=self.is_first)
                if taken is not None:
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
        self.group.accelerator.end_training()

    def _notes(self) -> dict[str, Any]:
        notes = {"name": self.config.name, "step": self.state.step, "objective": asdict(self.objective.recipe)}
        return notes | ({"ema_decay": self.settings.ema_decay} if self.averaged else {})


def program() -> None:
    """Run as a program of its own."""
    parallel.end_process(main())


if __name__ == "__main__":
    program()
