"""What goes wrong in one of two processes is named by both, at once, and neither hangs."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.environment import environment
from tests.support.training import ROOT, logged_steps, run_config, started, wait_for, write_config, write_shards

pytestmark = pytest.mark.slow

DRIVER = """
import os, sys
sys.path[:0] = [{root!r}]
from train import pretrain
rank = int(os.environ["RANK"])
{trouble}
sys.exit(pretrain.main(sys.argv[1:]))
"""
NAN = """
from hypclip.model import HypCLIP
forward, calls = HypCLIP.forward, []
def broken(self, images, *rest):
    calls.append(0)
    if rank == 1 and len(calls) == 3:
        images["image"][0] = float("nan")
    return forward(self, images, *rest)
HypCLIP.forward = broken
"""
NO_SPACE = """
from hypclip.training.checkpointing.state import Snapshot

def full(self, folder):
    raise OSError(28, "No space left on device")
Snapshot.write = full
"""


def two(folder: Path, trouble: str = "", *arguments: str, shards: int = 2, **changes: object) -> list[str]:
    """Return the command that trains in two processes, the driver prepared for trouble."""
    driver = folder / "driver.py"
    driver.write_text(DRIVER.format(root=str(ROOT), trouble=trouble))
    config = run_config(folder / "run", write_shards(folder / "shards", shards), **{"data__workers": 1, **changes})
    path = write_config(folder / "config.yaml", config)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    logs = ["--log_dir", str(folder / "logs"), "--redirects", "2"]
    return [*launcher, *logs, str(driver), "--config", str(path), *arguments]


def errors_of(folder: Path) -> list[str]:
    """Return what each process had to say, in order of rank."""
    found = sorted((folder / "logs").rglob("stderr.log"), key=lambda path: path.parent.name)
    return ["\n".join(line for line in path.read_text().splitlines() if "error: " in line) for path in found]


def fails(folder: Path, command: list[str]) -> list[str]:
    done = subprocess.run(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, timeout=240, check=False)
    assert done.returncode != 0
    return errors_of(folder)


def test_more_processes_than_shards(tmp_path):
    for said in fails(tmp_path, two(tmp_path, shards=1)):
        assert said.startswith("error: data.shards names 1 shards, but 2 processes × 1 workers need at least 2")


def test_a_number_that_is_none_in_one_process(tmp_path):
    for said in fails(tmp_path, two(tmp_path, NAN)):
        assert said.startswith("error: non-finite loss at step 3, before the update")
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == ["step-00000002"]


def test_a_disk_that_is_full(tmp_path):
    """The first process writes; the second has nothing to do with it, and stops too."""
    first, second = fails(tmp_path, two(tmp_path, NO_SPACE))
    assert "error: the checkpoint of step 2 could not be written" in first
    assert "No space left on device" in first
    assert second.startswith("error: another process of this run has failed: process 0: the checkpoint of step 2")
    assert list((tmp_path / "run/checkpoints").iterdir()) == []


def test_a_process_that_is_killed(tmp_path):
    command = two(tmp_path, train__steps=100_000, train__checkpoint_every=100_000)
    with started(command) as launcher:
        wait_for(lambda: logged_steps(tmp_path / "run") >= 2 or launcher.poll() is not None, "the first steps")
        trainers = [p for p in psutil.Process(launcher.pid).children() if "driver.py" in " ".join(p.cmdline())]
        assert len(trainers) == 2
        (victim,) = [p for p in trainers if p.environ()["RANK"] == "1"]
        killed = time.monotonic()
        victim.send_signal(signal.SIGKILL)
        launcher.communicate(timeout=120)
        assert time.monotonic() - killed < 60
    said, _ = errors_of(tmp_path)
    assert "error: process 0 has lost another process of this run, which died or was killed" in said


def test_weights_in_parts_and_adapters(tmp_path):
    lora = {"tune__lora": {"rank": 2, "image_blocks": 1, "text_blocks": 1}, "train__parallel": "fsdp"}
    for said in fails(tmp_path, two(tmp_path, **lora)):
        assert said.startswith("error: FSDP cannot shard weights with adapters")
