"""Print time and memory of the hycoclip objective, forward + backward, beside its dense forms in the same run.

python tests/benchmarks/bench_objective.py [--quick]

Peers: the recipe as papers write it, dense, with acosh and acos (written here); and the Euclidean floor, its four
cross-entropies with cosine logits as open_clip's ClipLoss computes them, without any entailment. Four whole ClipLoss
modules have eight cross-entropies; they are printed too, the bar is against four. Memory is the peak above the
features, each form in a process of its own.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from open_clip.loss import ClipLoss
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from hypclip.objective import Objective

DIM = 512
ROLES = ("image", "text", "box_image", "box_text")
TERMS = (("image", "text"), ("text", "image"), ("box_image", "text"), ("box_text", "image"))
EDGES = (("text", "image", 0.7), ("box_text", "box_image", 0.7), ("box_image", "image", 1.2), ("box_text", "text", 1.2))
Form = Callable[[dict[str, Tensor], Tensor, Tensor], Tensor]

FASTER, FLOOR, MEMORY, LARGEST_GIB = 2.0, 1.1, 5.0, 6.0
"""The bars: × faster than dense on geometric mean, × of the floor, × less memory at 8,192, GiB at 32,768."""


def ours(points: dict[str, Tensor], curv: Tensor, scale: Tensor) -> Tensor:
    return Objective.from_recipe("hycoclip")(points, curv=curv, logit_scale=scale).loss


def dense_acosh(points: dict[str, Tensor], curv: Tensor, scale: Tensor) -> Tensor:
    """The same loss from B × B matrices, with the clamps that float32 needs."""
    labels = torch.arange(len(points["text"]))

    def time_of(x: Tensor) -> Tensor:
        return torch.sqrt(1 / curv + x.square().sum(-1, keepdim=True))

    def distances(x: Tensor, y: Tensor) -> Tensor:
        minus_inner = time_of(x) @ time_of(y).T - x @ y.T
        return torch.acosh((curv * minus_inner).clamp(min=1 + 1e-7)) / curv.sqrt()

    def hinge(general: Tensor, specific: Tensor, eta: float) -> Tensor:
        xt, yt = time_of(general).squeeze(-1), time_of(specific).squeeze(-1)
        product = curv * ((general * specific).sum(-1) - xt * yt)
        length = general.norm(dim=-1)
        cosine = (yt + xt * product) / (length * (product.square() - 1).clamp(min=1e-7).sqrt())
        angle = torch.acos(cosine.clamp(-1 + 1e-7, 1 - 1e-7))
        aperture = torch.asin((0.2 / (curv.sqrt() * length)).clamp(max=1 - 1e-7))
        return torch.relu(angle - eta * aperture).mean()

    contrast = [cross_entropy(-scale * distances(points[q], points[k]), labels) for q, k in TERMS]
    entail = [hinge(points[g], points[s], eta) for g, s, eta in EDGES]
    return sum(contrast) / 4 + 0.1 * sum(entail)


def floor(points: dict[str, Tensor], curv: Tensor, scale: Tensor) -> Tensor:
    """Four cross-entropies over cosine logits; the features count as normalised."""
    labels = torch.arange(len(points["text"]))
    return sum(cross_entropy(scale * points[q] @ points[k].T, labels) for q, k in TERMS) / 4


def clip_losses(points: dict[str, Tensor], curv: Tensor, scale: Tensor) -> Tensor:
    """Four ClipLoss modules of open_clip, each with both directions."""
    loss = ClipLoss()
    return sum(loss(points[q], points[k], scale) for q, k in TERMS) / 4


FORMS: dict[str, Form] = {"ours": ours, "dense acosh": dense_acosh, "floor": floor, "4 ClipLoss": clip_losses}


def inputs(batch: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    points = {r: torch.randn(batch, DIM, generator=generator) / DIM**0.5 for r in ROLES}
    return ({r: x.requires_grad_() for r, x in points.items()}, torch.tensor(1.0, requires_grad=True),
            torch.tensor(14.0, requires_grad=True))  # fmt: skip


def seconds(form: Form, points: dict[str, Tensor], curv: Tensor, scale: Tensor) -> float:
    for leaf in (*points.values(), curv, scale):
        leaf.grad = None
    started = time.perf_counter()
    form(points, curv, scale).backward()
    return time.perf_counter() - started


def check_that_they_compute_the_same() -> None:
    """Compare values and gradients at B = 256 in float64, and the floor with ClipLoss."""
    points, curv, scale = inputs(256)
    points = {r: x.detach().double().requires_grad_() for r, x in points.items()}
    curv, scale = curv.detach().double().requires_grad_(), scale.detach().double().requires_grad_()
    leaves = [*points.values(), curv, scale]
    both = [form(points, curv, scale) for form in (ours, dense_acosh)]
    torch.testing.assert_close(*both, rtol=1e-6, atol=0)
    for a, b in zip(*(torch.autograd.grad(loss, leaves) for loss in both), strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm()
    unit = {r: normalize(x, dim=-1) for r, x in points.items()}
    labels = torch.arange(256)
    two = [cross_entropy(scale * unit[q] @ unit[k].T, labels) for q, k in TERMS[:2]]
    torch.testing.assert_close(ClipLoss()(unit["image"], unit["text"], scale), sum(two) / 2)


def peak_gib(name: str, batch: int) -> float:
    """Return the peak memory of one forward + backward above its features and their gradients, in GiB."""
    command = [sys.executable, __file__, "--peak", name, str(batch)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(name: str, batch: int) -> None:
    points, curv, scale = inputs(batch)
    seconds(FORMS[name], *inputs(8))  # what a first call loads
    for x in points.values():
        x.grad = torch.ones_like(x)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = memory_kib("VmRSS")
    FORMS[name](points, curv, scale).backward()
    print((memory_kib("VmHWM") - before) / 2**20)


def memory_kib(field: str) -> int:
    """Return a figure of /proc/self/status; ru_maxrss would begin at that of the parent process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def main() -> int:
    """Print the table; return 1 when a bar is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the batches of 8,192 and 32,768")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    if arguments.peak:
        print_peak(arguments.peak[0], int(arguments.peak[1]))
        return 0
    check_that_they_compute_the_same()
    broken: list[str] = []
    faster: list[float] = []
    print(f"hycoclip objective, forward + backward, D = {DIM}, 2 threads: medians, the forms in turns of a few calls")
    print(f"{'B':>7}{'ours, ms':>11}" + "".join(f"{name + ', ×':>16}" for name in list(FORMS)[1:]))
    sizes = [(512, 5, 10), (2048, 3, 4), (8192, 1, 2)]
    for batch, rounds, repeats in sizes[:2] if arguments.quick else sizes:
        points, curv, scale = inputs(batch)
        times: dict[str, list[float]] = {name: [] for name in FORMS}
        for _ in range(rounds):
            for name, form in FORMS.items():
                seconds(form, points, curv, scale)  # finds the memory that another form has left behind
                times[name] += [seconds(form, points, curv, scale) for _ in range(repeats)]
        median = {name: statistics.median(found) for name, found in times.items()}
        ratio = {name: median[name] / median["ours"] for name in list(FORMS)[1:]}
        faster.append(ratio["dense acosh"])
        if 1 / ratio["floor"] > FLOOR:
            broken.append(f"B = {batch}: {1 / ratio['floor']:.2f} × the floor, bar {FLOOR}")
        print(f"{batch:7}{median['ours'] * 1e3:11.1f}" + "".join(f"{r:16.2f}" for r in ratio.values()), flush=True)
    mean = statistics.geometric_mean(faster)
    print(f"×: times slower than ours. Dense acosh on geometric mean {mean:.2f}, bar {FASTER}")
    print(f"the floor: bar {1 / FLOOR:.2f}, that is {FLOOR} × its time")
    if mean < FASTER:
        broken.append(f"{mean:.2f} × faster than dense acosh, bar {FASTER}")
    if not arguments.quick:
        peaks = {name: peak_gib(name, 8192) for name in FORMS}
        print("peak above the features at B = 8,192, GiB: " + ", ".join(f"{n} {p:.2f}" for n, p in peaks.items()))
        less = peaks["dense acosh"] / peaks["ours"]
        started = time.perf_counter()
        largest = peak_gib("ours", 32768)
        print(f"{less:.1f} × less than dense acosh, bar {MEMORY}; at B = 32,768 ours takes {largest:.2f} GiB, "
              f"bar {LARGEST_GIB}, in {time.perf_counter() - started:.0f} s")  # fmt: skip
        if less < MEMORY or largest > LARGEST_GIB:
            broken.append("memory")
    for what in broken:
        print(f"BROKEN: {what}")
    return int(bool(broken))


if __name__ == "__main__":
    raise SystemExit(main())
