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
    lorentz     acosh(1 + w), w = h_q + h_k + h_q h_k − q·k, with h = cosh ρ − 1 for points at curvature −1

`lorentz` is the polar form: the rounding of w is that of sinh ρ_q sinh ρ_k, not of cosh ρ_q cosh ρ_k, so that it serves
small radii as well, where published models live. Several factors, stacked in front, give a product of such spaces.
The similarity of a query and its own key, where the matmul may cancel, comes in from outside.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from hypclip.geometry.acosh import acosh1p_

Form = Literal["dot", "squared", "euclidean", "lorentz"]
Reduce = Literal["sum", "l2"]

BLOCK = 1 << 22
"""Similarities held at once, of all factors together: 16 MiB in float32."""
CHUNK = 1 << 18
"""Similarities worked on at once: small enough to stay in the cache from one elementwise pass to the next."""


class Points(NamedTuple):
    """One side of a contrast: coordinates (F, n, d) of F factors, and h (F, n), see the forms above; empty for dot."""

    rows: Tensor
    h: Tensor


class Bars(NamedTuple):
    """Which keys are no candidates of a query, its own key excepted.

    Ids (p, n) and (p, m) bar a pair where any of the p is equal; `absent` (m,) bars a key from everybody, and in both
    directions `absent_query` (n,) bars a query from being a candidate of the keys. Empty tensors bar nothing.
    """

    query_ids: Tensor
    key_ids: Tensor
    absent: Tensor
    absent_query: Tensor


