"""Twenty steps of two processes over gloo, whole or in parts, are those of one process: every recipe."""

import functools
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from hypclip.data.batch import Batch
from hypclip.model import HypCLIP
from hypclip.objective import Objective
from hypclip.objective.recipe import LOGIT_SCALE, RECIPES
from hypclip.towers.passes import TextPasses
from hypclip.towers.tokens import TokenRows
from hypclip.training import parallel
from hypclip.training.optim import adamw
from hypclip.training.step import forward_backward
from tests.hypclip.test_distributed import PROCESSES, in_two, join
from tests.support.models import tiny_model
from tests.support.training import make_batch, passes_of, stand_in, tokens_of

pytestmark = pytest.mark.slow

STEPS = 10
WAYS = [(way, parts) for way in ("ddp", "ddp, texts by length", "fsdp") for parts in (1, 2)]


def objective_of(name: str) -> Objective:
    changes = {"max_boxes": 2} if name == "uncha" else {}
    return Objective.from_recipe({"base": name, **changes, **({"factor_dim": 8} if name == "phyclip" else {})})


def model_of(objective: Objective) -> HypCLIP:
    recipe = objective.recipe
    scales = {name: value for name, value in recipe.scales.items() if name != LOGIT_SCALE}
    return tiny_model(
        geometry=recipe.geometry, distance=recipe.distance, factor_dim=recipe.factor_dim, other_scales=scales
    )


def batch_of(objective: Objective, step: int) -> Batch:
    several = objective.recipe.max_boxes > 1
    whole = make_batch((2, 0, 1, 1, 1, 2) if several else None, max_boxes=2, seed=step)
    roles = objective.recipe.roles
    images, texts, content = (
        {role: x for role, x in part.items() if role in roles}
        for part in (whole.images, tokens_of(whole.texts), whole.content)
    )
    generator = torch.Generator().manual_seed(step)
    for role, tokens in texts.items():
        lengths = torch.randint(2, tokens.shape[1] + 1, (len(tokens), 1), generator=generator)
        texts[role] = tokens * (torch.arange(tokens.shape[1]) < lengths)
    return Batch(images, passes_of(texts), content, whole.box_weight, whole.box_rows)


def by_length(batch: Batch) -> Batch:
    """Read the texts in as many passes as their lengths ask for."""
    rows = {
        role: [row[: max(1, int((row != 0).sum()))] for row in tokens]
        for role, tokens in tokens_of(batch.texts).items()
    }
    joined = {role: TokenRows(torch.cat(texts), [len(text) for text in texts]) for role, texts in rows.items()}
    return replace(batch, texts=TextPasses.plan(joined, 0, 1))


@functools.cache
def alone(name: str) -> list[float]:
    return curve(name, "ddp", 1, 0, 1)


def curve(name: str, way: str, parts: int, rank: int, processes: int) -> list[float]:
    """Train, and return the loss of the whole batch at every step."""
    objective = objective_of(name)
    model = model_of(objective)
    if way == "fsdp":
        parallel.shard(model)
        wrapped = model
    else:
        wrapped = parallel.wrap(model, torch.device("cpu"), parts)
    optimizer = adamw(model, learning_rate=1e-3, weight_decay=0.2, betas=(0.9, 0.98))
    parallel.separate_groups(optimizer)
    losses, calls = [], []
    model.text_tower.register_forward_hook(lambda *_: calls.append(step))
    for step in range(STEPS):
        share = stand_in(batch_of(objective, step).split(processes)[rank])
        share = by_length(share) if way.endswith("length") else share
        optimizer.zero_grad()
        loss, _ = forward_backward(wrapped, model, objective, share, parts)
        parallel.clip_gradients(model, 1.0)
        optimizer.step()
        model.clamp_scalars()
        losses.append(loss.loss.item())
    assert (len(set(Counter(calls).values())) > 1) == way.endswith("length")
    return losses


def work(rank: int, port: int, folder: Path) -> None:
    join(rank, port)
    seen: dict[Any, Any] = {
        (name, way, parts): curve(name, way, parts, rank, PROCESSES) for name in RECIPES for way, parts in WAYS
    }
    torch.save(seen, folder / f"{rank}.pt")
    dist.destroy_process_group()
    parallel.end_process(0)


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> list[dict[Any, Any]]:
    return in_two(tmp_path_factory.mktemp("parallel"), work)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(("way", "parts"), WAYS)
def test_two_processes_have_the_losses_of_one(seen, name, way, parts):
    assert alone(name)[-1] < alone(name)[0]
    for process in seen:
        assert process[name, way, parts] == pytest.approx(alone(name), rel=1e-5)


ENDS = """
import atexit
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from hypclip.training import parallel


atexit.register(print, "torn down")
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
{mesh}
dist.destroy_process_group()
print("left")
parallel.end_process(3)
"""


@pytest.mark.parametrize(
    ("mesh", "printed"), [("kept = init_device_mesh('cpu', (1,))", "left\n"), ("", "left\ntorn down\n")]
)
def test_a_process_with_a_mesh_of_gloo_ends_without_being_torn_down(mesh, printed):
    done = subprocess.run([sys.executable, "-c", ENDS.format(mesh=mesh)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, printed), done.stderr
