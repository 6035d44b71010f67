"""The checks for a GPU in their small form on the CPU, and the script around them."""

import contextlib
import json
import multiprocessing
import os
import time

import psutil
import pytest
import torch
from accelerate.state import AcceleratorState

from hypclip.objective import Loss
from tests import gpu_check
from tests.gpu_checks import CHECKS, Check, arithmetic, programs, steps
from tests.gpu_checks.kit import Line, Place, Report, until_full

CPU = torch.device("cpu")
JUDGED = {"recipes": 10, "blockwise": 2, "compile": 1, "nccl": 2, "serve": 1}
"""How many lines have a bar on a CPU."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
    yield Place(CPU, tmp_path, small=True)
    AcceleratorState._reset_state(reset_partial_state=True)
    torch._dynamo.reset()


def lines_of(name: str, place: Place) -> list[Line]:
    report = Report(name)
    CHECKS[name].run(place, report)
    return report.lines


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CHECKS if name != "resume"])
def test_a_check_passes_in_its_small_form(name, place):
    lines = lines_of(name, place)
    assert [line for line in lines if line.passed is False] == []
    assert sum(line.passed is True for line in lines) == JUDGED.get(name, 0)
    assert {line.check for line in lines} == {name}
    figures = [value for line in lines for key, value in line.values.items() if "gib" not in key]
    assert figures
    assert all(value is not None and value >= 0 for value in figures)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_bit_for_bit(place):
    (line,) = lines_of("resume", place)
    assert line.passed, line
    assert line.figure.startswith("equal; killed at step ")


def test_the_figures_of_steps_are_of_one_run(place):
    per_s, samples, mfu, share = (line.values for line in lines_of("vit_b", place))
    assert samples["per_s"] == pytest.approx(8 * per_s["per_s"])
    assert mfu["flop_per_s"] > 1e6 * samples["per_s"]
    assert mfu["mfu"] > 0
    assert 0 < share["share"] < 1


def test_all_limits_together_are_eight_minutes():
    assert sum(check.limit_s for check in CHECKS.values()) <= 8 * 60


# What is wrong fails --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_wrong_objective_fails(place, monkeypatch):
    right = arithmetic.apply

    def wrong_in_float32(objective, inputs):
        found = right(objective, inputs)
        return found if inputs["curv"].dtype == torch.float64 else Loss(found.loss * 1.001, found.parts)

    monkeypatch.setattr(arithmetic, "apply", wrong_in_float32)
    monkeypatch.setattr(arithmetic, "RECIPES", ("meru",))
    assert [line.passed for line in lines_of("recipes", place)] == [False, True]
    assert [line.passed for line in lines_of("blockwise", place) if line.passed is not None] == [False, False]


@pytest.mark.parametrize(("precision", "factor"), [("fp32", 1.01), ("bf16", 1.03)])
def test_wrong_towers_fail(precision, factor, place, monkeypatch):
    """One per cent of the loss in float32, three in bfloat16."""
    right, calls = arithmetic.forward_backward, []

    def wrong(*args, **kwargs):
        loss, seen = right(*args, **kwargs)
        calls.append(kwargs["precision"])
        on_device = calls == ["fp32"] * 2 if precision == "fp32" else kwargs["precision"] == "bf16"
        return Loss(loss.loss * factor, loss.parts) if on_device else loss, seen

    monkeypatch.setattr(arithmetic, "forward_backward", wrong)
    monkeypatch.setattr(arithmetic, "RECIPES", ())
    assert [line.passed for line in lines_of("recipes", place)] == [False]


def test_wrong_gradients_of_a_group_fail(place, monkeypatch):
    class Doubled(steps.DistributedDataParallel):
        def forward(self, *args):
            output = super().forward(*args)
            return output._replace(features={role: 2 * x for role, x in output.features.items()})

    monkeypatch.setattr(steps, "DistributedDataParallel", Doubled)
    assert [line.passed for line in lines_of("nccl", place)] == [True, False]


@pytest.mark.parametrize(("bits", "figure"), [(b"1", "but it had ended"), (b"2", "checkpoint/weights differs")])
def test_a_run_that_goes_on_otherwise_fails(bits, figure, place, monkeypatch):
    """A program that leaves other weights, and one that cannot be killed because it is done."""
    folder = place.folder

    class Done:
        returncode = 0

        def poll(self):
            return 0

        def communicate(self):
            return "resuming from a checkpoint", ""

    started = []

    @contextlib.contextmanager
    def start(command):
        started.append(command)
        name, found = ("whole", b"1") if "whole.yaml" in " ".join(command) else ("killed", bits)
        if len(started) != 2 or bits == b"1":  # the second is the one to be killed
            for where in ("checkpoint", "checkpoints/step-00000020"):
                (folder / name / where).mkdir(parents=True, exist_ok=True)
                (folder / name / where / "weights").write_bytes(found)
        yield Done()

    monkeypatch.setattr(programs, "started", start)
    (line,) = lines_of("resume", place)
    assert line.passed is False
    assert figure in line.figure


# The tools ------------------------------------------------------------------------------------------------------------


def test_sizes_are_doubled_until_memory_is_full():
    def attempt(size, most=20):
        if size > most:
            raise torch.OutOfMemoryError
        return 1 / size

    assert until_full(attempt, 4, 64, seconds=60) == {4: 1 / 4, 8: 1 / 8, 16: 1 / 16}
    assert list(until_full(attempt, 4, 8, seconds=60)) == [4, 8]
    assert list(until_full(attempt, 4, 64, seconds=0)) == [4]
    with pytest.raises(torch.OutOfMemoryError):
        until_full(attempt, 32, 64, seconds=60)


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA L40", None),
    ],
)
def test_the_best_that_a_gpu_can_do_is_known_by_its_name(name, tflops, tmp_path, monkeypatch):
    """Or measured."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    monkeypatch.setattr(Place, "flops", lambda *_: 5e12)
    found, whose = Place(torch.device("cuda"), tmp_path).peak_flops()
    assert found == (5e12 if tflops is None else tflops * 1e12)
    assert ("measured here" in whose) == (tflops is None)


