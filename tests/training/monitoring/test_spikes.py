"""The guard against spikes of the loss."""

from __future__ import annotations

import pytest
import torch

from hypclip.config import build
from hypclip.errors import ConfigError, TrainingError
from hypclip.training.checkpointing.state import TrainState, restore, snapshot
from hypclip.training.monitoring.spikes import SpikeConfig, check_spike
from hypclip.training.optim import adamw
from tests.support.models import tiny_model

CONFIG = SpikeConfig(deviations=6.0, window=10, stop_after=3)
WINDOW = [2.0, 2.1, 1.9, 2.05, 1.95, 2.0, 2.1, 1.9, 2.05, 1.95]
"""Mean 2, standard deviation 0.075."""


def filled(losses: list[float] = WINDOW) -> TrainState:
    state = TrainState()
    assert not any(check_spike(loss, state, CONFIG) for loss in losses)
    return state


def test_nothing_is_a_spike_before_the_window_is_full():
    state = TrainState()
    assert not any(check_spike(loss, state, CONFIG) for loss in [2.0, 1e9, 2.0, 1e30, -5.0, 1e9, 0.0, 1.0, 2.0, 1e12])
    assert len(state.losses) == CONFIG.window


def test_the_limit_is_so_many_standard_deviations_over_the_mean():
    """Of the sample, with one degree of freedom less: sqrt(0.05 / 9)."""
    limit = 2 + 6 * (0.05 / 9) ** 0.5
    assert not check_spike(limit - 1e-6, filled(), CONFIG)
    assert check_spike(limit + 1e-6, filled(), CONFIG)
    assert not check_spike(-100.0, filled(), CONFIG)


def test_a_spike_does_not_count_in_the_window():
    state = filled()
    assert check_spike(50.0, state, CONFIG)
    assert state.losses == WINDOW
    assert state.skipped_updates == 1
    assert not check_spike(2.2, state, CONFIG)
    assert state.losses == [*WINDOW[1:], 2.2]
    assert state.skipped_updates == 0


def test_the_window_follows_a_loss_that_falls():
    state = filled([10.0 - i for i in range(10)] + [1.0 - i / 100 for i in range(10)])
    assert len(state.losses) == 10
    assert check_spike(2.0, state, CONFIG)


def test_too_many_in_a_row_end_the_run():
    state = filled()
    assert check_spike(50.0, state, CONFIG)
    assert check_spike(51.0, state, CONFIG)
    message = r"3 losses in a row were spikes, the last 52 where 2\.447 is the limit \(mean 2\).*earlier checkpoint"
    with pytest.raises(TrainingError, match=message):
        check_spike(52.0, state, CONFIG)


def test_those_that_are_not_in_a_row_do_not():
    state = filled()
    for _ in range(5):
        assert [check_spike(loss, state, CONFIG) for loss in (50.0, 51.0, 2.0)] == [True, True, False]


def test_a_constant_loss_has_no_spike_within_a_hundredth():
    state = filled([3.0] * 10)
    assert not check_spike(3.0, state, CONFIG)
    assert not check_spike(3.029, state, CONFIG)
    assert check_spike(3.2, filled([3.0] * 10), CONFIG)
    assert not check_spike(-2.99, filled([-3.0] * 10), CONFIG)


def test_it_goes_on_after_a_checkpoint_as_it_would_have(tmp_path):
    state = filled()
    state.generators, state.streams = [{"cpu": torch.get_rng_state()}], [{}]
    assert check_spike(50.0, state, CONFIG)
    model = tiny_model()
    optimizer = adamw(model, learning_rate=0.1, weight_decay=0.0, betas=(0.9, 0.98))
    snapshot(model, optimizer, state, {}).write(tmp_path)
    again = restore(tmp_path, model, optimizer, 1)
    assert (again.losses, again.skipped_updates) == (WINDOW, 1)
    for loss in (50.0, 2.3, 2.4, 2.44, 2.6, 2.2, 9.0):
        assert check_spike(loss, again, CONFIG) == check_spike(loss, state, CONFIG)
    assert (again.losses, again.skipped_updates) == (state.losses, state.skipped_updates)


def test_a_shorter_window_takes_over_the_latest():
    state = TrainState(losses=[float(i) for i in range(100)])
    assert not check_spike(5.0, state, CONFIG)
    assert state.losses == [91.0, 92.0, 93.0, 94.0, 95.0, 96.0, 97.0, 98.0, 99.0, 5.0]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"window": 9}, "spike.window: .*greater than or equal to 10, got 9"),
        ({"deviations": 0.0}, "spike.deviations: .*greater than 0"),
        ({"stop_after": 0}, "spike.stop_after: .*greater than 0"),
        ({"windows": 20}, "unknown key 'spike.windows', did you mean 'window'"),
    ],
)
def test_settings_out_of_range_are_named(setting, message):
    with pytest.raises(ConfigError, match=message):
        build(SpikeConfig, setting, "spike")
