"""Two real processes over gloo against one with the whole batch."""

import contextlib
import faulthandler
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hypclip import distributed
from hypclip.data.batch import Batch
from hypclip.errors import TrainingError
from hypclip.model import HypCLIP
from hypclip.objective import Loss, Objective
from hypclip.training.step import forward_backward
from tests.support.models import tiny_model
from tests.support.ports import free_port
from tests.support.training import HIERARCHY, SCALES, below_nothing, make_batch, stand_in, with_taxonomy

pytestmark = pytest.mark.slow

PROCESSES = 2
CASES: dict[str, tuple[Any, Batch]] = {
    "hycoclip": ({"base": "hycoclip", "skip_duplicates": True}, make_batch()),
    "uncha": ({"base": "uncha", "max_boxes": 3}, make_batch((2, 0, 3, 1, 1, 2))),
    "hierarchy": (HIERARCHY, with_taxonomy(make_batch())),
    "hierarchy, boxes": ({**HIERARCHY, "max_boxes": 3}, with_taxonomy(make_batch((2, 0, 3, 1, 1, 2)))),
    "hierarchy, one process without is-a": (HIERARCHY, below_nothing(with_taxonomy(make_batch()), 3)),
    "hierarchy, nothing is-a": (HIERARCHY, below_nothing(with_taxonomy(make_batch()), 0, "concept")),
    "uncha, one process without boxes": ({"base": "uncha", "max_boxes": 3}, make_batch((2, 1, 3, 0, 0, 0))),
}
"""Six samples each, of which two processes have three each; of boxes they have different numbers."""
STEPS = [
    ("hycoclip", 1), ("hycoclip", 2), ("uncha", 1), ("uncha", 2), ("uncha, one process without boxes", 1),
    ("hierarchy", 1), ("hierarchy", 2), ("hierarchy, boxes", 1), ("hierarchy, boxes", 3),
    ("hierarchy, one process without is-a", 1), ("hierarchy, one process without is-a", 3),
    ("hierarchy, nothing is-a", 1),
]  # fmt: skip


def losses_and_gradients(
    model: HypCLIP, wrapped: nn.Module, case: str, rank: int, processes: int, parts: int
) -> dict[str, Tensor]:
    """Do what a training step does up to the update."""
    recipe, batch = CASES[case]
    model.zero_grad()
    share = stand_in(batch.split(processes)[rank])
    loss, seen = forward_backward(wrapped, model, Objective.from_recipe(recipe), share, parts)
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    weight = seen.known["box_weight"]
    assert weight is None or not weight.requires_grad
    found |= {"loss": loss.loss, **loss.parts}
    return found | {f"seen {role}": x for role, x in (*seen.features.items(), *seen.known["content"].items())}


def alone(case: str) -> dict[str, Tensor]:
    """What one process with the whole batch finds in one pass."""
    model = tiny_model(other_scales=SCALES if "uncha" in case else {})
    return losses_and_gradients(model, model, case, 0, 1, 1)


def join(rank: int, port: int) -> None:
    faulthandler.enable()  # a process that aborts says where
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    wait = timedelta(minutes=3)  # a busy machine may start one process long after the other
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=PROCESSES, timeout=wait)


