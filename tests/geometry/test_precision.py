"""The precision of the towers and of the geometry after them."""

from __future__ import annotations

import pytest
import torch

from hypclip.errors import ConfigError
from hypclip.training.precision import choose, loss_scaler, towers_in

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("wanted", ["fp32", "bf16", "fp16"])
def test_what_is_asked_for_is_taken(wanted):
    assert choose(wanted, CPU) == wanted
    assert choose(wanted, CUDA) == wanted


def test_fp16_elsewhere_is_refused():
    with pytest.raises(ConfigError, match=r"train\.precision fp16 needs CUDA, this run is on mps: use bf16 or fp32"):
        choose("fp16", torch.device("mps"))


@pytest.mark.parametrize(
    ("avx", "amx", "chosen"), [(True, False, "bf16"), (False, True, "bf16"), (False, False, "fp32")]
)
def test_auto_is_bf16_where_the_cpu_has_instructions_for_it(monkeypatch, avx, amx, chosen):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert choose("auto", CPU) == chosen


@pytest.mark.parametrize(("native", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_where_the_gpu_does_not_emulate_it(monkeypatch, native, chosen):
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert choose("auto", CUDA) == chosen


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_towers_compute_in_it_and_weights_stay_as_they_are(precision, dtype):
    layer = torch.nn.Linear(3, 2)
    with towers_in(precision, CPU):
        assert layer(torch.ones(1, 3)).dtype == dtype
    assert layer(torch.ones(1, 3)).dtype == torch.float32
    assert layer.weight.dtype == torch.float32


def weight_and_optimizer() -> tuple[torch.nn.Parameter, torch.optim.SGD]:
    weight = torch.nn.Parameter(torch.ones(1))
    return weight, torch.optim.SGD([weight], lr=1.0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_of_wide_formats_are_not_scaled(precision):
    scaler = loss_scaler(precision, CPU)
    assert not scaler.is_enabled()
    assert scaler.scale(torch.tensor(3.0)).item() == 3.0
    assert scaler.state_dict() == {}


def test_gradients_of_fp16_are_scaled_and_an_overflow_is_passed_over():
    scaler = loss_scaler("fp16", CPU)
    weight, optimizer = weight_and_optimizer()
    scaler.scale((weight * 0.25).sum()).backward()
    assert weight.grad.item() == 0.25 * scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    assert weight.item() == 0.75
    before = scaler.get_scale()
    weight.grad = torch.tensor([float("inf")])
    scaler.step(optimizer)
    scaler.update()
    assert weight.item() == 0.75
    assert scaler.get_scale() == before / 2
    again = loss_scaler("fp16", CPU)
    again.load_state_dict(scaler.state_dict())
    assert again.get_scale() == before / 2
