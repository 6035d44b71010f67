"""Checkpoints written and copied beside training: in order, whole, and what is said when they cannot be."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations
from safetensors import SafetensorError
from safetensors.torch import load_file

from hypclip.errors import CheckpointError, ConfigError
from hypclip.training.checkpointing.manifest import checkpoint_path, newest, verify
from hypclip.training.checkpointing.state import Snapshot, TrainState, snapshot
from hypclip.training.checkpointing.writer import Saver
from hypclip.training.optim import adamw
from tests.support.models import tiny_model
from tests.support.training import state_bits, wait_for

FILES = {"config.yaml", "manifest.json", "model.safetensors", "state.json", "state.safetensors"}


def taken(step: int, numbers: int = 1_000, kind: type[Snapshot] = Snapshot, **more: Any) -> Any:
    weights = {"w": torch.full((numbers,), float(step))}
    return kind(
        step, weights, {"format": 1, "model": {}}, {"optimizer.w.exp_avg": -weights["w"]}, {"step": step}, **more
    )


@dataclass(frozen=True)
class Held(Snapshot):
    """A snapshot whose writing can be held up, and fails half-way with an error if it has one."""

    go: threading.Event
    began: Callable[[int], Any] = lambda _: None
    error: Exception | None = None

    def write(self, folder: Path) -> None:
        self.began(self.step)
        assert self.go.wait(30)
        super().write(folder)
        if self.error is not None:
            file = folder / "state.safetensors"
            file.write_bytes(file.read_bytes()[:100])
            (folder / "state.json").unlink()
            raise self.error


def ready() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def failing(step: int, error: Exception) -> Held:
    return taken(step, kind=Held, go=ready(), error=error)


@pytest.fixture
def saver(tmp_path) -> Iterator[Saver]:
    made = Saver(output(tmp_path), 3)
    yield made
    made._writer.shutdown()


def output(folder: Path) -> Path:
    """The run's folder, which the log makes before anything is saved."""
    (folder / "run").mkdir(exist_ok=True)
    return folder / "run"


def steps_in(output_dir: Path) -> list[int]:
    return sorted(int(folder.name.removeprefix("step-")) for folder in (output_dir / "checkpoints").glob("step-*"))


def assert_nothing_half_written(output_dir: Path) -> None:
    assert list(output_dir.rglob(".*")) == []
    for step in steps_in(output_dir):
        verify(checkpoint_path(output_dir, step))


# Order ----------------------------------------------------------------------------------------------------------------


def test_a_snapshot_becomes_a_whole_checkpoint(tmp_path, saver):
    saver.save(taken(7))
    saver.close()
    folder = checkpoint_path(tmp_path / "run", 7)
    assert state_bits(folder).keys() == FILES
    verify(folder)
    assert torch.equal(load_file(folder / "model.safetensors")["w"], torch.full((1_000,), 7.0))
    assert newest(tmp_path / "run", pytest.fail) == folder


def test_saving_does_not_wait_for_the_disk_but_the_next_saving_does(tmp_path, saver):
    order: list[str] = []
    gates = [threading.Event(), ready()]
    first, second = (
        taken(step, kind=Held, go=gate, began=lambda step: order.append(f"writing {step}"))
        for step, gate in zip((1, 2), gates, strict=True)
    )
    saver.save(first)
    order.append("training")
    assert saver.failure is None
    assert steps_in(tmp_path / "run") == []
    opener = threading.Timer(0.3, lambda: (order.append("disk is done"), gates[0].set()))
    opener.start()
    saver.save(second)
    order.append("saved the second")
    saver.close()
    assert order.index("training") < order.index("disk is done") < order.index("writing 2")
    assert order.index("disk is done") < order.index("saved the second")
    assert steps_in(tmp_path / "run") == [1, 2]