def work(rank: int, port: int, folder: Path) -> None:
    """Be one of the two processes; leave what it saw in a file."""
    join(rank, port)
    seen: dict[str, Any] = {"counts": (distributed.rank(), distributed.world_size())}
    for case, parts in STEPS:
        model = tiny_model(other_scales=SCALES if "uncha" in case else {})
        wrapped = DistributedDataParallel(model)
        seen[f"{case} in {parts}"] = losses_and_gradients(model, wrapped, case, rank, PROCESSES, parts)

    rows = torch.arange(4.0).view(2, 2) + 10 * rank
    seen["rows"] = distributed.gather_rows(rows.T)  # not contiguous
    seen["plain"] = distributed.gather_plain({"rank": rank, "positions": [1, "a"]})
    seen["any"] = [distributed.any_process(flag, torch.device("cpu")) for flag in (False, rank == 1, True)]
    for name, gather in (
        ("plain", lambda: distributed.gather_rows(torch.zeros(3 + rank, 2))),
        ("gradient", lambda: distributed.gather_rows_with_gradient([torch.zeros(3 + rank, 2), torch.ones(3 + rank)])),
    ):
        try:
            gather()
        except TrainingError as error:
            seen[f"uneven {name}"] = str(error)
    for parts in (1, 2):
        share = make_batch((1, 2, 3, 1, 1, 1)).split(2 + rank)[0]
        try:
            forward_backward(model, model, Objective.from_recipe(CASES["uncha"][0]), share, parts)
        except TrainingError as error:
            seen[f"uneven step in {parts}"] = str(error)
    leaf = (torch.ones(2, 1) * (rank + 1)).requires_grad_()
    cube = (torch.arange(4.0, dtype=torch.float64).view(2, 1, 2) + 10 * rank).mT.requires_grad_()  # not contiguous
    ids = torch.tensor([rank, 2**62 + rank])
    gathered, cubes, every_id = distributed.gather_rows_with_gradient([leaf, cube, ids])
    weights = torch.tensor([[1.0], [2.0], [3.0], [4.0]]) * 10**rank
    ((gathered * weights).sum() + (cubes * weights.unsqueeze(-1)).sum()).backward()
    seen["gathered"], seen["gradient"] = gathered.detach(), leaf.grad
    seen["cubes"], seen["gradient of the cube"] = cubes.detach(), cube.grad
    seen["ids"] = every_id
    torch.save(seen, folder / f"{rank}.pt")
    dist.destroy_process_group()


def in_two(folder: Path, function: Callable[[int, int, Path], None]) -> list[dict[str, Any]]:
    """Run a function in two processes; return what they saw."""
    torch.multiprocessing.spawn(function, (free_port(), folder), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> list[dict[str, Any]]:
    """What the two processes saw."""
    return in_two(tmp_path_factory.mktemp("distributed"), work)


def test_processes_know_their_number(seen):
    assert [process["counts"] for process in seen] == [(0, 2), (1, 2)]


@pytest.mark.parametrize(("case", "parts"), STEPS)
def test_two_processes_have_the_loss_of_one_with_the_whole_batch(seen, case, parts):
    whole = alone(case)
    names = [name for name in whole if "/" in name]
    assert len(names) == (8 if case == "hycoclip" else 12)
    for process in seen:
        for name in ("loss", *names):
            got = process[f"{case} in {parts}"][name]
            torch.testing.assert_close(got, whole[name].view(()), rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(("case", "parts"), STEPS)
def test_two_processes_have_the_gradients_of_one_with_the_whole_batch(seen, case, parts):
    """Those of curvature and scales too, which every process has whole."""
    whole = alone(case)
    for name, _ in tiny_model(other_scales=SCALES if "uncha" in case else {}).named_parameters():
        assert whole[name].abs().max() > 0, name
        for process in seen:
            difference = (process[f"{case} in {parts}"][name] - whole[name]).norm()
            assert difference <= 1e-5 * whole[name].norm(), name


@pytest.mark.parametrize(("case", "parts"), STEPS)
def test_every_process_sees_the_features_and_contents_of_all(seen, case, parts):
    """In the order of processes: of those the log tells the state of a run."""
    _, batch = CASES[case]
    whole = alone(case)
    for name in (name for name in whole if name.startswith("seen ")):
        for process in seen:
            got = process[f"{case} in {parts}"][name]
            if "box" in name and batch.box_weight is not None and got.is_floating_point():
                got = got * (batch.box_weight > 0).unsqueeze(-1)  # the row that stands in is not at the origin
            torch.testing.assert_close(got, whole[name], rtol=1e-5, atol=1e-6)


def test_rows_come_in_the_order_of_processes(seen):
    expected = torch.tensor([[0.0, 2.0], [1.0, 3.0], [10.0, 12.0], [11.0, 13.0]])
    for process in seen:
        assert torch.equal(process["rows"], expected)
        assert torch.equal(process["gathered"], torch.tensor([[1.0], [1.0], [2.0], [2.0]]))
        cubes = torch.tensor([[[0.0], [1.0]], [[2.0], [3.0]], [[10.0], [11.0]], [[12.0], [13.0]]], dtype=torch.float64)
        assert torch.equal(process["cubes"], cubes)
        assert process["ids"].tolist() == [0, 2**62, 1, 2**62 + 1]


def test_gradients_of_all_processes_flow_back_to_the_owner(seen):
    """Process 0 weighs the rows by 1, 2, 3, 4, process 1 by ten times that."""
    assert seen[0]["gradient"].flatten().tolist() == [11.0, 22.0]
    assert seen[1]["gradient"].flatten().tolist() == [33.0, 44.0]
    assert seen[0]["gradient of the cube"].tolist() == [[[11.0], [11.0]], [[22.0], [22.0]]]
    assert seen[1]["gradient of the cube"].tolist() == [[[33.0], [33.0]], [[44.0], [44.0]]]


def test_plain_data_and_flags_are_shared(seen):
    for process in seen:
        assert process["plain"] == [{"rank": 0, "positions": [1, "a"]}, {"rank": 1, "positions": [1, "a"]}]
        assert process["any"] == [False, True, True]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("plain", [3, 4]), ("gradient", [3, 4]), ("step in 1", [3, 2]), ("step in 2", [3, 2])],
)
def test_uneven_batches_are_refused_by_every_process(seen, name, sizes):
    for process in seen:
        assert process[f"uneven {name}"] == f"processes hold batches of different sizes: {sizes}"


