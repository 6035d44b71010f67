"""How often a training step waits for the device: where its values are not readable for nothing, once, at its end."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hypclip.geometry import precision
from hypclip.objective import Objective
from hypclip.objective.recipe import LOGIT_SCALE, RECIPES
from hypclip.training import parallel
from hypclip.training.optim import adamw
from hypclip.training.step import forward_backward
from tests.support.models import tiny_model
from tests.support.training import make_batch

READS = {Tensor.tolist, Tensor.cpu, Tensor.numpy}
WAITING = {
    torch.ops.aten._local_scalar_dense.default,  # .item(), float(), bool(), `if tensor`
    torch.ops.aten.lift_fresh.default,  # torch.tensor(...), a copy from the host
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
}


class Calls(TorchFunctionMode):
    """Note the methods that read a tensor past the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READS:
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


class Operators(TorchDispatchMode):
    """Note the operators whose result the host would wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in WAITING:
            self.found.append(func.name())
        return func(*args, **(kwargs or {}))


def waits(name: str) -> list[str]:
    """Return what a step of a recipe waits for, up to the update."""
    objective = Objective.from_recipe({"base": name, **({"factor_dim": 8} if name == "phyclip" else {})})
    recipe = objective.recipe
    scales = {scale: value for scale, value in recipe.scales.items() if scale != LOGIT_SCALE}
    model = tiny_model(
        geometry=recipe.geometry, distance=recipe.distance, factor_dim=recipe.factor_dim, other_scales=scales
    )
    model.passes_are_fixed = True
    optimizer = adamw(model, learning_rate=1e-3, weight_decay=0.2, betas=(0.9, 0.98))
    batch = make_batch()
    with Operators() as operators, Calls() as calls:
        forward_backward(model, model, objective, batch)
        parallel.clip_gradients(model, 1.0)
        optimizer.step()
        model.clamp_scalars()
    return operators.found + calls.found


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_on_a_gpu_waits_for_nothing_before_its_numbers_are_read(name, monkeypatch):
    monkeypatch.setattr(precision, "READABLE_DEVICES", frozenset[str]())
    assert waits(name) == []


def test_on_a_cpu_arguments_are_looked_at():
    assert "aten::_local_scalar_dense" in waits("meru")
