"""Cross-entropy over all pairs of a batch, block by block: no B × B matrix is kept, neither forward nor backward.

The gradient of a cross-entropy with respect to its logits, softmax − one-hot, needs only the logits and their
log-sum-exp. So each block of rows computes its similarities, its log-sum-exp, its gradient, and the products of that
gradient with queries and keys at once, and is forgotten; the backward pass multiplies what the forward pass found by
the incoming scalar. A term in both directions, image → text and text → image, takes both softmaxes from one block; when
the batch has more than one block, the log-sum-exp of the columns runs along in a first sweep.

Similarities are −scale · distance, the distance being computed from one matmul:

    dot         −q·k                                   the cosine of rows of length 1, as a distance
    squared     |q − k|² = |q|² + |k|² − 2 q·k
    euclidean   its root
    lorentz     acosh(1 + w), w = h_q + h_k + h_q h_k − c q·k, with h = cosh ρ − 1: the distance times √c

`lorentz` is the polar form: the rounding of w is that of sinh ρ_q sinh ρ_k, not of cosh ρ_q cosh ρ_k, so that it serves
small radii as well, where published models live. Several factors, stacked in front, give a product of such spaces.
The similarity of a query and its own key, where the matmul may cancel, comes in from outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from hypclip.geometry.acosh import acosh1p_
from hypclip.geometry.precision import is_readable

Form = Literal["dot", "squared", "euclidean", "lorentz"]
Reduce = Literal["sum", "l2"]

BLOCK = 1 << 22
"""Similarities held at once, of all factors together: 16 MiB in float32."""
CHUNK = 1 << 18
"""Similarities worked on at once: small enough to stay in the cache from one elementwise pass to the next."""
GPU_BLOCK = 1 << 24
"""Both on a GPU, where each operation is a launch: all pairs of 4,096 samples, five tensors of 64 MiB in float32."""


def block_sizes(device: torch.device) -> tuple[int, int]:
    """Return the number of similarities that are held, and that are worked on, at once on a device."""
    return (BLOCK, CHUNK) if device.type == "cpu" else (GPU_BLOCK, GPU_BLOCK)


class Points(NamedTuple):
    """One side of a contrast: coordinates (F, n, d) of F factors, and h (F, n), see the forms above; empty for dot."""

    rows: Tensor
    h: Tensor


class Bars(NamedTuple):
    """Keys that are no candidates of a query, its own key excepted.

    Ids (p, n) and (p, m) bar a pair where any of the p is equal; `absent` (m,) bars a key from everybody, and in both
    directions `absent_query` (n,) bars a query from being a candidate of the keys. Empty tensors bar nothing.
    """

    query_ids: Tensor
    key_ids: Tensor
    absent: Tensor
    absent_query: Tensor


class Term(NamedTuple):
    """Σ_i weight_i CE_i, CE_i the cross-entropy of the logits −scale_i · distance(i, ·) at key target_i.

    Attributes:
        query: n queries.
        key: m keys.
        own: (n,) logit of each query and its own key, computed row by row.
        scale: (n,) positive.
        target: (n,) int64, the own key of each query.
        weight: (n,), the weight of each cross-entropy.
        bars: see Bars.
        key_weight: (m,), the weight of the cross-entropy of each key over the queries. It adds the other direction;
            then m = n, target_i = i, and all scales must be the same.
    """

    query: Points
    key: Points
    own: Tensor
    scale: Tensor
    target: Tensor
    weight: Tensor
    bars: Bars
    key_weight: Tensor | None = None


def contrast(
    terms: Sequence[Term],
    *,
    form: Form,
    factor_weight: Tensor,
    reduce: Reduce = "sum",
    curv: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the sum of all terms, differentiable, and the value of each term and direction, (T, 2), which is not.

    Terms that share their `Points` share their gradients, and all share the working memory. The gradient cannot be
    differentiated again.

    Args:
        terms: see Term.
        form: see the module.
        factor_weight: (F,), the weight of the distance in each factor.
        reduce: the distance is Σ_f a_f d_f, or for "l2" the root of Σ_f (a_f d_f)².
        curv: (F,), the c of the lorentz form, 1 when absent.
    """
    scales = [term.scale for term in terms]
    if len(factor_weight) == 1:
        scales, factor_weight = [scale * factor_weight for scale in scales], torch.ones_like(factor_weight)
    sides: dict[int, Points] = {}
    for term in terms:
        sides.setdefault(id(term.query.rows), term.query)
        sides.setdefault(id(term.key.rows), term.key)
    places = {name: place for place, name in enumerate(sides)}
    curv = torch.ones_like(factor_weight) if curv is None else curv
    rows, h = [side.rows for side in sides.values()], [side.h for side in sides.values()]
    own = [term.own for term in terms]
    gradient = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in (*rows, *h, *own, *scales, factor_weight, curv)
    )
    loss, values, *_ = _contrast(
        rows, h, own, scales, factor_weight, curv,
        [term.target for term in terms], [term.weight for term in terms],
        [own[0].new_empty(0) if term.key_weight is None else term.key_weight for term in terms],
        *([term.bars[part] for term in terms] for part in range(4)),
        [places[id(term.query.rows)] for term in terms], [places[id(term.key.rows)] for term in terms],
        form, reduce, gradient,
    )  # fmt: skip
    return loss, values


