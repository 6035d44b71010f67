import json

import pytest
import torch
from safetensors.torch import load_file

from hypclip import checkpoint
from hypclip.errors import CheckpointError
from hypclip.model import HypCLIP
from hypclip.training.checkpointing.state import (
    TrainState,
    generators,
    load_weights,
    restore,
    same_settings,
    set_generators,
    snapshot,
)
from hypclip.training.ema import AveragedWeights
from hypclip.training.optim import adamw
from hypclip.training.tuning import LoraSettings, TuneConfig, apply
from tests.support.models import TOWERS, tiny_model

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
    states = [{"cpu": torch.Generator().manual_seed(rank).get_state()} for rank in range(processes)]
    return TrainState(12, "bf16", STREAMS[:processes], states, {"train.seed": 3}, [2.5, 2.25], 1, {"scale": 8.0})


def save(folder, model, optimizer, state, averaged=None):
    snapshot(model, optimizer, state, {"name": "x"}, averaged).write(folder)


# Saving and loading ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels_last", [False, True])
def test_training_goes_on_bit_for_bit(tmp_path, channels_last):
    """In either memory order: the pretraining script keeps its kernels channels last."""
    model, optimizer = trained(channels_last)
    save(tmp_path, model, optimizer, state())
    again = tiny_model(seed=9)
    load_weights(again, tmp_path)
    if channels_last:
        again.to(memory_format=torch.channels_last)
    resumed = optimizer_of(again)
    restore(tmp_path, again, resumed, 2)
    for seed in range(3, 6):
        random_step(model, optimizer, seed)
        random_step(again, resumed, seed)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_counters_positions_and_generators_come_back(tmp_path):
    model, optimizer = trained()
    written = state()
    save(tmp_path, model, optimizer, written)
    again = tiny_model()
    read = restore(tmp_path, again, optimizer_of(again), 2)
    plain = [name for name in vars(written) if name != "generators"]
    assert [getattr(read, name) for name in plain] == [getattr(written, name) for name in plain]
    assert len(read.generators) == 2
    for got, want in zip(read.generators, written.generators, strict=True):
        assert got.keys() == want.keys()
        assert torch.equal(got["cpu"], want["cpu"])
    drawn = [torch.randn(3, generator=torch.Generator().manual_seed(1))]
    generator = torch.Generator()
    generator.set_state(read.generators[1]["cpu"])
    assert torch.equal(torch.randn(3, generator=generator), drawn[0])


def test_an_optimiser_that_has_not_stepped_comes_back(tmp_path):
    """A run stopped before its first step saves too."""
    model = tiny_model()
    save(tmp_path, model, optimizer_of(model), state())
    resumed = optimizer_of(model)
    restore(tmp_path, model, resumed, 2)
    assert resumed.state_dict()["state"] == {}


def test_the_learning_rate_is_not_taken_from_the_state(tmp_path):
    """It is a function of the step and of the settings of this run."""
    model, optimizer = trained()
    save(tmp_path, model, optimizer, state())
    again = tiny_model()
    resumed = adamw(again, learning_rate=0.5, weight_decay=0.1, betas=(0.8, 0.9))
    restore(tmp_path, again, resumed, 2)
    assert [group["lr"] for group in resumed.param_groups] == [0.5, 0.5]
    assert [group["weight_decay"] for group in resumed.param_groups] == [0.1, 0.0]


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 3])
def test_another_number_of_processes_is_refused(tmp_path, processes):
    model, optimizer = trained()
    save(tmp_path, model, optimizer, state())
    with pytest.raises(
        CheckpointError, match=f"written by 2 processes and this run has {processes}: resume with the same"
    ):
        restore(tmp_path, model, optimizer, processes)


