"""Few-shot classification of frozen features: prototypes in hyperbolic and in flat space, and a linear probe.

An episode draws some classes, of each some labelled examples and some queries. A prototype is the mean of a class's
examples in its space, and a query belongs to the nearest one. All methods see the same episodes. With features frozen,
hyperbolic prototypes are a report and no claim: towards c = 0 they are the Euclidean ones, and at larger c they have
not been found better; the cosine is what to beat at one shot.

Source: Snell et al. 2017, arXiv:1703.05175, for prototypes; Khrulkov et al. 2020, arXiv:1904.02239, for hyperbolic
ones; Law et al. 2019 for the Lorentz centroid, which is their Einstein midpoint; Tian et al. 2020, arXiv:2003.11539,
for logistic regression on normalised features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from hypclip.errors import InputError, MissingExtraError
from hypclip.geometry import lorentz, product
from hypclip.geometry.precision import as_number, full_precision
from hypclip.model import HypCLIP

Classifier = Callable[[Tensor, Tensor], Tensor]
"""Maps examples (ways, shots, d) and queries (m, d) to the place of each query's class (m,)."""
_Z95 = 1.96
"""Standard errors on either side of a mean that hold 95 % of a normal distribution."""


class Accuracy(NamedTuple):
    """Mean accuracy over episodes, and half the width of its 95 % confidence interval; NaN for one episode."""

    mean: float
    half_width: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} ± {100 * self.half_width:.1f} %"


@full_precision
@torch.no_grad()
def few_shot(
    features: Float[Tensor, "n d"],
    labels: Sequence[int],
    *,
    shots: int,
    ways: int = 5,
    queries: int = 15,
    episodes: int = 1000,
    curvs: Sequence[float] = (1.0,),
    probe: bool = True,
    seed: int = 0,
) -> dict[str, Accuracy]:
    """Return the accuracy of each method: "lorentz c=…" for each curvature, "euclid", "cosine" and "probe".

    Args:
        features: flat features, or tangent vectors at the origin of a model's points, see `tangent`. Their length
            matters to "lorentz": a feature v lies at the distance |v| from the origin.
        labels: the class of each.
        shots: examples of each class of an episode.
        ways: classes of an episode; classes of fewer than shots + queries examples take no part.
        queries: of each class of an episode.
        episodes: how many.
        curvs: c > 0 of each hyperboloid; none for no hyperbolic prototypes.
        probe: whether logistic regression takes part, by the extra `few-shot`.
        seed: of the episodes.

    Raises:
        InputError: features that are not finite or not as many as labels, a count out of range, or too few classes of
            enough examples.
        MissingExtraError: a probe is wanted, and scikit-learn is not installed.
    """
    if len(labels) != len(features):
        raise InputError(f"features and labels must be as many, got {len(features)} and {len(labels)}")
    if not features.isfinite().all():
        raise InputError("features must be finite")
    for name, count, least in (
        ("shots", shots, 1),
        ("ways", ways, 2),
        ("queries", queries, 1),
        ("episodes", episodes, 1),
    ):
        if count < least:
            raise InputError(f"{name} must be at least {least}, got {count}")
    features = features.detach().double().cpu()
    methods: dict[str, Classifier] = {}
    for curv in curvs:
        methods[f"lorentz c={as_number(curv, 'curv'):g}"] = partial(_by_lorentz, curv=as_number(curv, "curv"))
    methods |= {"euclid": _by_euclid, "cosine": _by_cosine}
    if probe:
        methods["probe"] = _probe()
    right: dict[str, list[float]] = {name: [] for name in methods}
    truth = torch.arange(ways).repeat_interleave(queries)
    for rows in _episodes(labels, ways, shots, queries, episodes, seed):
        examples, asked = features[rows[:, :shots]], features[rows[:, shots:]].flatten(0, 1)
        for name, classify in methods.items():
            right[name].append((classify(examples, asked) == truth).double().mean().item())
    return {name: _accuracy(values) for name, values in right.items()}


def tangent(model: HypCLIP, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n d"], tuple[float, ...]]:
    """Return points as tangent vectors at the origin, and the curvature of prototypes; none but on one hyperboloid."""
    curv = model.curv.detach().to(x.device)
    match model.metric.geometry:
        case "lorentz":
            return lorentz.log_map0(x, curv), (curv.item(),)
        case "product":
            assert model.metric.factor_dim is not None
            return product.log_map0(x, curv, model.metric.factor_dim), ()
        case "sphere" | "euclidean":
            return x, ()


def _episodes(
    labels: Sequence[int], ways: int, shots: int, queries: int, episodes: int, seed: int
) -> Iterator[Int[Tensor, "ways each"]]:
    """Yield the rows of each episode, (ways, shots + queries), examples first."""
    each = shots + queries
    places: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    enough = [torch.tensor(places[label]) for label in sorted(places) if len(places[label]) >= each]
    if len(enough) < ways:
        raise InputError(
            f"an episode of {ways} classes needs {shots} examples and {queries} queries of each: {len(enough)} of "
            f"{len(places)} classes have {each}; ask for fewer ways or queries"
        )
    generator = torch.Generator().manual_seed(seed)
    for _ in range(episodes):
        chosen = torch.randperm(len(enough), generator=generator)[:ways].tolist()
        yield torch.stack(
            [rows[torch.randperm(len(rows), generator=generator)[:each]] for rows in map(enough.__getitem__, chosen)]
        )


def _by_euclid(examples: Tensor, queries: Tensor) -> Tensor:
    return torch.cdist(queries, examples.mean(1)).argmin(1)


def _by_cosine(examples: Tensor, queries: Tensor) -> Tensor:
    prototypes = normalize(normalize(examples, dim=-1).mean(1), dim=-1)
    return (normalize(queries, dim=-1) @ prototypes.T).argmax(1)


def _by_lorentz(examples: Tensor, queries: Tensor, curv: float) -> Tensor:
    prototypes = lorentz.centroid(lorentz.exp_map0(examples, curv), curv)
    return lorentz.pairwise_dist(lorentz.exp_map0(queries, curv), prototypes, curv).argmin(1)


def _probe() -> Classifier:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as missing:
        raise MissingExtraError(
            f"{missing}: a linear probe comes with an extra, run pip install 'hypclip[few-shot]', or leave it out"
        ) from missing

    def classify(examples: Tensor, queries: Tensor) -> Tensor:
        truth = torch.arange(len(examples)).repeat_interleave(examples.shape[1])
        fitted = LogisticRegression(max_iter=1000).fit(normalize(examples.flatten(0, 1), dim=-1).numpy(), truth.numpy())
        return torch.from_numpy(fitted.predict(normalize(queries, dim=-1).numpy()))

    return classify


def _accuracy(values: Sequence[float]) -> Accuracy:
    found = torch.tensor(values, dtype=torch.float64)
    spread = found.std().item() if len(values) > 1 else math.nan
    return Accuracy(found.mean().item(), _Z95 * spread / math.sqrt(len(values)))
