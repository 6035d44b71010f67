"""How fast a run goes, by a clock that the test moves, and what a model has to compute, by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from hypclip.data.batch import Batch
from hypclip.training.monitoring import throughput
from hypclip.training.monitoring.throughput import Throughput, model_flops
from hypclip.training.tuning import LoraSettings, TuneConfig, apply
from tests.support.models import TOWERS, tiny_model
from tests.support.training import make_batch

CPU = torch.device("cpu")


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now

    def after(self, seconds: float) -> str:
        """Let time pass, as a function that is waited for does."""
        self.now += seconds
        return "batch"


@pytest.fixture
def clock(monkeypatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


# Figures --------------------------------------------------------------------------------------------------------------


def test_a_lap_has_the_figures_since_the_last_one(clock):
    meter = Throughput(CPU, 5e9)
    assert meter.waiting(lambda: clock.after(1.5)) == "batch"
    meter.done(32)
    clock.after(2.5)
    meter.done(32)
    lap = meter.lap()
    assert lap.keys() == {"samples_per_s", "data_wait_s", "model_flop_per_s", "memory_bytes"}
    assert (lap["samples_per_s"], lap["data_wait_s"], lap["model_flop_per_s"]) == (16.0, 1.5, 16.0 * 5e9)
    assert 1e7 < lap["memory_bytes"] < 1e12
    clock.after(2.0)
    meter.done(10)
    again = meter.lap()
    assert (again["samples_per_s"], again["data_wait_s"]) == (5.0, 0.0)


def test_waiting_that_fails_counts_too(clock):
    meter = Throughput(CPU)

    def fail() -> None:
        clock.after(3.0)
        raise OSError("no data")

    with pytest.raises(OSError, match="no data"):
        meter.waiting(fail)
    assert meter.lap()["data_wait_s"] == 3.0


@pytest.mark.parametrize("fails", [False, True])
def test_a_pause_is_left_out(clock, fails):
    meter = Throughput(CPU)
    meter.done(8)
    clock.after(2.0)
    try:
        with meter.paused():
            clock.after(100.0)
            if fails:
                raise KeyError("an evaluation that fails")
    except KeyError:
        assert fails
    clock.after(2.0)
    assert meter.lap()["samples_per_s"] == 2.0


def test_unknown_work_is_not_a_number_and_the_rate_is_one(clock):
    meter = Throughput(CPU)
    meter.done(8)
    clock.after(2.0)
    lap = meter.lap()
    assert math.isnan(lap["model_flop_per_s"])
    assert lap["samples_per_s"] == 4.0


def test_what_was_before_the_start_does_not_count(clock):
    meter = Throughput(CPU)
    meter.waiting(lambda: clock.after(30.0))
    assert not meter.is_started
    meter.start(2.0)
    assert meter.is_started
    clock.after(2.0)
    meter.done(8)
    lap = meter.lap()
    assert (lap["samples_per_s"], lap["data_wait_s"], lap["model_flop_per_s"]) == (4.0, 0.0, 8.0)


# Work -----------------------------------------------------------------------------------------------------------------


def transformer(tokens: int, width: int, layers: int) -> int:
    """Count two operations a multiplication: query, key, value and output, the MLP of four widths, and attention."""
    linear = 2 * tokens * width * (3 * width + width + 4 * width + 4 * width)
    attention = 2 * 2 * tokens * tokens * width
    return layers * (linear + attention)


def image_flops() -> int:
    vision = TOWERS["vision_cfg"]
    width, patches = vision["width"], (vision["image_size"] // vision["patch_size"]) ** 2
    patching = 2 * patches * 3 * vision["patch_size"] ** 2 * width
    return patching + transformer(patches + 1, width, vision["layers"]) + 2 * width * TOWERS["embed_dim"]


def text_flops(tokens: int) -> int:
    text = TOWERS["text_cfg"]
    return transformer(tokens, text["width"], text["layers"]) + 2 * text["width"] * TOWERS["embed_dim"]


def by_hand(batch: Batch) -> float:
    pictures = sum(len(pixels) for pixels in batch.images.values())
    texts = sum(len(tokens) * text_flops(tokens.shape[1]) for tokens in batch.texts.passes)
    return 3 * (pictures * image_flops() + texts) / batch.size


@pytest.mark.parametrize("batch", [make_batch(), make_batch((2, 0, 3, 1, 1, 2))], ids=["a box each", "packed boxes"])
def test_work_is_that_of_the_layers_counted_by_hand(batch):
    assert model_flops(tiny_model(), batch) == pytest.approx(by_hand(batch), rel=0.05)


def test_work_of_larger_pictures_is_more():
    """Four times the patches, of which the attention takes sixteen times as much."""
    tall = {**TOWERS, "vision_cfg": {**TOWERS["vision_cfg"], "image_size": 64}}
    model, batch = tiny_model(towers=tall), make_batch(size=64)
    vision = TOWERS["vision_cfg"]
    more = 2 * 12 * 3 * vision["patch_size"] ** 2 * vision["width"]
    more += transformer(17, vision["width"], 2) - transformer(5, vision["width"], 2)
    pictures = sum(len(pixels) for pixels in batch.images.values())
    assert model_flops(model, batch) == pytest.approx(by_hand(batch) + 3 * more * pictures / batch.size, rel=0.05)


def test_what_is_computed_again_to_save_memory_is_not_counted():
    plain, saving, batch = tiny_model(), tiny_model(), make_batch()
    saving.set_grad_checkpointing()
    saving.train()
    assert model_flops(saving, batch) == model_flops(plain, batch)


def test_adapters_are_counted_with_the_towers():
    """Each adds the product of its two matrices to a weight, at least once a pass: a layer may ask for it again."""
    model, batch, rank, width = tiny_model(), make_batch(), 4, 32
    apply(model, TuneConfig(lora=LoraSettings(rank=rank, image_blocks=2, text_blocks=2)))
    product = 2 * 2 * rank * width * (3 * width + width)  # in two blocks
    once = 3 * 4 * product / batch.size
    assert by_hand(batch) + once <= 1.02 * model_flops(model, batch) <= 1.05 * (by_hand(batch) + 3 * once)


class NeedsNumbers(nn.Module):
    """A tower that looks at its pixels, which the meta device has not."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1)[:, :16] * pixels.sum().item()


def test_a_tower_that_needs_numbers_has_no_count():
    model = tiny_model()
    model.image_tower = NeedsNumbers()
    assert math.isnan(model_flops(model, make_batch()))


@pytest.mark.parametrize("adapted", [False, True])
def test_counting_leaves_everything_as_it_was(adapted):
    model, batch = tiny_model(), make_batch()
    if adapted:
        apply(model, TuneConfig(lora=LoraSettings(rank=2, image_blocks=1, text_blocks=1)))
    model.train()
    model.text_tower.eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    pixels, generator = copy.deepcopy(batch.images), torch.get_rng_state()
    assert model_flops(model, batch) > 0
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert {tensor.device for tensor in model.state_dict().values()} == {CPU}
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(batch.images[role], x) for role, x in pixels.items())
    assert all(parameter.grad is None for parameter in model.parameters())
