"""The cross-entropy in blocks against the dense one, logits and all, by autograd."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from hypclip.objective import Objective, blockwise
from hypclip.objective.blockwise import Bars, Points, Term
from tests.support.environment import environment
from tests.support.objective import SETTINGS, apply, assert_near, gradients, leaves, samples
from tests.support.training import ROOT

FORMS = {
    "cosine": ("dot", "sum", 1),
    "squared": ("squared", "sum", 1),
    "euclidean": ("euclidean", "sum", 1),
    "lorentz": ("lorentz", "sum", 1),
    "l1": ("lorentz", "sum", 3),
    "l2": ("lorentz", "l2", 3),
}
each_form = pytest.mark.parametrize("form", FORMS)
each_dtype = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
BLOCKS = {"one block": (10**6, 10**6), "ragged": (5, 2), "ragged chunks": (13, 3), "rows": (1, 1)}
"""Rows a block and a chunk, of 13."""
N, DIM = 13, 4


def set_blocks(monkeypatch: pytest.MonkeyPatch, blocks: str, columns: int, factors: int = 1) -> None:
    rows, chunk = BLOCKS[blocks]
    monkeypatch.setattr(blockwise, "BLOCK", rows * factors * columns)
    monkeypatch.setattr(blockwise, "CHUNK", chunk * factors * columns)


def heights(form: str, x: Tensor, curv: Tensor) -> Tensor:
    squared = x.square().sum(-1)
    if FORMS[form][0] == "lorentz":
        return torch.sqrt(1 + curv.unsqueeze(1) * squared) - 1
    return squared if form != "cosine" else x.new_empty(0)


def drawn(
    form: str, m: int = N, *, scale: float | None = None, radius: float = 1.0, seed: int = 0
) -> dict[str, Tensor]:
    """Draw what a contrast is differentiated by, in float64; scales all the same or row by row."""
    generator = torch.Generator().manual_seed(seed)
    factors = FORMS[form][2]

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    query, key = radius * rand(factors, N, DIM), radius * rand(factors, m, DIM)
    if form == "cosine":
        query, key = torch.nn.functional.normalize(query, dim=-1), torch.nn.functional.normalize(key, dim=-1)
    curv = rand(factors).abs() + 0.3
    return {
        "query": query,
        "key": key,
        "query_h": heights(form, query, curv),
        "key_h": heights(form, key, curv),
        "own": -rand(N).abs(),
        "scale": rand(N).abs() + 0.5 if scale is None else torch.full((N,), scale, dtype=torch.float64),
        "factor_weight": rand(factors).abs() + 0.3,
        **({"curv": curv} if FORMS[form][0] == "lorentz" else {}),
    }


def ready(inputs: dict[str, Tensor], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {name: x.detach().to(dtype, copy=True).requires_grad_() for name, x in inputs.items()}


def no_bars() -> Bars:
    none = torch.empty(0, dtype=torch.int64)
    return Bars(none.view(0, 0), none.view(0, 0), none.bool(), none.bool())


def some_bars(m: int, *, both: bool) -> Bars:
    """Duplicates among keys, two keys that are absent, and, in both directions, two absent queries."""
    absent, absent_query = torch.zeros(m, dtype=torch.bool), torch.zeros(N, dtype=torch.bool)
    absent[[2, 9]] = True
    absent_query[[4, 9]] = True
    ids = torch.stack([torch.arange(max(N, m)) % 5, torch.arange(max(N, m)) // 4 + 10])
    return Bars(ids[:, :N], ids[:, :m], absent, absent_query if both else absent_query[:0])


def term(
    inputs: dict[str, Tensor], target: Tensor, weight: Tensor, bars: Bars, key_weight: Tensor | None = None
) -> Term:
    query, key = (Points(inputs[side], inputs[f"{side}_h"]) for side in ("query", "key"))
    return Term(query, key, inputs["own"], inputs["scale"], target, weight, bars, key_weight)


def contrasted(form: str, inputs: dict[str, Tensor], *terms: Term) -> tuple[Tensor, Tensor]:
    kind, reduce, _ = FORMS[form]
    return blockwise.contrast(
        terms, form=kind, factor_weight=inputs["factor_weight"], reduce=reduce, curv=inputs.get("curv")
    )


def blocked(form: str, inputs: dict[str, Tensor], *term_arguments: Any, **more: Any) -> tuple[Tensor, Tensor]:
    """Return the loss of one term, and its value in each direction."""
    loss, values = contrasted(form, inputs, term(inputs, *term_arguments, **more))
    return loss, values[0]


def dense(
    form: str, inputs: dict[str, Tensor], target: Tensor, weight: Tensor, bars: Bars, key_weight: Tensor | None = None
) -> Tensor:
    kind, reduce, _ = FORMS[form]
    product = inputs["query"] @ inputs["key"].mT
    if "curv" in inputs:
        product = inputs["curv"].view(-1, 1, 1) * product
    hq, hk = inputs["query_h"].unsqueeze(-1), inputs["key_h"].unsqueeze(-2)
    d = {
        "dot": lambda: -product,
        "squared": lambda: hq + hk - 2 * product,
        "euclidean": lambda: (hq + hk - 2 * product).sqrt(),
        "lorentz": lambda: torch.acosh((1 + hq) * (1 + hk) - product),
    }[kind]()
    weighted = d * inputs["factor_weight"].view(-1, 1, 1)
    d = weighted.sum(0) if reduce == "sum" else weighted.square().sum(0).sqrt()
    rows = torch.arange(N)
    own = torch.zeros(d.shape, dtype=torch.bool).index_put((rows, target), torch.tensor(True))
    barred = torch.zeros_like(own)
    for query_id, key_id in zip(bars.query_ids, bars.key_ids, strict=True):
        barred = barred | (query_id.unsqueeze(1) == key_id)
    if bars.absent.numel():
        barred = barred | bars.absent
    if bars.absent_query.numel():
        barred = barred | bars.absent_query.unsqueeze(1)
    logits = torch.where(own, inputs["own"].unsqueeze(1), -inputs["scale"].unsqueeze(1) * d)
    logits = logits.masked_fill(barred & ~own, -torch.inf)
    loss = weight @ (torch.logsumexp(logits, 1) - inputs["own"])
    return loss if key_weight is None else loss + key_weight @ (torch.logsumexp(logits, 0) - inputs["own"])


# Blocks and the dense form --------------------------------------------------------------------------------------------


@each_form
@each_dtype
@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("barred", [False, True], ids=["free", "barred"])
def test_one_direction_is_the_dense_form(form, dtype, tolerance, blocks, barred, monkeypatch):
    m = 17
    set_blocks(monkeypatch, blocks, m, FORMS[form][2])
    target, weight = torch.randperm(m)[:N], torch.rand(N, dtype=torch.float64)
    bars = some_bars(m, both=False) if barred else no_bars()
    exact = ready(drawn(form, m))
    inputs = ready(exact, dtype)
    loss, values = blocked(form, inputs, target, weight.to(dtype), bars)
    expected = dense(form, exact, target, weight, bars)
    assert_near({"loss": loss, "there": values[0]}, {"loss": expected, "there": expected}, tolerance)
    assert values[1] == 0
    assert_near(gradients(loss, inputs), gradients(expected, exact), tolerance)


@each_form
@each_dtype
@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("barred", [False, True], ids=["free", "barred"])
def test_both_directions_are_the_dense_form(form, dtype, tolerance, blocks, barred, monkeypatch):
    set_blocks(monkeypatch, blocks, N, FORMS[form][2])
    target, weight, back = torch.arange(N), torch.rand(N, dtype=torch.float64), torch.rand(N, dtype=torch.float64)
    bars = some_bars(N, both=True) if barred else no_bars()
    exact = ready(drawn(form, scale=1.7))
    inputs = ready(exact, dtype)
    loss, values = blocked(form, inputs, target, weight.to(dtype), bars, key_weight=back.to(dtype))
    there = dense(form, exact, target, weight, bars)
    expected = dense(form, exact, target, weight, bars, back)
    found = {"loss": loss, "there": values[0], "back": values[1]}
    assert_near(found, {"loss": expected, "there": there, "back": expected - there}, tolerance)
    assert_near(gradients(loss, inputs), gradients(expected, exact), tolerance)


@each_form
@pytest.mark.parametrize("blocks", BLOCKS)
def test_both_directions_are_two_single_ones(form, blocks, monkeypatch):
    set_blocks(monkeypatch, blocks, N, FORMS[form][2])
    target, weight, back = torch.arange(N), torch.rand(N, dtype=torch.float64), torch.rand(N, dtype=torch.float64)
    inputs = ready(drawn(form, scale=1.7))
    bars = some_bars(N, both=True)
    mirrored = {
        "query": inputs["key"], "query_h": inputs["key_h"], "key": inputs["query"], "key_h": inputs["query_h"],
        **{name: x for name, x in inputs.items() if name not in ("query", "query_h", "key", "key_h")},
    }  # fmt: skip
    here = Bars(bars.key_ids, bars.query_ids, bars.absent_query, bars.absent[:0])
    present = (
        ~bars.absent & ~bars.absent_query
    ).double()  # of an absent row, the own key is no candidate in one of them
    loss, values = blocked(form, inputs, target, weight * present, bars, key_weight=back * present)
    there, _ = blocked(form, inputs, target, weight * present, bars._replace(absent_query=bars.absent_query[:0]))
    here, _ = blocked(form, mirrored, target, back * present, here)
    torch.testing.assert_close(values, torch.stack([there, here]).detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(loss, there + here, rtol=1e-12, atol=0)
    found, expected = gradients(loss, inputs), gradients(there + here, inputs)
    for gradient in (found, expected):
        gradient["scale"] = gradient["scale"].sum()  # of one number: to which row its share goes makes no difference
    assert_near(found, expected, 1e-12)


@each_form
@pytest.mark.parametrize("both", [True, False])
def test_the_upstream_gradient_multiplies(form, both):
    inputs, weight = ready(drawn(form, scale=2.0)), torch.ones(N, dtype=torch.float64)
    loss, _ = blocked(form, inputs, torch.arange(N), weight, no_bars(), key_weight=weight if both else None)
    once, more = gradients(loss, inputs), gradients((-3.5 * loss).exp() * 2, inputs)
    factor = -7.0 * (-3.5 * loss).exp().item()
    assert_near(more, {name: factor * g for name, g in once.items()}, 1e-12)


@each_form
@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("blocks", ["one block", "ragged"])
def test_without_gradients_the_value_is_the_same(form, both, blocks, monkeypatch):
    set_blocks(monkeypatch, blocks, N, FORMS[form][2])
    inputs, weight = ready(drawn(form, scale=2.0)), torch.rand(N, dtype=torch.float64)
    arguments = (form, inputs, torch.arange(N), weight, some_bars(N, both=both))
    loss, values = blocked(*arguments, key_weight=weight if both else None)
    with torch.no_grad():
        again, parts = blocked(*arguments, key_weight=weight if both else None)
    assert not again.requires_grad
    torch.testing.assert_close((again, parts), (loss.detach(), values), rtol=1e-14, atol=0)


@each_form
@pytest.mark.parametrize("both", [True, False])
def test_large_logits_do_not_overflow(form, both, monkeypatch):
    """Scale 100 and distances to 10: logits of 1,000, where exp() is infinite even in float64."""
    set_blocks(monkeypatch, "ragged", N, FORMS[form][2])
    inputs = drawn(form, scale=100.0, radius=30.0 if "l" in form else 2.0)
    inputs["own"] = -torch.linspace(0, 1000, N, dtype=torch.float64)
    exact, weight = ready(inputs), torch.rand(N, dtype=torch.float64)
    expected = dense(form, exact, torch.arange(N), weight, no_bars(), weight if both else None)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-3)):  # float32 logits are good to 1e-4
        single = ready(exact, dtype)
        key_weight = weight.to(dtype) if both else None
        loss, _ = blocked(form, single, torch.arange(N), weight.to(dtype), no_bars(), key_weight=key_weight)
        found = gradients(loss, single)
        assert all(g.isfinite().all() for g in found.values())
        assert_near({"loss": loss}, {"loss": expected}, tolerance)
        if dtype == torch.float64:
            assert_near(found, gradients(expected, exact), tolerance)


@each_form
@pytest.mark.parametrize("blocks", BLOCKS)
def test_several_terms_are_their_sum(form, blocks, monkeypatch):
    """Terms of other sizes, of shared points on the same side and on the other, in one direction and in both."""
    set_blocks(monkeypatch, blocks, N, FORMS[form][2])
    one, two = drawn(form, scale=1.7), drawn(form, 17, seed=1)
    two = {name: one[name] if name in ("query", "query_h", "factor_weight", "curv") else two[name] for name in two}
    two["key_h"] = heights(form, two["key"], one.get("curv", torch.ones(1)))
    inputs = ready(one | {f"{name}2": x for name, x in two.items() if x is not one.get(name)})
    second = {name: inputs.get(f"{name}2", inputs.get(name)) for name in two}
    third = {
        **inputs,
        "query": inputs["key"],
        "query_h": inputs["key_h"],
        "key": inputs["query"],
        "key_h": inputs["query_h"],
    }
    weight, target = torch.rand(N, dtype=torch.float64), torch.randperm(17)[:N]
    terms = [
        (inputs, torch.arange(N), weight, some_bars(N, both=True), weight.flip(0)),
        (second, target, 2 * weight, some_bars(17, both=False)),
        (third, torch.arange(N), 3 * weight, no_bars()),
    ]
    loss, values = contrasted(form, inputs, *(term(*arguments) for arguments in terms))
    single = [blocked(form, *arguments) for arguments in terms]
    torch.testing.assert_close(values, torch.stack([parts for _, parts in single]), rtol=1e-12, atol=0)
    expected = torch.stack([dense(form, *arguments) for arguments in terms]).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    assert_near(gradients(loss, inputs), gradients(expected, inputs), 1e-10)


def test_inputs_and_earlier_results_are_left_alone():
    inputs, weight = ready(drawn("l1", scale=2.0)), torch.ones(N, dtype=torch.float64)
    before = {name: x.detach().clone() for name, x in inputs.items()}
    loss, _ = blocked("l1", inputs, torch.arange(N), weight, no_bars(), key_weight=weight)
    first = gradients(loss, inputs)
    blocked("l1", ready(drawn("l1", scale=3.0, seed=1)), torch.arange(N), weight, no_bars())
    second = gradients(loss, inputs)
    for name in inputs:
        assert torch.equal(inputs[name], before[name])
        assert torch.equal(first[name], second[name])


# Through an objective -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
@each_dtype
def test_a_loss_does_not_depend_on_the_size_of_blocks(name, dtype, tolerance, monkeypatch):
    objective = Objective.from_recipe(SETTINGS[name])
    features = {role: x.to(dtype) for role, x in samples(11).items()}
    inputs = leaves(features, [0.3, 1.0, 2.0] if name.startswith("phyclip") else 0.7)
    content = {"text": torch.arange(11) % 8, "box_text": torch.arange(11) % 4 - 1}
    content = {role: content[role] for role in content if role in objective.recipe.roles}
    found = []
    for block, chunk in ((1 << 22, 1 << 18), (11 * 3 * 4, 11 * 3 * 3), (1, 1)):
        monkeypatch.setattr(blockwise, "BLOCK", block)
        monkeypatch.setattr(blockwise, "CHUNK", chunk)
        loss = apply(objective, inputs, content=content)
        found.append(gradients(loss.loss, inputs) | {"loss": loss.loss} | loss.parts)
    for other in found[1:]:
        assert_near(other, found[0], tolerance)


def test_hundreds_of_samples_take_several_blocks_as_they_come(monkeypatch):
    """With nothing but BLOCK lowered, the way a batch of thousands is worked on."""
    objective = Objective.from_recipe("hycoclip")
    inputs = leaves({role: x.float() for role, x in samples(300, dim=16).items()}, scales={"logit_scale": 1 / 0.07})
    expected = apply(objective, inputs).loss
    monkeypatch.setattr(blockwise, "BLOCK", 128 * 300)
    loss = apply(objective, inputs).loss
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    assert_near(gradients(loss, inputs), gradients(expected, inputs), 1e-5)


MEMORY = """
import resource, torch
from hypclip.objective import Objective

torch.set_num_threads(1)
torch.manual_seed(0)
objective = Objective.from_recipe("hycoclip")

def step(size):
    roles = ("image", "text", "box_image", "box_text")
    features = {role: (torch.randn(size, 64) / 8).requires_grad_() for role in roles}
    curv = torch.tensor(1.0, requires_grad=True)
    objective(features, curv=curv, logit_scale=10.0).loss.backward()
    assert all(x.grad.isfinite().all() for x in (*features.values(), curv))

step(64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(4096)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_no_matrix_of_all_pairs_is_kept():
    """Its four contrasts keep at least a distance matrix and a softmax each in a dense form, 8 × 64 MiB in float32."""
    run = subprocess.run(
        [sys.executable, "-c", MEMORY], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) / 1024 < 2 * 64