_SCHEMA = (
    "(Tensor[] rows, Tensor[] h, Tensor[] own, Tensor[] scale, Tensor factor_weight, Tensor curv, Tensor[] target, "
    "Tensor[] weight, Tensor[] key_weight, Tensor[] query_ids, Tensor[] key_ids, Tensor[] absent, "
    "Tensor[] absent_query, int[] query, int[] key, str form, str reduce, bool gradient) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


@torch.library.custom_op("hypclip::contrast", mutates_args=(), schema=_SCHEMA)
def _contrast(
    rows: list[Tensor],
    h: list[Tensor],
    own: list[Tensor],
    scale: list[Tensor],
    factor_weight: Tensor,
    curv: Tensor,
    target: list[Tensor],
    weight: list[Tensor],
    key_weight: list[Tensor],
    query_ids: list[Tensor],
    key_ids: list[Tensor],
    absent: list[Tensor],
    absent_query: list[Tensor],
    query: list[int],
    key: list[int],
    form: str,
    reduce: str,
    gradient: bool,
) -> tuple[Tensor, ...]:
    """Return the loss, the values, and the gradients of the first six arguments, those of lists end to end."""
    lists = (rows, h, own, scale)
    flat = [own[0].new_empty(_length(parts)) for parts in lists]
    d_rows, d_h, d_own, d_scale = (
        _split(whole, [part.shape for part in parts]) for whole, parts in zip(flat, lists, strict=True)
    )
    d_factor_weight, d_curv = torch.zeros_like(factor_weight), torch.zeros_like(curv)
    values = own[0].new_zeros(len(own), 2)
    if form == "lorentz":
        # d = acosh(1 + h_q + h_k + h_q h_k − c q·k): one number for a matmul, or scaled rows for one per factor, and
        # where the number would have to be waited for.
        one = len(curv) == 1 and is_readable(curv)
        alpha, scaled = (-float(curv), rows) if one else (-1.0, [x * curv.view(-1, 1, 1) for x in rows])
    else:
        alpha, scaled = -1.0 if form == "dot" else -2.0, rows
    work = _Work(rows[0], max(rows[q].shape[1] for q in query), max(rows[k].shape[1] for k in key))
    fresh = set(range(len(rows)))
    with torch.autocast(own[0].device.type, enabled=False):
        for t, (q, k) in enumerate(zip(query, key, strict=True)):
            sweep = _Sweep(
                work, Points(rows[q], h[q]), Points(rows[k], h[k]), scaled[q], scaled[k], alpha, own[t], scale[t],
                target[t], weight[t], Bars(query_ids[t], key_ids[t], absent[t], absent_query[t]), form, factor_weight,
                reduce, Gradients(d_rows[q], d_h[q], d_rows[k], d_h[k], d_own[t], d_scale[t], d_factor_weight),
                q in fresh, k in fresh,
            )  # fmt: skip
            fresh -= {q, k}
            if len(key_weight[t]):
                sweep.both(key_weight[t], gradient, values[t])
            else:
                sweep.rows_only(gradient, values[t])
        if gradient and form == "lorentz":
            # −Σ G_ij q_i·k_j: the rows' own gradients hold it twice, once as a query's and once as a key's, times c.
            for x, d_x in zip(rows, d_rows, strict=True):
                d_curv += torch.linalg.vecdot(x, d_x).sum(1)
            d_curv /= 2 * curv
    return values.sum(), values, *flat, d_factor_weight, d_curv


@_contrast.register_fake
def _(
    rows: list[Tensor], h: list[Tensor], own: list[Tensor], scale: list[Tensor], factor_weight: Tensor, curv: Tensor,
    *_: Any
) -> tuple[Tensor, ...]:  # fmt: skip
    flat = [own[0].new_empty(_length(parts)) for parts in (rows, h, own, scale)]
    values = own[0].new_empty(len(own), 2)
    return own[0].new_empty(()), values, *flat, torch.empty_like(factor_weight), torch.empty_like(curv)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[2:])
    ctx.shapes = [[part.shape for part in parts] for parts in inputs[:4]]


