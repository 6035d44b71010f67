import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from training_helpers import TOWERS, tiny_model

from hypclip import checkpoint
from hypclip.errors import CheckpointError
from hypclip.model import HypCLIP
from hypclip.training.optim import adamw
from hypclip.training.state import (
    TrainState,
    checkpoint_path,
    latest_checkpoint,
    load_state,
    prune_checkpoints,
    save_state,
)

STREAMS = [{"positions": {"0": [1, 7]}, "turn": 0, "read": 27, "skipped": {"no caption": 2}}, {"positions": {}}]


def optimizer_of(model: HypCLIP) -> torch.optim.AdamW:
    return adamw(model, learning_rate=0.01, weight_decay=0.2, betas=(0.9, 0.98))


def random_step(model: HypCLIP, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=generator))
    optimizer.step()


def trained(channels_last: bool = False) -> tuple[HypCLIP, torch.optim.AdamW]:
    model = tiny_model()
    if channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer = optimizer_of(model)
    for seed in range(3):
        random_step(model, optimizer, seed)
    return model, optimizer


def state(processes: int = 2) -> TrainState:
    generators = [torch.Generator().manual_seed(rank).get_state() for rank in range(processes)]
    return TrainState(12, "bf16", STREAMS[:processes], generators)


# Saving and loading ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels_last", [False, True])
def test_training_goes_on_bit_for_bit(tmp_path, channels_last):
    """In either memory order: the pretraining script keeps its kernels channels last."""
    model, optimizer = trained(channels_last)
    checkpoint.save(model, tmp_path)
    save_state(tmp_path, state(), optimizer)
    again = tiny_model(seed=9)
    checkpoint.load_weights(again, tmp_path)
    if channels_last:
        again.to(memory_format=torch.channels_last)
    resumed = optimizer_of(again)
    load_state(tmp_path, resumed, 2)
    for seed in range(3, 6):
        random_step(model, optimizer, seed)
        random_step(again, resumed, seed)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_counters_positions_and_generators_come_back(tmp_path):
    _, optimizer = trained()
    written = state()
    save_state(tmp_path, written, optimizer)
    read = load_state(tmp_path, optimizer_of(tiny_model()), 2)
    assert (read.step, read.precision, read.streams) == (12, "bf16", STREAMS)
    assert len(read.generators) == 2
    for got, want in zip(read.generators, written.generators, strict=True):
        assert torch.equal(got, want)
    drawn = [torch.randn(3, generator=torch.Generator().manual_seed(1))]
    generator = torch.Generator()
    generator.set_state(read.generators[1])
    assert torch.equal(torch.randn(3, generator=generator), drawn[0])


def test_an_optimiser_that_has_not_stepped_comes_back(tmp_path):
    """A run stopped before its first step saves too."""
    model = tiny_model()
    save_state(tmp_path, state(), optimizer_of(model))
    resumed = optimizer_of(model)
    load_state(tmp_path, resumed, 2)
    assert resumed.state_dict()["state"] == {}


def test_the_learning_rate_is_not_taken_from_the_state(tmp_path):
    """It is a function of the step and of the settings of this run."""
    _, optimizer = trained()
    save_state(tmp_path, state(), optimizer)
    resumed = adamw(tiny_model(), learning_rate=0.5, weight_decay=0.1, betas=(0.8, 0.9))
    load_state(tmp_path, resumed, 2)
    assert [group["lr"] for group in resumed.param_groups] == [0.5, 0.5]
    assert [group["weight_decay"] for group in resumed.param_groups] == [0.1, 0.0]


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 3])
def test_another_number_of_processes_is_refused(tmp_path, processes):
    _, optimizer = trained()
    save_state(tmp_path, state(), optimizer)
    with pytest.raises(
        CheckpointError, match=f"written by 2 processes and this run has {processes}: resume with the same"
    ):
        load_state(tmp_path, optimizer, processes)


def test_the_state_of_another_model_is_refused(tmp_path):
    _, optimizer = trained()
    save_state(tmp_path, state(), optimizer)
    wider = {**TOWERS, "text_cfg": {**TOWERS["text_cfg"], "width": 48}}
    with pytest.raises(CheckpointError, match="holds the optimiser state of another model"):
        load_state(tmp_path, optimizer_of(tiny_model(towers=wider)), 2)
    smaller = torch.nn.Linear(1, 1)
    with pytest.raises(CheckpointError, match="another model"):
        load_state(tmp_path, adamw(smaller, learning_rate=1.0, weight_decay=0.0, betas=(0.9, 0.98)), 2)


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_state_is_named(tmp_path, name, damage):
    _, optimizer = trained()
    save_state(tmp_path, state(), optimizer)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    if damage == "truncated":
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="cannot read the training state in"):
        load_state(tmp_path, optimizer, 2)


def test_nothing_of_pickle_is_written(tmp_path):
    _, optimizer = trained()
    save_state(tmp_path, state(), optimizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json", "state.safetensors"]
    assert json.loads((tmp_path / "state.json").read_text())["step"] == 12
    tensors = load_file(tmp_path / "state.safetensors")
    moments = {name.rpartition(".")[2] for name in tensors if name.startswith("optimizer.")}
    assert moments == {"step", "exp_avg", "exp_avg_sq"}


# Directories ----------------------------------------------------------------------------------------------------------

FILES = ("config.yaml", "model.safetensors", "state.safetensors", "state.json")


def fill(output_dir: Path, *steps: int, files: tuple[str, ...] = FILES) -> None:
    for step in steps:
        folder = checkpoint_path(output_dir, step)
        folder.mkdir(parents=True)
        for name in files:
            save_file({}, folder / name)


def left(output_dir: Path) -> list[str]:
    return sorted(path.name for path in (output_dir / "checkpoints").iterdir())


def test_the_newest_complete_checkpoint_is_found(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    fill(tmp_path, 900, 1000, 20)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-00001000"
    fill(tmp_path, 2000, files=FILES[:3])
    (tmp_path / "checkpoints" / ".step-00003000.writing").mkdir()
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-00001000"


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    fill(tmp_path, 10, 20, 30, 40)
    prune_checkpoints(tmp_path, 2, 40)
    assert left(tmp_path) == ["step-00000030", "step-00000040"]
    prune_checkpoints(tmp_path, 2, 40)
    assert left(tmp_path) == ["step-00000030", "step-00000040"]


def test_a_run_started_afresh_keeps_its_own_checkpoints_not_those_of_the_run_before(tmp_path):
    fill(tmp_path, 900, 1000)
    fill(tmp_path, 100)
    prune_checkpoints(tmp_path, 2, 100)
    assert left(tmp_path) == ["step-00000100"]
    assert latest_checkpoint(tmp_path) == checkpoint_path(tmp_path, 100)