def contrast(
    query: Points,
    key: Points,
    own: Tensor,
    scale: Tensor,
    target: Tensor,
    weight: Tensor,
    bars: Bars,
    *,
    form: Form,
    factor_weight: Tensor,
    reduce: Reduce = "sum",
    key_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return Σ_i weight_i CE_i, differentiable, and its value again, without the gradient, for each direction apart.

    CE_i is the cross-entropy of the logits −scale_i · distance(i, ·) at key target_i.

    Args:
        query: n queries.
        key: m keys.
        own: (n,) logit of each query and its own key, computed row by row.
        scale: (n,) positive.
        target: (n,) int64, the own key of each query.
        weight: (n,), what each cross-entropy counts.
        bars: see Bars.
        form: see the module.
        factor_weight: (F,), what the distance in each factor counts.
        reduce: the distance is Σ_f a_f d_f, or for "l2" the root of Σ_f (a_f d_f)².
        key_weight: (m,), what the cross-entropy of each key over the queries counts. It adds the other direction; then
            m = n, target_i = i, and all scales must be the same.
    """
    gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (*query, *key, own, scale, factor_weight))
    loss, values, *_ = _contrast(
        *query, *key, own, scale, factor_weight, target, weight, key_weight, *bars, form, reduce, gradient
    )  # fmt: skip
    return loss, values


_SCHEMA = (
    "(Tensor query, Tensor query_h, Tensor key, Tensor key_h, Tensor own, Tensor scale, Tensor factor_weight, "
    "Tensor target, Tensor weight, Tensor? key_weight, Tensor query_ids, Tensor key_ids, Tensor absent, "
    "Tensor absent_query, str form, str reduce, bool gradient) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


@torch.library.custom_op("hypclip::contrast", mutates_args=(), schema=_SCHEMA)
def _contrast(
    query: Tensor,
    query_h: Tensor,
    key: Tensor,
    key_h: Tensor,
    own: Tensor,
    scale: Tensor,
    factor_weight: Tensor,
    target: Tensor,
    weight: Tensor,
    key_weight: Tensor | None,
    query_ids: Tensor,
    key_ids: Tensor,
    absent: Tensor,
    absent_query: Tensor,
    form: str,
    reduce: str,
    gradient: bool,
) -> tuple[Tensor, ...]:
    """Return the loss, its value by direction, and its gradients with respect to the first seven arguments."""
    with torch.autocast(query.device.type, enabled=False):
        sweep = _Sweep(
            Points(query, query_h), Points(key, key_h), own, scale, target, weight,
            Bars(query_ids, key_ids, absent, absent_query), form, factor_weight, reduce,
        )  # fmt: skip
        values = sweep.rows_only(gradient) if key_weight is None else sweep.both(key_weight, gradient)
    return values.sum(), values, *sweep.gradients()


@_contrast.register_fake
def _(query: Tensor, query_h: Tensor, key: Tensor, key_h: Tensor, own: Tensor, scale: Tensor, factor_weight: Tensor,
      *_: Any) -> tuple[Tensor, ...]:  # fmt: skip
    inputs = (query, query_h, key, key_h, own, scale, factor_weight)
    return query.new_empty(()), query.new_empty(2), *(torch.empty_like(t) for t in inputs)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[2:])


def _multiply(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    return *(upstream * found for found in ctx.saved_tensors), *[None] * 10


_contrast.register_autograd(_multiply, setup_context=_keep)


class _Sweep:
    """The work arrays of one call, and what it has found so far."""

    def __init__(
        self,
        query: Points,
        key: Points,
        own: Tensor,
        scale: Tensor,
        target: Tensor,
        weight: Tensor,
        bars: Bars,
        form: str,
        factor_weight: Tensor,
        reduce: str,
    ):
        self.query, self.key, self.own, self.target, self.weight = query, key, own, target, weight
        self.bars, self.form, self.factor_weight, self.reduce = bars, form, factor_weight, reduce
        self.minus_scale = -scale
        self.barred = any(part.numel() > 0 for part in bars)
        self.factors, self.n, _ = query.rows.shape
        self.m = key.rows.shape[1]
        self.rows = max(1, min(self.n, BLOCK // (self.factors * self.m)))
        self.chunk = max(1, min(self.rows, CHUNK // (self.factors * self.m)))
        self.sim, self.slope = (query.rows.new_empty(self.factors, self.rows, self.m) for _ in range(2))
        self.work = query.rows.new_empty(3, self.factors, self.chunk, self.m)
        self.logits = query.rows.new_empty(self.rows, self.m) if self.factors > 1 else self.sim[0]
        self.d_query, self.d_key = Points(*map(torch.empty_like, query)), Points(*map(torch.empty_like, key))
        self.d_own, self.d_scale, self.d_factor_weight = map(torch.zeros_like, (own, scale, factor_weight))

    def gradients(self) -> tuple[Tensor, ...]:
        return *self.d_query, *self.d_key, self.d_own, self.d_scale, self.d_factor_weight

    def rows_only(self, gradient: bool) -> Tensor:
        """Sweep once: a row is complete within its block."""
        values = self.own.new_zeros(2)
        for a, b in self._blocks():
            self._similarities(a, b)
            for i, j in self._chunks(a, b):
                logits = self._logits(a, i, j)
                top = logits.amax(1, keepdim=True)
                p = torch.sub(logits, top, out=self.work[0, 0, : j - i]).exp_()
                total = p.sum(1, keepdim=True)
                lse = (top + total.log()).squeeze(1)
                values[0] += torch.dot(self.weight[i:j], lse - self.own[i:j])
                if gradient:
                    p.mul_((self.weight[i:j] * self.minus_scale[i:j]).unsqueeze(1) / total)
                    self.d_own[i:j] = -self.weight[i:j]
                    self._from_logits(a, i, j, p)
            if gradient:
                self._products(a, b)
        return values

    def both(self, key_weight: Tensor, gradient: bool) -> Tensor:
        """Sweep for the log-sum-exp of rows and columns, then for the gradient; one block is computed only once."""
        highest, row_total = torch.empty_like(self.own), torch.empty_like(self.own)
        top, total = torch.full_like(self.own, -torch.inf), torch.zeros_like(self.own)
        for a, b in self._blocks():
            self._similarities(a, b)
            for i, j in self._chunks(a, b):
                logits = self._logits(a, i, j)
                p, by_key = (self.work[k, 0, : j - i] for k in (0, 1))
                torch.amax(logits, 1, out=highest[i:j])
                torch.sub(logits, highest[i:j].unsqueeze(1), out=p).exp_()
                torch.sum(p, 1, out=row_total[i:j])
                raised = torch.maximum(top, logits.amax(0))
                torch.sub(logits, raised, out=by_key).exp_()
                total = total * (top - raised).exp() + by_key.sum(0)
                top = raised
        lse, key_lse = highest + row_total.log(), top + total.log()
        values = torch.stack([self.weight.dot(lse - self.own), key_weight.dot(key_lse - self.own)])
        if not gradient:
            return values
        self.d_own -= self.weight + key_weight
        # Softmax as exp(logits − max) · weight/sum: the rounding of a log-sum-exp would shift whole rows.
        row_factor, key_factor = self.weight / row_total * self.minus_scale, key_weight / total
        for a, b in self._blocks():
            if self.rows < self.n:
                self._similarities(a, b)
            for i, j in self._chunks(a, b):
                p, by_key = (self.work[k, 0, : j - i] for k in (0, 1))
                if self.chunk < self.n:  # else both still hold what the first sweep left
                    logits = self._logits(a, i, j) if self.rows < self.n else self.logits[i - a : j - a]
                    torch.sub(logits, highest[i:j].unsqueeze(1), out=p).exp_()
                    torch.sub(logits, top, out=by_key).exp_()
                by_key.mul_(self.minus_scale[i:j].unsqueeze(1) * key_factor)
                self._from_logits(a, i, j, p.mul_(row_factor[i:j].unsqueeze(1)).add_(by_key))
            self._products(a, b)
        return values

    def _blocks(self) -> list[tuple[int, int]]:
        return [(a, min(a + self.rows, self.n)) for a in range(0, self.n, self.rows)]

    def _chunks(self, a: int, b: int) -> list[tuple[int, int]]:
        return [(i, min(i + self.chunk, b)) for i in range(a, b, self.chunk)]

    def _similarities(self, a: int, b: int) -> None:
        """Fill the block with w, or what takes its place in another form."""
        out, q, k = self.sim[:, : b - a], self.query.rows[:, a:b], self.key.rows
        if self.form == "dot":
            beta, alpha = 0.0, -1.0
        else:
            hq, hk = self.query.h[:, a:b].unsqueeze(2), self.key.h.unsqueeze(1)
            if self.form == "lorentz":
                torch.addcmul(hk, hq, 1 + hk, out=out)
            else:
                torch.add(hq, hk, out=out)
            beta, alpha = 1.0, -1.0 if self.form == "lorentz" else -2.0
        if self.factors == 1:
            out[0].addmm_(q[0], k[0].T, beta=beta, alpha=alpha)
        else:
            out.baddbmm_(q, k.mT, beta=beta, alpha=alpha)

    def _logits(self, a: int, i: int, j: int) -> Tensor:
        """Turn rows i…j of the block into logits; leave what the backward needs in `slope` and `sim`."""
        sim, slope = self.sim[:, i - a : j - a], self.slope[:, i - a : j - a]
        match self.form:
            case "lorentz":
                acosh1p_(sim, slope, self.work[0, :, : j - i], self.work[1, :, : j - i])
            case "euclidean":
                torch.mul(sim.clamp_(min=0), 2, out=slope).add_(torch.finfo(sim.dtype).tiny)
                torch.div(sim.sqrt_(), slope, out=slope)  # 1 / 2d, and 0 at 0
        logits = self.logits[i - a : j - a]
        if self.factors > 1:
            weights = self.factor_weight.view(-1, 1, 1)
            if self.reduce == "sum":
                torch.sum(torch.mul(sim, weights, out=self.work[0, :, : j - i]), 0, out=logits)
            else:
                squares = torch.mul(sim, weights, out=self.work[0, :, : j - i]).square_()
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
        self.d_own[i:j] += p.gather(1, own).squeeze(1) / minus_scale
        p.scatter_(1, own, 0)
        spare = self.work[1, 0, : j - i]
        self.d_scale[i:j] = -torch.mul(p, logits, out=spare).sum(1) / minus_scale.square()
        if self.factors > 1:
            self._from_factors(sim, logits, minus_scale, p, self.work[1:, :, : j - i])
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
            self.d_factor_weight += torch.mul(sim, p, out=work[1]).sum((1, 2))
            torch.mul(p, weights, out=sim)
        else:
            distance = logits / minus_scale.unsqueeze(1)
            p = torch.where(distance > 0, p / distance, 0)
            self.d_factor_weight += torch.mul(sim.square(), p, out=work[1]).sum((1, 2)) * self.factor_weight
            sim.mul_(p).mul_(weights.square())

    def _products(self, a: int, b: int) -> None:
        """Add what the block's gradient with respect to w gives queries, keys and their h."""
        g, q, k = self.sim[:, : b - a], self.query.rows[:, a:b], self.key.rows
        alpha = -2.0 if self.form in ("squared", "euclidean") else -1.0
        beta = 1.0 if a else 0.0  # the first block finds the sums of the keys uninitialised
        if self.factors == 1:
            self.d_query.rows[0, a:b].addmm_(g[0], k[0], beta=0.0, alpha=alpha)
            self.d_key.rows[0].addmm_(g[0].T, q[0], beta=beta, alpha=alpha)
        else:
            self.d_query.rows[:, a:b].baddbmm_(g, k, beta=0.0, alpha=alpha)
            self.d_key.rows.baddbmm_(g.mT, q, beta=beta, alpha=alpha)
        if self.form == "dot":
            return
        if self.form == "lorentz":
            by_query = (g @ (1 + self.key.h).unsqueeze(2)).squeeze(2)
            by_key = ((1 + self.query.h[:, a:b]).unsqueeze(1) @ g).squeeze(1)
        else:
            by_query, by_key = g.sum(2), g.sum(1)
        self.d_query.h[:, a:b] = by_query
        self.d_key.h.add_(by_key) if a else self.d_key.h.copy_(by_key)