# The script -----------------------------------------------------------------------------------------------------------


def test_without_a_gpu_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main(["--output", str(tmp_path / "found.json")]) == 0
    assert "no GPU: nothing was checked" in capsys.readouterr().out
    assert json.loads((tmp_path / "found.json").read_text())["lines"] == []


@pytest.mark.parametrize(("passed", "code"), [(True, 0), (None, 0), (False, 1)])
def test_a_failed_line_is_an_exit_code(passed, code, tmp_path, monkeypatch, capsys):
    lines = [Line("nccl", "what", "0.5", "0.4", passed, {"error": 0.5}), Line("nccl", "more", "7")]
    monkeypatch.setattr(gpu_check, "in_process", lambda *_: lines)
    assert gpu_check.main(["nccl", "--device", "cpu", "--output", str(tmp_path / "found.json")]) == code
    out = capsys.readouterr().out
    assert ("FAILED" in out) == (code == 1)
    assert f"{code} failed" in out
    assert json.loads((tmp_path / "found.json").read_text())["lines"][0] == {
        "check": "nccl", "what": "what", "figure": "0.5", "bar": "0.4", "passed": passed, "values": {"error": 0.5},
    }  # fmt: skip


def test_an_unknown_check_is_named(capsys):
    with pytest.raises(SystemExit):
        gpu_check.main(["ncl"])
    assert "no check is named ncl: choose from machine, recipes" in capsys.readouterr().err


def test_what_raises_is_a_failed_line_after_those_that_were_known(place, monkeypatch):
    def run(_, report):
        report.judged("first", "1", "2", True, ratio=float("inf"))
        raise ValueError("something\nlong")

    monkeypatch.setitem(CHECKS, "machine", Check(run, 1))
    file = place.folder / "lines"
    gpu_check.judge("machine", place, Report("machine", file))
    first, last = map(json.loads, file.read_text().splitlines())
    assert (first["what"], first["passed"], first["values"]) == ("first", True, {"ratio": None})
    assert (last["figure"], last["passed"]) == ("ValueError: something", False)


@pytest.mark.parametrize(
    ("target", "argument", "said"),
    [(time.sleep, 60, "took more than 2 s"), (os._exit, 3, "ended with exit code 3"), (abs, 3, "")],
)
def test_a_process_that_hangs_or_crashes_is_told_of(target, argument, said):
    process = multiprocessing.get_context("spawn").Process(target=target, args=(argument,))
    limit_s = 2 if target is time.sleep else 120
    assert gpu_check.supervise(process, limit_s) == said
    assert not psutil.pid_exists(process.pid)


@pytest.mark.slow
def test_the_script_runs_checks_in_processes(tmp_path, capsys, monkeypatch):
    for variable in ("PYTHONPATH", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(variable, "")
    output = tmp_path / "found.json"
    assert gpu_check.main(["machine", "nccl", "--device", "cpu", "--small", "--output", str(output)]) == 0
    assert "0 failed" in capsys.readouterr().out
    lines = json.loads(output.read_text())["lines"]
    assert [line["check"] for line in lines] == ["machine"] * 3 + ["nccl"] * 2
