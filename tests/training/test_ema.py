"""Averaged weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hypclip.training.ema import AveragedWeights
from tests.support.models import tiny_model


def model_with_counter() -> nn.Module:
    """Batch norm has floating-point and integer statistics."""
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()


def change(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype))
            else:
                tensor.add_(seed + 3)


def copied(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("decay", [0.05, 0.5, 0.999])
def test_it_is_the_recursion(decay):
    model = model_with_counter()
    averaged = AveragedWeights(model, decay)
    expected = copied(model)
    for step in range(40):
        change(model, step)
        averaged.update(model, step)
        kept = min(decay, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            floating = tensor.is_floating_point()
            expected[name] = kept * expected[name] + (1 - kept) * tensor if floating else tensor.clone()
    for name, tensor in expected.items():
        torch.testing.assert_close(averaged.tensors[name], tensor, rtol=1e-12, atol=1e-12)


def test_the_first_weights_are_soon_forgotten():
    """Of the first weights a tenth stays after the first step, 1/10 · 2/11 after the second."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    averaged = AveragedWeights(model, 0.9999)
    nn.init.zeros_(model.weight)
    for step, left in enumerate((1 / 10, 1 / 10 * 2 / 11, 1 / 10 * 2 / 11 * 3 / 12)):
        averaged.update(model, step)
        assert averaged.tensors["weight"].item() == pytest.approx(left, rel=1e-5)
    averaged.tensors["weight"].fill_(1.0)
    averaged.update(model, 1_000_000)
    assert averaged.tensors["weight"].item() == pytest.approx(0.9999, rel=1e-6)


def test_integers_follow_the_model():
    model = model_with_counter()
    averaged = AveragedWeights(model, 0.9)
    change(model, 4)
    averaged.update(model, 0)
    assert averaged.tensors["1.num_batches_tracked"].item() == 7


def test_it_is_a_copy():
    model = tiny_model()
    averaged = AveragedWeights(model, 0.9)
    before = {name: tensor.clone() for name, tensor in averaged.tensors.items()}
    change(model, 1)
    assert all(torch.equal(averaged.tensors[name], tensor) for name, tensor in before.items())
    assert not any(tensor.requires_grad for tensor in averaged.tensors.values())


@pytest.mark.parametrize("fails", [False, True])
def test_a_model_has_the_averages_for_a_block_and_its_own_weights_after(fails):
    model = model_with_counter()
    averaged = AveragedWeights(model, 0.9)
    change(model, 1)
    averaged.update(model, 3)
    change(model, 2)
    own, means = copied(model), {name: tensor.clone() for name, tensor in averaged.tensors.items()}
    parameters = [id(parameter) for parameter in model.parameters()]
    try:
        with averaged.swapped_into(model):
            assert all(torch.equal(tensor, means[name]) for name, tensor in model.state_dict().items())
            if fails:
                raise KeyError("an evaluation that fails")
    except KeyError:
        assert fails
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, means[name]) for name, tensor in averaged.tensors.items())
    assert [id(parameter) for parameter in model.parameters()] == parameters