# Trouble in one process is trouble in all -----------------------------------------------------------------------------


def stumble(rank: int, port: int, folder: Path) -> None:
    """Do what once went wrong in processes only; leave what came of it in a file."""
    join(rank, port)
    seen: dict[str, Any] = {"losses": []}
    pair = {"query": "image", "key": "text", "scale": "mine"}
    objective = Objective.from_recipe({"geometry": "lorentz", "scales": {"mine": 10.0}, "contrast": [pair]})
    wrapped = DistributedDataParallel(model := tiny_model(other_scales={"mine": 10.0}))
    share = make_batch().split(PROCESSES)[rank]
    images, content = ({r: x for r, x in part.items() if "box" not in r} for part in (share.images, share.content))
    pairs = Batch(images, share.texts.part({"text": slice(None)}), content)
    with contextlib.suppress(RuntimeError):  # DDP's, about parameters without a gradient
        for _ in range(2):
            seen["losses"].append(forward_backward(wrapped, model, objective, pairs)[0].loss.item())

    edge = {"general": "box_text", "specific": "box_image", "penalty": "angle"}
    objective = Objective.from_recipe({"base": "meru", "edges": [edge]})
    wrapped = DistributedDataParallel(model := tiny_model())
    own: list[bool] = []
    evaluate = Objective.__call__

    def note(self: Objective, *args: Any, **others: Any) -> Loss:
        loss = evaluate(self, *args, **others)
        own.append(bool(loss.loss.isfinite()))
        return loss

    for name in ("finite", "not finite"):
        share = make_batch().split(PROCESSES)[rank]
        if name == "not finite" and rank == 1:
            share.images["box_image"][1] = torch.nan
        model.zero_grad()
        with mock.patch.object(Objective, "__call__", note):
            loss, _ = forward_backward(wrapped, model, objective, share)
        gradients = all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        seen[name] = {"own": own[-1], "all": bool(loss.loss.isfinite()), "gradients": gradients}
    torch.save(seen, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def stumbled(tmp_path_factory) -> list[dict[str, Any]]:
    return in_two(tmp_path_factory.mktemp("stumbled"), stumble)


def test_a_recipe_need_not_use_every_scale_of_the_model(stumbled):
    """A model always has a logit_scale; a recipe may name its own scale otherwise."""
    for process in stumbled:
        assert len(process["losses"]) == 2
        assert process["losses"][0] == pytest.approx(process["losses"][1])


def test_a_loss_that_is_not_finite_in_one_process_is_so_in_all(stumbled):
    """No term of the first process touches the crop that is not a number. Were it to go on alone, what it says to the
    other would be taken for an answer to what the other asks next."""
    first, second = stumbled
    assert first["finite"] == second["finite"] == {"own": True, "all": True, "gradients": True}
    assert first["not finite"] == {"own": True, "all": False, "gradients": False}
    assert second["not finite"] == {"own": False, "all": False, "gradients": False}


# One process ----------------------------------------------------------------------------------------------------------


def test_alone_nothing_is_gathered():
    rows = torch.randn(3, 2, requires_grad=True)
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.gather_rows(rows) is rows
    assert distributed.gather_rows_with_gradient([rows, rows])[1] is rows
    assert distributed.gather_plain({"a": 1}) == [{"a": 1}]
    assert distributed.any_process(True, torch.device("cpu"))
    assert not distributed.any_process(False, torch.device("cpu"))
