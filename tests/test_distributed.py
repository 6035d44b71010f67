"""Two real processes over gloo against one with the whole batch."""

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from training_helpers import ROLES, tiny_model

from hypclip.errors import TrainingError
from hypclip.model import HypCLIP
from hypclip.objective import Objective
from hypclip.roles import MISSING
from hypclip.training import distributed

BATCH, PROCESSES = 6, 2


def batch() -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Six samples: two share a caption, one has no box, one has its caption for a phrase."""
    generator = torch.Generator().manual_seed(5)
    images = {r: torch.randn(BATCH, 3, 32, 32, generator=generator) for r in ("image", "box_image")}
    texts = {r: torch.randint(1, 49406, (BATCH, n), generator=generator) for r, n in (("text", 9), ("box_text", 5))}
    content = {role: torch.arange(BATCH) + 10 * place for place, role in enumerate(ROLES)}
    content["text"][4] = content["text"][0]
    content["box_text"][5] = content["text"][5]
    for role in ("box_image", "box_text"):
        content[role][2] = MISSING
    return images, texts, content


def share(tensors: dict[str, Tensor], rank: int, size: int) -> dict[str, Tensor]:
    return {role: x[rank * size : (rank + 1) * size] for role, x in tensors.items()}


def losses_and_gradients(model: HypCLIP, forward: Any, rank: int, processes: int) -> dict[str, Tensor]:
    """Do what a training step does up to the update."""
    images, texts, content = (share(part, rank, BATCH // processes) for part in batch())
    output = forward(images, texts)
    features = {role: distributed.gather_rows_with_gradient(x) for role, x in output.features.items()}
    size = BATCH // processes
    loss = Objective.from_recipe({"base": "hycoclip", "skip_duplicates": True})(
        features,
        curv=output.curv,
        logit_scale=output.logit_scale,
        content={role: distributed.gather_rows(ids) for role, ids in content.items()},
        local=slice(rank * size, (rank + 1) * size),
    )
    loss.loss.backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    own = {"loss": loss.loss.detach(), **loss.parts}
    return found | {name: distributed.gather_rows(value.view(1)).mean() for name, value in own.items()}


def work(rank: int, port: int, folder: Path) -> None:
    """Be one of the two processes; leave what it saw in a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=PROCESSES)
    seen: dict[str, Any] = {"counts": (distributed.rank(), distributed.world_size())}
    model = tiny_model()
    seen["step"] = losses_and_gradients(model, DistributedDataParallel(model), rank, PROCESSES)

    rows = torch.arange(4.0).view(2, 2) + 10 * rank
    seen["rows"] = distributed.gather_rows(rows.T)  # not contiguous
    seen["plain"] = distributed.gather_plain({"rank": rank, "positions": [1, "a"]})
    seen["any"] = [distributed.any_process(flag, torch.device("cpu")) for flag in (False, rank == 1, True)]
    for name, gather in (("plain", distributed.gather_rows), ("gradient", distributed.gather_rows_with_gradient)):
        try:
            gather(torch.zeros(3 + rank, 2))
        except TrainingError as error:
            seen[f"uneven {name}"] = str(error)
    leaf = (torch.ones(2, 1) * (rank + 1)).requires_grad_()
    gathered = distributed.gather_rows_with_gradient(leaf)
    (gathered * torch.tensor([[1.0], [2.0], [3.0], [4.0]]) * 10**rank).sum().backward()
    seen["gathered"], seen["gradient"] = gathered.detach(), leaf.grad
    torch.save(seen, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> list[dict[str, Any]]:
    """What the two processes saw."""
    folder = tmp_path_factory.mktemp("distributed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(work, (port, folder), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


def test_processes_know_their_number(seen):
    assert [process["counts"] for process in seen] == [(0, 2), (1, 2)]


def test_two_processes_have_the_loss_of_one_with_the_whole_batch(seen):
    model = tiny_model()
    whole = losses_and_gradients(model, model, 0, 1)
    parts = [name for name in whole if "/" in name]
    assert len(parts) == 8
    for process in seen:
        for name in ("loss", *parts):
            torch.testing.assert_close(process["step"][name], whole[name].view(()), rtol=1e-5, atol=1e-6, msg=name)


def test_two_processes_have_the_gradients_of_one_with_the_whole_batch(seen):
    """Those of curvature and scales too, which every process has whole."""
    model = tiny_model()
    whole = losses_and_gradients(model, model, 0, 1)
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0, name
        for process in seen:
            difference = (process["step"][name] - whole[name]).norm()
            assert difference <= 1e-5 * whole[name].norm(), name


def test_rows_come_in_the_order_of_processes(seen):
    expected = torch.tensor([[0.0, 2.0], [1.0, 3.0], [10.0, 12.0], [11.0, 13.0]])
    for process in seen:
        assert torch.equal(process["rows"], expected)
        assert torch.equal(process["gathered"], torch.tensor([[1.0], [1.0], [2.0], [2.0]]))


def test_gradients_of_all_processes_flow_back_to_the_owner(seen):
    """Process 0 weighs the rows by 1, 2, 3, 4, process 1 by ten times that."""
    assert seen[0]["gradient"].flatten().tolist() == [11.0, 22.0]
    assert seen[1]["gradient"].flatten().tolist() == [33.0, 44.0]


def test_plain_data_and_flags_are_shared(seen):
    for process in seen:
        assert process["plain"] == [{"rank": 0, "positions": [1, "a"]}, {"rank": 1, "positions": [1, "a"]}]
        assert process["any"] == [False, True, True]


@pytest.mark.parametrize("name", ["uneven plain", "uneven gradient"])
def test_uneven_batches_are_refused_by_every_process(seen, name):
    for process in seen:
        assert process[name] == "processes hold batches of different sizes: [3, 4]"


def test_alone_nothing_is_gathered():
    rows = torch.randn(3, 2, requires_grad=True)
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.gather_rows(rows) is rows
    assert distributed.gather_rows_with_gradient(rows) is rows
    assert distributed.gather_plain({"a": 1}) == [{"a": 1}]
    assert distributed.any_process(True, torch.device("cpu"))
    assert not distributed.any_process(False, torch.device("cpu"))