def _multiply(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Any, ...]:
    found = ctx.saved_tensors
    traced = torch.compiler.is_compiling() or type(upstream) is not Tensor
    if not traced and torch.is_grad_enabled():
        raise NotImplementedError("the gradient of contrast cannot be differentiated again")
    if traced or not is_readable(upstream) or float(upstream) != 1:
        found = tuple(upstream * part for part in found)
    lists = [_split(whole, shapes) for whole, shapes in zip(found[:4], ctx.shapes, strict=True)]
    constant = [[None] * len(ctx.shapes[2]) for _ in range(7)]
    return *lists, *found[4:], *constant, *[None] * 5


_contrast.register_autograd(_multiply, setup_context=_keep)


def _length(parts: list[Tensor]) -> int:
    return sum(part.numel() for part in parts)


def _split(whole: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    lengths = [shape.numel() for shape in shapes]
    return [part.view(shape) for part, shape in zip(torch.split(whole, lengths), shapes, strict=True)]


class Gradients(NamedTuple):
    """Buffers for the gradients of a term."""

    query_rows: Tensor
    query_h: Tensor
    key_rows: Tensor
    key_h: Tensor
    own: Tensor
    scale: Tensor
    factor_weight: Tensor


class _Work:
    """The memory that terms work in, for blocks and chunks of at most `block_sizes`."""

    def __init__(self, like: Tensor, most_queries: int, most_keys: int):
        self.factors = like.shape[0]
        largest = block_sizes(like.device)
        block = min(most_queries * most_keys, max(largest[0] // self.factors, most_keys))
        chunk = min(block, max(largest[1] // self.factors, most_keys))
        self.sim, self.slope = (like.new_empty(self.factors * block) for _ in range(2))
        self.spare = [like.new_empty(self.factors * chunk) for _ in range(2 if self.factors == 1 else 3)]
        self.logits = like.new_empty(block) if self.factors > 1 else self.sim


class _Sweep:
    """One term, block by block."""

    def __init__(
        self,
        work: _Work,
        query: Points,
        key: Points,
        scaled_query: Tensor,
        scaled_key: Tensor,
        alpha: float,
        own: Tensor,
        scale: Tensor,
        target: Tensor,
        weight: Tensor,
        bars: Bars,
        form: str,
        factor_weight: Tensor,
        reduce: str,
        gradients: Gradients,
        query_fresh: bool,
        key_fresh: bool,
    ):
        self.query, self.key, self.own, self.target, self.weight = query, key, own, target, weight
        self.scaled_query, self.scaled_key, self.alpha = scaled_query, scaled_key, alpha
        self.bars, self.form, self.factor_weight, self.reduce = bars, form, factor_weight, reduce
        self.d, self.query_fresh, self.key_fresh = gradients, query_fresh, key_fresh
        self.minus_scale = -scale
        self.barred = any(part.numel() > 0 for part in bars)
        self.factors, self.n, _ = query.rows.shape
        self.m = key.rows.shape[1]
        block_size, chunk_size = block_sizes(own.device)
        self.rows = max(1, min(self.n, block_size // (self.factors * self.m)))
        self.chunk = max(1, min(self.rows, chunk_size // (self.factors * self.m)))
        block, chunk = (self.factors, self.rows, self.m), (self.factors, self.chunk, self.m)
        self.sim, self.slope = (_view(part, block) for part in (work.sim, work.slope))
        self.work = [_view(part, chunk) for part in work.spare]
        self.logits = _view(work.logits, block[1:])

    def rows_only(self, gradient: bool, values: Tensor) -> None:
        """Sweep once: a row is complete within its block."""
        if gradient:
            torch.neg(self.weight, out=self.d.own)
        for a, b in self._blocks():
            self._similarities(a, b)
            for i, j in self._chunks(a, b):
                logits = self._logits(a, i, j)
                top = logits.amax(1, keepdim=True)
                p = torch.sub(logits, top, out=self.work[0][0, : j - i]).exp_()
                total = p.sum(1, keepdim=True)
                lse = (top + total.log()).squeeze(1)
                values[0] += torch.dot(self.weight[i:j], lse - self.own[i:j])
                if gradient:
                    p.mul_((self.weight[i:j] * self.minus_scale[i:j]).unsqueeze(1) / total)
                    self._from_logits(a, i, j, p)
            if gradient:
                self._products(a, b)

    def both(self, key_weight: Tensor, gradient: bool, values: Tensor) -> None:
        """Sweep for the log-sum-exp of rows and columns, then for the gradient; one block is computed only once."""
        highest, row_total = torch.empty_like(self.own), torch.empty_like(self.own)
        top, total = torch.full_like(self.own, -torch.inf), torch.zeros_like(self.own)
        for a, b in self._blocks():
            self._similarities(a, b)
            for i, j in self._chunks(a, b):
                logits = self._logits(a, i, j)
                p, by_key = (self.work[k][0, : j - i] for k in (0, 1))
                torch.amax(logits, 1, out=highest[i:j])
                torch.sub(logits, highest[i:j].unsqueeze(1), out=p).exp_()
                torch.sum(p, 1, out=row_total[i:j])
                raised = torch.maximum(top, logits.amax(0))
                torch.sub(logits, raised, out=by_key).exp_()
                total = total * (top - raised).exp() + by_key.sum(0)
                top = raised
        lse, key_lse = highest + row_total.log(), top + total.log()
        values[0] = self.weight.dot(lse - self.own)
        values[1] = key_weight.dot(key_lse - self.own)
        if not gradient:
            return
        torch.add(self.weight, key_weight, out=self.d.own).neg_()
        # Softmax as exp(logits − max) · weight/sum: the rounding of a log-sum-exp would shift whole rows.
        row_factor, key_factor = self.weight / row_total * self.minus_scale, key_weight / total
        for a, b in self._blocks():
            if self.rows < self.n:
                self._similarities(a, b)
            for i, j in self._chunks(a, b):
                p, by_key = (self.work[k][0, : j - i] for k in (0, 1))
                if self.chunk < self.n:  # else both still hold what the first sweep left
                    logits = self._logits(a, i, j) if self.rows < self.n else self.logits[i - a : j - a]
                    torch.sub(logits, highest[i:j].unsqueeze(1), out=p).exp_()
                    torch.sub(logits, top, out=by_key).exp_()
                by_key.mul_(self.minus_scale[i:j].unsqueeze(1) * key_factor)
                self._from_logits(a, i, j, p.mul_(row_factor[i:j].unsqueeze(1)).add_(by_key))
            self._products(a, b)

    def _blocks(self) -> list[tuple[int, int]]:
        return [(a, min(a + self.rows, self.n)) for a in range(0, self.n, self.rows)]

    def _chunks(self, a: int, b: int) -> list[tuple[int, int]]:
        return [(i, min(i + self.chunk, b)) for i in range(a, b, self.chunk)]

    def _similarities(self, a: int, b: int) -> None:
        """Fill the block with w, or what takes its place in another form."""
        out, q, k = self.sim[:, : b - a], self.scaled_query[:, a:b], self.key.rows
        beta = 0.0 if self.form == "dot" else 1.0
        if self.form != "dot":
            hq, hk = self.query.h[:, a:b].unsqueeze(2), self.key.h.unsqueeze(1)
            if self.form == "lorentz":
                torch.addcmul(hk, hq, 1 + hk, out=out)
            else:
                torch.add(hq, hk, out=out)
        if self.factors == 1:
            out[0].addmm_(q[0], k[0].T, beta=beta, alpha=self.alpha)
        else:
            out.baddbmm_(q, k.mT, beta=beta, alpha=self.alpha)

    def _logits(self, a: int, i: int, j: int) -> Tensor:
        """Turn rows i…j of the block into logits; leave the operands of the backward in `slope` and `sim`."""
        sim, slope = self.sim[:, i - a : j - a], self.slope[:, i - a : j - a]
        match self.form:
            case "lorentz":
                acosh1p_(sim, slope, self.work[0][:, : j - i], self.work[1][:, : j - i])
            case "euclidean":
                torch.mul(sim.clamp_(min=0), 2, out=slope).add_(torch.finfo(sim.dtype).tiny)
                torch.div(sim.sqrt_(), slope, out=slope)  # 1 / 2d, and 0 at 0
        logits = self.logits[i - a : j - a]
        if self.factors > 1:
            weights = self.factor_weight.view(-1, 1, 1)
            if self.reduce == "sum":
                torch.sum(torch.mul(sim, weights, out=self.work[0][:, : j - i]), 0, out=logits)
            else:
                squares = torch.mul(sim, weights, out=self.work[0][:, : j - i]).square_()
                torch.sum(squares, 0, out=logits).sqrt_()
        logits.mul_(self.minus_scale[i:j].unsqueeze(1))
        own = self.target[i:j].unsqueeze(1)
        if self.barred:
            logits.masked_fill_(self._bar(i, j).scatter_(1, own, False), torch.finfo(logits.dtype).min / 4)
        return logits.scatter_(1, own, self.own[i:j].unsqueeze(1))

    def _bar(self, i: int, j: int) -> Tensor:
        bar = torch.zeros(j - i, self.m, dtype=torch.bool, device=self.own.device)
        for query_id, key_id in zip(self.bars.query_ids, self.bars.key_ids, strict=True):
            bar |= query_id[i:j].unsqueeze(1) == key_id
        if self.bars.absent.numel():
            bar |= self.bars.absent
        if self.bars.absent_query.numel():
            bar |= self.bars.absent_query[i:j].unsqueeze(1)
        return bar

    def _from_logits(self, a: int, i: int, j: int, p: Tensor) -> None:
        """Go back from −scale · dloss/dlogits, `p`, to the block's w."""
        sim, slope = self.sim[:, i - a : j - a], self.slope[:, i - a : j - a]
        logits, minus_scale = self.logits[i - a : j - a], self.minus_scale[i:j]
        own = self.target[i:j].unsqueeze(1)
        self.d.own[i:j] += p.gather(1, own).squeeze(1) / minus_scale
        p.scatter_(1, own, 0)
        spare = self.work[1][0, : j - i]
        self.d.scale[i:j] = -torch.mul(p, logits, out=spare).sum(1) / minus_scale.square()
        if self.factors > 1:
            self._from_factors(sim, logits, minus_scale, p, self.work[2][:, : j - i])
            p = sim
        else:
            p = p.unsqueeze(0)
        if self.form in ("lorentz", "euclidean"):
            torch.mul(p, slope, out=sim)
        elif p is not sim:
            sim.copy_(p)

    def _from_factors(self, sim: Tensor, logits: Tensor, minus_scale: Tensor, p: Tensor, work: Tensor) -> None:
        """Share out `p` among the factors, in place of their distances."""
        weights = self.factor_weight.view(-1, 1, 1)
        if self.reduce == "sum":
            self.d.factor_weight.add_(torch.mul(sim, p, out=work).sum((1, 2)))
            torch.mul(p, weights, out=sim)
        else:
            distance = logits / minus_scale.unsqueeze(1)
            p = torch.where(distance > 0, p / distance, 0)
            self.d.factor_weight.add_(torch.mul(sim.square(), p, out=work).sum((1, 2)) * self.factor_weight)
            sim.mul_(p).mul_(weights.square())

    def _products(self, a: int, b: int) -> None:
        """Add the block's gradients of queries, keys and their h, from its gradient with respect to w."""
        g, q, k = self.sim[:, : b - a], self.scaled_query[:, a:b], self.scaled_key
        # What no term has written yet is not initialised.
        keep_query, keep_key = float(not self.query_fresh), float(not self.key_fresh or a > 0)
        d_query, d_key = self.d.query_rows[:, a:b], self.d.key_rows
        if self.factors == 1:
            d_query[0].addmm_(g[0], k[0], beta=keep_query, alpha=self.alpha)
            d_key[0].addmm_(g[0].T, q[0], beta=keep_key, alpha=self.alpha)
        else:
            d_query.baddbmm_(g, k, beta=keep_query, alpha=self.alpha)
            d_key.baddbmm_(g.mT, q, beta=keep_key, alpha=self.alpha)
        if self.form == "dot":
            return
        if self.form == "lorentz":
            by_query = (g @ (1 + self.key.h).unsqueeze(2)).squeeze(2)
            by_key = ((1 + self.query.h[:, a:b]).unsqueeze(1) @ g).squeeze(1)
        else:
            by_query, by_key = g.sum(2), g.sum(1)
        for out, found, keep in ((self.d.query_h[:, a:b], by_query, keep_query), (self.d.key_h, by_key, keep_key)):
            out.add_(found) if keep else out.copy_(found)


def _view(flat: Tensor, shape: tuple[int, ...]) -> Tensor:
    return flat[: math.prod(shape)].view(shape)
