"""Whether the device computes what the CPU computes: the objective, models, and contrasts in blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.gpu_checks.kit import Place, Report
from tests.gpu_checks.project import (
    HIERARCHY,
    RECIPES,
    TOWERS,
    HypCLIP,
    Objective,
    apply,
    configure,
    forward_backward,
    gradients,
    leaves,
    make_batch,
    samples,
    with_taxonomy,
)

OBJECTIVE_FP32 = 1e-4
"""float32 against float64, relative to the norm: a rounding of 6e-8, a hundred times larger where distances and angles
come from differences, and sums of thousands of them."""
MODEL_FP32 = 1e-3
"""float32 against float32 in another order of summation: the same, through two towers and back."""
MODEL_BF16 = 0.1
"""bfloat16 towers against float32 ones: 8 bits of a product are a rounding of 0.2 %, some thirty of them lie on the way
through the towers and back, and gradients are differences of near-equal softmaxes. The loss has a tenth of it."""
CONTRAST = 1e-4
"""float32 in blocks against float64, as OBJECTIVE_FP32."""


def machine(place: Place, report: Report) -> None:
    """Say what it runs on, and how fast that is at best."""
    name = torch.cuda.get_device_name(place.device) if place.is_gpu else "CPU"
    total = torch.cuda.get_device_properties(place.device).total_memory / 2**30 if place.is_gpu else math.nan
    memory = f", {total:.0f} GiB" if place.is_gpu else ""
    report.measured("device", f"{name}{memory}; torch {torch.__version__}", memory_gib=total)
    rates = {kind: place.flops(kind) / 1e12 for kind in (torch.float32, torch.bfloat16)}
    for kind, rate in rates.items():
        report.measured(f"matrix product in {str(kind).removeprefix('torch.')}", f"{rate:.3g} TFLOP/s", tflops=rate)


def recipes(place: Place, report: Report) -> None:
    """Compare loss and gradients of every recipe: of points, and of a small model in float32 and in bfloat16."""
    torch.backends.cudnn.allow_tf32 = False  # else the patches of a picture have 11 bits in float32 too
    for name, recipe in {**{name: name for name in RECIPES}, "with a taxonomy": HIERARCHY}.items():
        errors = {}
        if name in RECIPES:
            errors["objective"] = _objective_error(place, Objective.from_recipe(recipe))
        want = _through_towers(torch.device("cpu"), recipe)
        errors["fp32"] = _error(_through_towers(place.device, recipe), want)
        reduced = _through_towers(place.device, recipe, "bf16")
        errors["bf16"] = max(_error(reduced, want), 10 * _error({"loss": reduced["loss"]}, want))
        bars = {"objective": OBJECTIVE_FP32, "fp32": MODEL_FP32, "bf16": MODEL_BF16}
        report.judged(
            f"loss and gradients, {name}",
            ", ".join(f"{kind} {error:.1e}" for kind, error in errors.items()),
            ", ".join(f"{bars[kind]:g}" for kind in errors),
            all(error <= bars[kind] for kind, error in errors.items()),
            **errors,
        )


def _objective_error(place: Place, objective: Objective) -> float:
    """Return the relative error of float32 on the device against float64 on the CPU."""
    recipe = objective.recipe
    boxes = recipe.max_boxes if recipe.max_boxes > 1 else None
    points = samples(place.of(512, 24), boxes, dim=place.of(512, 16), spread=1.0)
    found = []
    for device, dtype in ((torch.device("cpu"), torch.float64), (place.device, torch.float32)):
        moved = {role: x.float().to(device, dtype) for role, x in points.items()}
        inputs = {k: x.detach().to(device).requires_grad_() for k, x in leaves(moved, 1.0, recipe.scales).items()}
        loss = apply(objective, inputs).loss
        found.append({"loss": loss.detach(), **gradients(loss, inputs)})
    want, got = found
    return _error(got, want)


def _through_towers(device: torch.device, recipe: object, precision: str = "fp32") -> dict[str, Tensor]:
    """Return the loss and all gradients of a small model that is the same every time."""
    settings = {
        "output_dir": "-", "model": {"towers": TOWERS}, "objective": recipe, "data": {"shards": "-"},
        "train": {"steps": 1, "batch_size": 1},
    }  # fmt: skip
    plan = configure(settings)
    torch.manual_seed(0)
    model = HypCLIP(plan.config.model).to(device)
    wanted = plan.objective.recipe
    batch = make_batch((2, 1, 3, 1, 0, 2) * 4, max_boxes=wanted.max_boxes) if wanted.max_boxes > 1 else make_batch()
    batch = (with_taxonomy(batch) if wanted.uses_taxonomy else batch).to(device)
    loss, _ = forward_backward(model, model, plan.objective, batch, precision=precision)
    return {"loss": loss.loss, **{n: p.grad for n, p in model.named_parameters() if p.grad is not None}}


def _error(got: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> float:
    """Return the larger of two relative errors: that of the loss, and that of all gradients as one vector."""

    def off(names: list[str]) -> float:
        square = sum((got[n].double().cpu() - want[n].double().cpu()).square().sum().item() for n in names)
        return math.sqrt(square / sum(want[n].double().square().sum().item() for n in names))

    slopes = [name for name in got if name != "loss"]
    found = [off(["loss"]), off(slopes) if slopes else 0.0]
    return max(found) if all(map(math.isfinite, found)) else math.inf


def blockwise(place: Place, report: Report) -> None:
    """Compare the contrast in blocks with one that keeps B × B matrices, as papers write it with acosh."""
    two = [{"query": "image", "key": "text", "weight": 0.5}, {"query": "text", "key": "image", "weight": 0.5}]
    objective = Objective.from_recipe({"geometry": "lorentz", "contrast": two})
    for size in place.of((8_192, 32_768), (128, 512)):
        drawn = {role: x.float() for role, x in samples(size, dim=place.of(512, 16)).items() if role in two[0].values()}
        inputs = {k: x.detach().to(place.device).requires_grad_() for k, x in leaves(drawn, 1.0, _SCALE).items()}

        def blocks(inputs: dict[str, Tensor] = inputs) -> dict[str, Tensor]:
            loss = apply(objective, inputs).loss
            return {"loss": loss.detach(), **gradients(loss, inputs)}

        def dense(inputs: dict[str, Tensor] = inputs) -> dict[str, Tensor]:
            return _dense(inputs, len(inputs["text"]))

        seconds, peaks = {}, {}
        for name, form in (("blocks", blocks), ("dense", dense)):
            try:
                form()
                place.free()
                held = place.peak_gib()
                seconds[name], peaks[name] = place.seconds(form, 3), place.peak_gib() - held
            except torch.OutOfMemoryError:
                seconds[name] = peaks[name] = math.inf
            place.free()
        values = {f"{name}_{unit}": v for unit, of in (("s", seconds), ("gib", peaks)) for name, v in of.items()}
        report.measured(
            f"B = {size:,}, seconds forward and backward",
            f"{seconds['blocks']:.4f}, dense acosh {seconds['dense']:.4f}",
            **{name: v for name, v in values.items() if name.endswith("_s")},
        )
        what = f"B = {size:,}, GiB above the features"
        figure = f"{peaks['blocks']:.2f}, dense acosh {peaks['dense']:.2f}"
        if place.is_gpu:
            report.judged(what, figure, "a fifth of dense", peaks["blocks"] <= peaks["dense"] / 5, **values)
        exact = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
        error = _error(blocks(), _dense(exact, place.of(1_024, 100)))
        report.judged(f"B = {size:,}, error against float64", f"{error:.1e}", f"{CONTRAST:g}", error <= CONTRAST,
                      error=error)  # fmt: skip
        place.free()


_SCALE = {"logit_scale": 1 / 0.07}


def _dense(inputs: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
    """Return loss and gradients of both directions, from matrices of so many rows by B, with the clamp of float32."""
    size, curv, scale = len(inputs["text"]), inputs["curv"], inputs["logit_scale"]
    tiny = 1e-7 if curv.dtype == torch.float32 else 1e-15
    found = {name: torch.zeros_like(x) for name, x in inputs.items()} | {"loss": torch.zeros_like(curv)}

    def time_of(x: Tensor) -> Tensor:
        return torch.sqrt(1 / curv + x.square().sum(-1, keepdim=True))

    def logits(x: Tensor, y: Tensor) -> Tensor:
        minus_inner = time_of(x) @ time_of(y).T - x @ y.T
        return -scale * torch.acosh((curv * minus_inner).clamp(min=1 + tiny)) / curv.sqrt()

    whole = rows >= size  # both directions then share a matrix
    for start in range(0, size, rows):
        labels = torch.arange(start, min(start + rows, size), device=curv.device)
        image_text = logits(inputs["image"][labels], inputs["text"])
        text_image = image_text.T if whole else logits(inputs["text"][labels], inputs["image"])
        both = sum(cross_entropy(each, labels, reduction="sum") for each in (image_text, text_image))
        for name, slope in gradients(both / (2 * size), inputs).items():
            found[name] += slope
        found["loss"] += both.detach() / (2 * size)
    return found