def test_training_changes_tensors_while_they_are_written(tmp_path, saver):
    model = tiny_model()
    optimizer = adamw(model, learning_rate=0.1, weight_decay=0.0, betas=(0.9, 0.98))
    state = TrainState(step=3, streams=[{}], generators=[{"cpu": torch.get_rng_state()}])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    shot, gate = snapshot(model, optimizer, state, {"name": "x"}), threading.Event()
    saver.save(Held(**{**vars(shot), "go": gate}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    state.step = 99
    gate.set()
    saver.close()
    written = load_file(checkpoint_path(tmp_path / "run", 3) / "model.safetensors")
    assert all(torch.equal(written[name], tensor) for name, tensor in before.items())
    assert not torch.equal(model.log_curv, before["log_curv"])


@pytest.mark.parametrize(("keep_every", "left"), [(None, [6, 7]), (3, [3, 6, 7])])
def test_old_ones_go(tmp_path, keep_every, left):
    saver = Saver(output(tmp_path), 2, keep_every)
    for step in range(1, 8):
        saver.save(taken(step))
    saver.close()
    assert steps_in(tmp_path / "run") == left
    assert_nothing_half_written(tmp_path / "run")


def test_a_step_saved_twice_is_replaced(tmp_path, saver):
    saver.save(taken(4, numbers=10))
    saver.save(taken(4, numbers=20))
    saver.close()
    assert load_file(checkpoint_path(tmp_path / "run", 4) / "model.safetensors")["w"].shape == (20,)
    assert_nothing_half_written(tmp_path / "run")


# Disks that fail ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_named_and_leaves_the_earlier_one_as_it_was(tmp_path, saver, error):
    saver.save(taken(10))
    saver.wait()
    earlier = state_bits(checkpoint_path(tmp_path / "run", 10))
    saver.save(failing(20, error))
    path = checkpoint_path(tmp_path / "run", 20)
    message = f"step 20 could not be written to {path}: .*No space left on device.*mend the cause .* --resume"
    with pytest.raises(CheckpointError, match=message):
        saver.close()
    assert state_bits(checkpoint_path(tmp_path / "run", 10)) == earlier
    assert steps_in(tmp_path / "run") == [10]
    assert_nothing_half_written(tmp_path / "run")


def test_a_write_that_the_system_cuts_off_is_named(tmp_path, saver):
    """A limit on the size of files is as near to a full disk as one comes without one."""
    saver.save(taken(10))
    saver.wait()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        saver.save(taken(20, numbers=1_000_000))
        with pytest.raises(CheckpointError, match=r"step 20 could not be written .*File too large"):
            saver.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert steps_in(tmp_path / "run") == [10]
    assert_nothing_half_written(tmp_path / "run")
    saver.save(taken(30, numbers=1_000_000))
    saver.close()
    assert steps_in(tmp_path / "run") == [10, 30]


def test_a_failure_is_known_before_the_next_checkpoint(saver):
    gate = threading.Event()
    saver.save(taken(5, kind=Held, go=gate, error=OSError("disk gone")))
    assert saver.failure is None
    gate.set()
    wait_for(lambda: saver.failure is not None, "the failure", 20)
    assert isinstance(saver.failure, CheckpointError)
    assert "step 5" in str(saver.failure)
    assert "disk gone" in str(saver.failure)
    with pytest.raises(CheckpointError, match="step 5 could not be written"):
        saver.save(taken(6))


def test_after_success_there_is_no_failure(saver):
    assert saver.failure is None
    saver.save(taken(5))
    wait_for(lambda: saver._writing is not None and saver._writing.done(), "the checkpoint", 20)
    assert saver.failure is None


def test_a_folder_without_permission_is_named(tmp_path, saver):
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "checkpoints").chmod(0o500)
    try:
        if os.access(tmp_path / "run" / "checkpoints", os.W_OK):
            pytest.skip("this user may write anywhere")
        saver.save(taken(5))
        with pytest.raises(CheckpointError, match=r"step 5 could not be written to .*Permission denied"):
            saver.close()
    finally:
        (tmp_path / "run" / "checkpoints").chmod(0o700)


def test_a_file_where_the_folder_should_be_is_named(tmp_path, saver):
    (tmp_path / "run" / "checkpoints").write_text("mine")
    saver.save(taken(5))
    with pytest.raises(CheckpointError, match=r"step 5 could not be written to .*/checkpoints.*--resume"):
        saver.close()
    assert (tmp_path / "run" / "checkpoints").read_text() == "mine"


def test_an_output_folder_that_was_removed_is_not_made_again(tmp_path, saver):
    saver.save(taken(5))
    saver.wait()
    shutil.rmtree(tmp_path / "run")
    saver.save(taken(6))
    with pytest.raises(CheckpointError, match=r"step 6 could not be written to .*run has been removed"):
        saver.close()
    assert not (tmp_path / "run").exists()


# Copies to another place ----------------------------------------------------------------------------------------------


class Recorded(MemoryFileSystem):
    """A store that notes what it gets, can refuse a checkpoint, and can take its time."""

    protocol = "recorded"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    put: ClassVar[list[str]] = []
    refused = ""
    gate = ready()

    def put_file(self, lpath: str, rpath: str, *args: Any, **kwargs: Any) -> None:
        assert self.gate.wait(30)
        if self.refused and self.refused in rpath:
            raise ConnectionError("the store is away")
        self.put.append("/".join(rpath.split("/")[-2:]))
        super().put_file(lpath, rpath, *args, **kwargs)


@pytest.fixture
def store() -> Iterator[type[Recorded]]:
    fsspec.register_implementation("recorded", Recorded, clobber=True)
    Recorded.store.clear()
    Recorded.put.clear()
    Recorded.pseudo_dirs[:] = [""]
    Recorded.refused, Recorded.gate = "", ready()
    yield Recorded
    Recorded.gate.set()


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_copy_has_every_file_and_can_be_verified(tmp_path, kind, warned):
    target = f"{kind}://{tmp_path}/copies/x" + ("/" if kind == "memory" else "")
    saver = Saver(output(tmp_path), 3, upload_to=target, warn=warned.append)
    saver.save(taken(5))
    saver.save(taken(6))
    saver.close()
    filesystem, root = fsspec.core.url_to_fs(target)
    filesystem.get(f"{root.rstrip('/')}/", f"{tmp_path}/back/", recursive=True)
    for step in (5, 6):
        verify(checkpoint_path(tmp_path / "back", step))
        ours = state_bits(checkpoint_path(tmp_path / "run", step))
        assert state_bits(checkpoint_path(tmp_path / "back", step)) == ours
    assert warned == []


def test_the_manifest_is_copied_last(tmp_path, store, warned):
    saver = Saver(output(tmp_path), 3, upload_to="recorded://bucket/x", warn=warned.append)
    saver.save(taken(5))
    saver.close()
    assert len(store.put) == len(FILES)
    assert store.put[-1] == "step-00000005/manifest.json"
    assert warned == []


def test_a_copy_that_fails_is_a_warning_and_the_next_one_is_made(tmp_path, store, warned):
    store.refused = "step-00000005/model"
    saver = Saver(output(tmp_path), 3, upload_to="recorded://bucket/x", warn=warned.append)
    saver.save(taken(5))
    saver.save(taken(6))
    assert saver.failure is None
    saver.close()
    (warning,) = warned
    assert "step-00000005 could not be copied to " in warning
    assert "bucket/x/checkpoints/step-00000005: the store is away" in warning
    assert "step-00000005/manifest.json" not in store.put
    assert store.put[-1] == "step-00000006/manifest.json"
    assert steps_in(tmp_path / "run") == [5, 6]


def test_a_checkpoint_that_was_not_written_is_not_copied(tmp_path, store):
    saver = Saver(output(tmp_path), 3, upload_to="recorded://bucket/x")
    saver.save(failing(5, OSError("disk gone")))
    with pytest.raises(CheckpointError, match="step 5"):
        saver.close()
    assert store.put == []


def test_a_slow_store_holds_nothing_up(tmp_path, store, warned):
    """What is being copied stays until it is; what was deleted meanwhile is passed over."""
    store.gate.clear()
    saver = Saver(output(tmp_path), 1, upload_to="recorded://bucket/x", warn=warned.append)
    began = time.monotonic()
    for step in range(1, 6):
        saver.save(taken(step))
        if step == 1:
            saver.wait()
            wait_for(lambda: saver._copying is not None, "the copy to begin", 20)
    saver.wait()
    assert time.monotonic() - began < 20
    assert steps_in(tmp_path / "run") == [1, 5]
    store.gate.set()
    saver.close()
    assert warned == []
    assert [name for name in store.put if name.endswith("manifest.json")] == [
        "step-00000001/manifest.json",
        "step-00000005/manifest.json",
    ]
    assert steps_in(tmp_path / "run") == [5]


def test_a_store_that_does_not_answer_does_not_hold_up_the_end(tmp_path, store, warned, monkeypatch):
    monkeypatch.setattr("hypclip.training.checkpointing.writer._LAST_COPIES_S", 0.2)
    store.gate.clear()
    saver = Saver(output(tmp_path), 1, upload_to="recorded://bucket/x", warn=warned.append)
    saver.save(taken(1))
    saver.close()
    assert warned == ["copies of checkpoints to recorded://bucket/x took over 0.2 s: given up"]
    assert steps_in(tmp_path / "run") == [1]


@pytest.mark.parametrize(
    ("kind", "why"), [("nope", "Protocol not known: nope"), ("lacking", "Install no_such_library")]
)
def test_a_place_that_cannot_be_used_is_refused_at_once(tmp_path, monkeypatch, kind, why):
    known = {"class": "no_such_library.Store", "err": "Install no_such_library"}
    monkeypatch.setitem(known_implementations, "lacking", known)
    with pytest.raises(ConfigError, match=f"train.upload_to '{kind}://bucket/x' cannot be used: {why}"):
        Saver(output(tmp_path), 3, upload_to=f"{kind}://bucket/x")