def test_the_state_of_another_model_is_refused(tmp_path):
    model, optimizer = trained()
    save(tmp_path, model, optimizer, state())
    wider = {**TOWERS, "text_cfg": {**TOWERS["text_cfg"], "width": 48}}
    with pytest.raises(CheckpointError, match="holds the optimiser state of another model"):
        restore(tmp_path, other := tiny_model(towers=wider), optimizer_of(other), 2)
    other = tiny_model()
    other.text_tower.requires_grad_(False)
    with pytest.raises(CheckpointError, match="another model"):
        restore(tmp_path, other, optimizer_of(other), 2)


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_state_is_named(tmp_path, name, damage):
    model, optimizer = trained()
    save(tmp_path, model, optimizer, state())
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    if damage == "truncated":
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="cannot read the training state in"):
        restore(tmp_path, model, optimizer, 2)


def test_nothing_of_pickle_is_written(tmp_path):
    model, optimizer = trained()
    save(tmp_path, model, optimizer, state())
    names = ["config.yaml", "model.safetensors", "state.json", "state.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert json.loads((tmp_path / "state.json").read_text())["step"] == 12
    tensors = load_file(tmp_path / "state.safetensors")
    moments = {name.rpartition(".")[2] for name in tensors if name.startswith("optimizer.")}
    assert moments == {"step", "exp_avg", "exp_avg_sq"}


def test_a_snapshot_is_a_copy(tmp_path):
    """Training goes on while it is written."""
    model, optimizer = trained()
    taken = snapshot(model, optimizer, state(), {})
    before = {name: tensor.clone() for name, tensor in taken.weights.items()}
    moments = {name: tensor.clone() for name, tensor in taken.tensors.items()}
    for seed in range(3):
        random_step(model, optimizer, seed)
    assert all(torch.equal(taken.weights[name], tensor) for name, tensor in before.items())
    assert all(torch.equal(taken.tensors[name], tensor) for name, tensor in moments.items())
    assert not torch.equal(model.log_curv, before["log_curv"])


def test_averaged_weights_come_back(tmp_path):
    model, optimizer = trained()
    averaged = AveragedWeights(model, 0.9)
    random_step(model, optimizer, 5)
    averaged.update(model, 20)
    save(tmp_path, model, optimizer, state(), averaged.tensors)
    again = tiny_model(seed=4)
    other = AveragedWeights(again, 0.9)
    restore(tmp_path, again, optimizer_of(again), 2, other.tensors)
    assert all(torch.equal(other.tensors[name], tensor) for name, tensor in averaged.tensors.items())


def test_averages_that_were_not_saved_are_missed(tmp_path):
    model, optimizer = trained()
    save(tmp_path, model, optimizer, state())
    with pytest.raises(CheckpointError, match=r"no averaged weights: resume without train\.ema_decay"):
        restore(tmp_path, model, optimizer, 2, AveragedWeights(model, 0.9).tensors)


def test_a_model_with_adapters_goes_on_and_can_be_loaded_by_anyone(tmp_path):
    config = TuneConfig(lora=LoraSettings(rank=2, image_blocks=1, text_blocks=1))
    model = tiny_model()
    apply(model, config)
    optimizer = optimizer_of(model)
    for seed in range(3):
        random_step(model, optimizer, seed)
    save(tmp_path, model, optimizer, state())
    again = tiny_model(seed=3)
    apply(again, config)
    load_weights(again, tmp_path)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    restore(tmp_path, again, optimizer_of(again), 2)
    torch.testing.assert_close(checkpoint.load(tmp_path).embed_text(["a dog"]), model.embed_text(["a dog"]))


@pytest.mark.parametrize("change", [{"train.seed": 4}, {"train.seed": 3, "data.workers": 2}, {}])
def test_other_settings_are_refused_by_name(tmp_path, change):
    with pytest.raises(CheckpointError, match=r"is of a run with other settings: .* was .* and is "):
        same_settings({"train.seed": 3, "model.curv_init": (1, 2)}, {"model.curv_init": [1, 2], **change}, tmp_path)
    same_settings({"train.seed": 3, "model.curv_init": [1, 2]}, {"model.curv_init": (1, 2), "train.seed": 3}, tmp_path)


def test_generators_are_set_again():
    device = torch.device("cpu")
    states = generators(device)
    drawn = torch.rand(3)
    set_generators(states, device)
    assert torch.equal(torch.rand(3), drawn)
