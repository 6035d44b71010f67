"""A guard against spikes of the loss: an update that would follow one is skipped."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import Annotated

from annotated_types import Ge
from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from hypclip.config import STRICT_KEYS
from hypclip.errors import TrainingError
from hypclip.training.checkpointing.state import TrainState


@dataclass(frozen=True, config=STRICT_KEYS)
class SpikeConfig:
    """Spikes: a loss far over the mean of those before it.

    It has to be over the mean by a hundredth of it too, since a loss that hardly moves has no deviation to speak of.

    Args:
        deviations: how many standard deviations over the mean.
        window: how many losses before it.
        stop_after: the run ends when so many updates in a row were left out.
    """

    deviations: PositiveFloat = 6.0
    window: Annotated[int, Ge(10)] = 100
    stop_after: PositiveInt = 10


_LEAST = 0.01


def check_spike(loss: float, state: TrainState, config: SpikeConfig) -> bool:
    """Check whether the loss of a step is a spike, and note it in the state; all processes pass the same number.

    Raises:
        TrainingError: too many spikes in a row.
    """
    if len(state.losses) >= config.window:
        mean = fmean(state.losses)
        limit = mean + max(config.deviations * stdev(state.losses), _LEAST * abs(mean))
        if loss > limit:
            state.skipped_updates += 1
            if state.skipped_updates >= config.stop_after:
                raise TrainingError(
                    f"{state.skipped_updates} losses in a row were spikes, the last {loss:.4g} where {limit:.4g} is "
                    f"the limit (mean {mean:.4g}), and their updates were left out: the data has changed, or the model "
                    "is lost. Resume from an earlier checkpoint, with a lower train.learning_rate, or raise "
                    "train.spike.deviations"
                )
            return True
    state.skipped_updates = 0
    state.losses = [*state.losses, loss][-config.window :]
    return False
