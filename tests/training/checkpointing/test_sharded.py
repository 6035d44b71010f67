"""A snapshot of sharded weights: every process gathers, the first one keeps."""

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from hypclip import distributed
from hypclip.training import parallel
from hypclip.training.checkpointing.state import TrainState, snapshot
from hypclip.training.ema import AveragedWeights
from hypclip.training.optim import adamw
from tests.hypclip.test_distributed import in_two, join
from tests.support.models import tiny_model


def work(rank: int, port: int, folder: Path) -> None:
    join(rank, port)
    model = tiny_model()
    want = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parallel.shard(model)
    averaged = AveragedWeights(model, 0.9)
    optimizer = adamw(model, learning_rate=0.0, weight_decay=0.0, betas=(0.9, 0.98))
    parallel.separate_groups(optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    gather, found, alive = distributed.full_tensor, [], []

    def noted(tensor: Tensor) -> Tensor:
        full = gather(tensor)
        alive.append(sum(reference() is not None for reference in found))
        if full is not tensor:
            found.append(weakref.ref(full))
        return full

    distributed.full_tensor = noted
    taken = snapshot(model, optimizer, TrainState(), {}, averaged.tensors, keep=rank == 0)
    seen: dict[str, Any] = {"gathered": len(found), "alive": max(alive), "kept": taken is not None}
    if taken is not None:
        seen["same"] = all(torch.equal(taken.weights[name], tensor) for name, tensor in want.items())
        names = [name for name, _ in model.named_parameters()]
        seen["moments"] = all(taken.tensors[f"optimizer.{n}.exp_avg"].shape == want[n].shape for n in names)
        seen["averages"] = all(torch.equal(taken.tensors[f"averaged.{name}"], x) for name, x in want.items())
    torch.save(seen, folder / f"{rank}.pt")
    dist.destroy_process_group()
    parallel.end_process(0)


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> list[dict[str, Any]]:
    return in_two(tmp_path_factory.mktemp("sharded"), work)


@pytest.mark.slow
def test_the_first_process_has_every_tensor_in_full(seen):
    assert all(seen[0][what] for what in ("kept", "same", "moments", "averages"))


def test_the_other_gathers_as_often_and_holds_one_full_tensor_at_a_time(seen):
    assert not seen[1]["kept"]
    assert seen[1]["gathered"] == seen[0]["gathered"]
    assert seen[1]["gathered"] > 20
    assert seen[1]["alive"] <= 1
