"""The settings of a training run: what a YAML file for train/pretrain.py may say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from hypclip.config import STRICT_KEYS
from hypclip.data.augment import AugmentConfig
from hypclip.model import ModelConfig


@dataclass(frozen=True, config=STRICT_KEYS)
class DataConfig:
    """Where samples come from.

    `shards` is a file, folder, pattern or list of these; `workers` are loader processes a training process;
    `box_margin` lets a crop be up to that fraction wider than its box.
    """

    shards: str | list[str]
    workers: NonNegativeInt = 1
    shuffle_buffer: PositiveInt = 1_000
    max_bad_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.01
    box_margin: NonNegativeFloat = 0.0
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True, config=STRICT_KEYS)
class TrainConfig:
    """How to optimise.

    `batch_size` counts samples of all processes together. `precision` auto is bf16 where the machine has instructions
    for it and fp32 elsewhere; geometry runs in fp32 in any case. `threads` is torch's, 0 leaves its default. With
    `accumulate` > 1 each process runs its towers over that many parts of its batch, one after the other; the loss, over
    the whole batch, and its gradient stay the same (see hypclip/training/step.py).
    """

    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat = 5e-4
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: NonNegativeFloat = 0.2
    warmup_steps: NonNegativeInt = 0
    clip_norm: PositiveFloat = 1.0
    accumulate: PositiveInt = 1
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: int = 0
    threads: NonNegativeInt = 0
    log_every: PositiveInt = 10
    checkpoint_every: PositiveInt = 1_000
    keep_checkpoints: PositiveInt = 2


@dataclass(frozen=True, config=STRICT_KEYS)
class EvaluateConfig:
    """Retrieval on held-out shards every so many steps; without shards none."""

    shards: str | list[str] | None = None
    samples: Annotated[int, Ge(2)] = 1_000
    every: PositiveInt = 1_000


@dataclass(frozen=True, config=STRICT_KEYS)
class RunConfig:
    """A whole run. `objective` is a recipe's name or a recipe written out (see hypclip/objective/recipe.py)."""

    output_dir: Path
    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    objective: str | Mapping[str, Any] = "hycoclip"
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    name: str = "hypclip"
