"""What a hierarchy costs in training, in ratios measured in one run.

Two rows: the objective alone at B = 2,048 and D = 512, with a concept role of 128 phrases, over its contrast; and a
whole step of the quickstart, towers included, over the same step without any term but the contrast.

    python tests/benchmarks/bench_hierarchy.py
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from hypclip.config import read
from hypclip.data.batch import Batch
from hypclip.model import HypCLIP
from hypclip.objective import Objective, Recipe
from hypclip.roles import MISSING
from hypclip.taxonomy import load as load_taxonomy
from hypclip.towers.passes import TextPasses
from hypclip.training.optim import adamw
from hypclip.training.settings import RunConfig, configure
from hypclip.training.step import forward_backward

ROOT = Path(__file__).parents[2]
REPEATS = 15
ROLES = ("image", "text", "box_image", "box_text")


def main() -> int:
    """Measure and print."""
    plan = configure(read(ROOT / "configs/quickstart.yaml", ["data.shards=."], RunConfig))
    recipe = plan.objective.recipe
    bare = contrast_alone(recipe)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians of {REPEATS}, interleaved")
    both = interleaved(objective_alone(recipe), objective_alone(bare))
    report("objective alone, B 2,048, D 512, 128 concepts", both, "1.5")
    step = interleaved(quickstart_step(plan.config, recipe), quickstart_step(plan.config, bare))
    report("a step of the quickstart", step, "1.15")
    return 0


def contrast_alone(recipe: Recipe) -> Recipe:
    """Return the recipe without any term but its contrast."""
    return replace(recipe, edges=(), entail=(), order=(), lineage=(), anchors=(), skip_related=False)


def objective_alone(recipe: Recipe, size: int = 2048, dim: int = 512) -> Callable[[], None]:
    """Return a call that finds the loss and the gradients of points."""
    generator = torch.Generator().manual_seed(0)
    points = {role: 0.05 * torch.randn(size, dim, generator=generator) for role in ROLES}
    points["concept"] = 0.03 * torch.randn(128, dim, generator=generator)
    points = {role: x.requires_grad_() for role, x in points.items()}
    content, ancestors, levels = known(size, 128, generator)
    objective = Objective(recipe)
    curv, scale = torch.tensor(1.0, requires_grad=True), torch.tensor(14.0, requires_grad=True)

    def call() -> None:
        found = objective(points, curv=curv, logit_scale=scale, content=content, ancestors=ancestors, levels=levels)
        found.loss.backward()
        for x in points.values():
            x.grad = None

    return call


def known(size: int, concepts: int, generator: torch.Generator) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Return contents, ancestors and levels: 11 families, the other concepts kinds, and 1,000 names."""
    names = torch.randint(1000, 2000, (size,), generator=generator)
    kind = names % (concepts - 11) + 11
    family = torch.arange(concepts) % 11
    content = {"image": torch.arange(size) + 10_000, "text": torch.arange(size) + 20_000}
    content |= {"box_image": torch.arange(size) + 30_000, "box_text": names, "concept": torch.arange(concepts)}
    levels = (torch.arange(concepts) >= 11).long()
    above = torch.where(levels.bool(), family, MISSING)
    ancestors = {
        "box_text": torch.stack([kind, family[kind]], 1),
        "text": torch.full((size, 2), MISSING),
        "concept": torch.stack([above, torch.full_like(above, MISSING)], 1),
    }
    return content, ancestors, levels


def quickstart_step(config: RunConfig, recipe: Recipe) -> Callable[[], None]:
    """Return a call that makes a step of the quickstart on one batch that is at hand."""
    torch.manual_seed(0)
    model = HypCLIP(config.model).train()
    model.to(memory_format=torch.channels_last)
    model.use_explicit_attention()  # as a run on a CPU has it
    optimizer = adamw(model, learning_rate=1e-4, weight_decay=0.05, betas=config.train.betas)
    objective, batch = Objective(recipe), quickstart_batch(model, config, recipe)

    def call() -> None:
        optimizer.zero_grad()
        forward_backward(model, model, objective, batch)
        optimizer.step()

    return call


def quickstart_batch(model: HypCLIP, config: RunConfig, recipe: Recipe) -> Batch:
    """Return pixels of noise and real phrases, as many of each as a batch of the quickstart has."""
    generator = torch.Generator().manual_seed(1)
    size = config.train.batch_size
    taxonomy = load_taxonomy("emoji")
    names = [taxonomy.phrases[int(i)] for i in torch.randint(77, len(taxonomy), (2 * size,), generator=generator)]
    captions = [f"{a} next to {b} on a plain red background" for a, b in zip(names[:size], names[size:], strict=True)]
    pixels = {role: torch.randn(size, 3, 64, 64, generator=generator) for role in ("image", "box_image")}
    pixels = {role: x.to(memory_format=torch.channels_last) for role, x in pixels.items()}
    content, ancestors, levels = known(size, 77, generator)
    texts = {"text": captions, "box_text": names[:size]}
    if recipe.uses_taxonomy:
        texts["concept"] = list(taxonomy.general)[:77]
        levels = levels[: len(texts["concept"])]
        content["concept"], ancestors["concept"] = (x["concept"][: len(levels)] for x in (content, ancestors))
    rows = {role: model.tokenizer.encode(found) for role, found in texts.items()}
    passes = TextPasses.plan(rows, model.tokenizer.pad_id, model.pass_tokens)
    if recipe.uses_taxonomy:
        return Batch(pixels, passes, content, ancestors=ancestors, levels=levels)
    return Batch(pixels, passes, {role: ids for role, ids in content.items() if role != "concept"})


def interleaved(first: Callable[[], None], second: Callable[[], None]) -> tuple[float, float]:
    """Return the median seconds of each, called in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for call in (first, second, first, second):
        call()
    for _ in range(REPEATS):
        for call, seen in zip((first, second), times, strict=True):
            began = time.perf_counter()
            call()
            seen.append(time.perf_counter() - began)
    return statistics.median(times[0]), statistics.median(times[1])


def report(what: str, seconds: tuple[float, float], bar: str) -> None:
    """Print one row."""
    ours, bare = seconds
    print(f"{what:<48} {1e3 * ours:8.1f} ms  contrast alone {1e3 * bare:8.1f} ms  ratio {ours / bare:.2f} (bar {bar})")


if __name__ == "__main__":
    sys.exit(main())
