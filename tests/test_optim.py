import math

import pytest
import torch
from training_helpers import tiny_model

from hypclip.training.optim import adamw, learning_rate_at, parameter_groups


def names(model: torch.nn.Module, group: dict) -> set[str]:
    chosen = {id(p) for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) in chosen}


def test_norms_biases_and_scalars_do_not_decay():
    model = tiny_model()
    decayed, kept = parameter_groups(model, 0.2)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.2, 0.0)
    scalars = {"log_curv", "log_logit_scale", "log_image_scale", "log_text_scale"}
    for name in names(model, decayed):
        assert name.endswith(("weight", "proj", "projection", "embedding")), name
        assert ".ln_" not in name, name
    expected = {n for n, _ in model.named_parameters() if ".ln_" in n or n.endswith("bias")} | scalars
    assert names(model, kept) == expected | {"image_tower.class_embedding"}
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))


def test_kernels_of_convolutions_decay():
    model = tiny_model()
    assert "image_tower.conv1.weight" in names(model, parameter_groups(model, 0.2)[0])


def test_frozen_parameters_are_left_out():
    model = tiny_model(learn_curv=False)
    model.text_tower.requires_grad_(False)
    optimised = set().union(*(names(model, group) for group in parameter_groups(model, 0.2)))
    assert optimised == {n for n, _ in model.named_parameters() if not n.startswith("text_tower.")} - {"log_curv"}


def test_only_what_decays_moves_without_a_gradient():
    model = tiny_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = adamw(model, learning_rate=0.1, weight_decay=0.5, betas=(0.9, 0.98))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        factor = 1 - 0.1 * 0.5 if p.ndim >= 2 else 1.0
        torch.testing.assert_close(p.detach(), before[name] * factor, rtol=1e-6, atol=0, msg=name)


def test_a_step_is_adams():
    p = torch.nn.Linear(1, 1, bias=False)
    before = p.weight.item()
    optimizer = adamw(p, learning_rate=0.01, weight_decay=0.0, betas=(0.9, 0.98))
    first, second = 3.0, -1.0
    m = v = 0.0
    expected = before
    for step, gradient in enumerate((first, second), start=1):
        p.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        m, v = 0.9 * m + 0.1 * gradient, 0.98 * v + 0.02 * gradient**2
        expected -= 0.01 * (m / (1 - 0.9**step)) / (math.sqrt(v / (1 - 0.98**step)) + 1e-8)
        assert p.weight.item() == pytest.approx(expected, rel=1e-5)


def test_the_learning_rate_warms_up_and_falls_to_zero():
    def at(step: int) -> float:
        return learning_rate_at(step, peak=2.0, warmup_steps=4, steps=12)

    assert [at(step) for step in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert at(4) == 2.0
    assert at(6) == pytest.approx(1 + math.cos(math.pi / 4))
    assert at(8) == pytest.approx(1.0)
    assert at(11) == pytest.approx(1 + math.cos(math.pi * 7 / 8))
    assert at(12) == at(500) == 0.0
    assert all(at(step) > at(step + 1) for step in range(4, 12))


@pytest.mark.parametrize(("step", "expected"), [(0, 3.0), (5, 1.5), (10, 0.0)])
def test_without_warm_up_the_first_step_has_the_peak(step, expected):
    assert learning_rate_at(step, peak=3.0, warmup_steps=0, steps=10) == pytest.approx(expected)


def test_a_run_shorter_than_its_warm_up_stays_in_it():
    assert learning_rate_at(4, peak=1.0, warmup_steps=10, steps=5) == 0.5
    assert learning_rate_at(10, peak=1.0, warmup_steps=10, steps=10) == 1.0
