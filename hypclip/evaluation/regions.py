"""Measures of what a model's regions hold, over pairs whose truth is known.

The region of a point is the cone or the half-space that is the rule of entailment in the model's config; a point is
asserted to be more general than another where its region holds it. Scores are in float64, in blocks of pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from hypclip.evaluation.is_a import MOST_PAIRS
from hypclip.evaluation.ranking import precision_and_auc, rank_correlation
from hypclip.geometry import product
from hypclip.geometry.cones import MIN_RADIUS
from hypclip.geometry.entailment import coincident, pairwise_score
from hypclip.model import HypCLIP
from hypclip.taxonomy import same_phrase

_BLOCK_PAIRS = 2**18
_OWN_ROWS = 256
_TRIPLE_PHRASES = 2_000
_QUERIES = 100
_POOL = 20_000


def radii(model: HypCLIP, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Return √c times the radius, in float64; the norm in flat space. The factors of a product have each its own c."""
    scaled = _scaled(model, x)
    return model.metric.radius(scaled.flatten(-2), torch.ones((), dtype=scaled.dtype))


def half_spaces(model: HypCLIP, x: Float[Tensor, "n d"]) -> float:
    """Return the share of points so near the origin that their cone, of MERU's K = 0.1, is a half-space.

    That is √c|x| ≤ 2K, and |x| ≤ K in flat space; of a product the mean share of its factors.
    """
    bound = 2 * MIN_RADIUS if model.metric.is_hyperbolic else MIN_RADIUS
    near: Tensor = torch.linalg.vector_norm(_scaled(model, x), dim=-1) <= bound
    return near.double().mean().item()


def scores(
    model: HypCLIP, general: Float[Tensor, "n d"], specific: Float[Tensor, "m d"]
) -> tuple[Float[Tensor, "n m"], Bool[Tensor, "n m"]]:
    """Return the depth of each specific point in the region of each general one, and what the model asserts.

    The depth is in float64, ≥ 0 inside. The mask has the pairs that `HypCLIP.entails` asserts.
    """
    rule, curv, specific = model.config.entailment, model.curv.detach().cpu(), specific.double()
    equal = coincident(general, specific)
    size = max(1, _BLOCK_PAIRS // max(1, len(specific)))
    score = torch.cat(
        [
            pairwise_score(rule, some.double(), specific, model.metric, curv, same)
            for some, same in zip(torch.split(general, size), torch.split(equal, size), strict=True)
        ]
    )
    held = score >= 0
    return score, held & ~equal if rule.strict else held


def asserted(model: HypCLIP, general: Float[Tensor, "n d"], specific: Float[Tensor, "m d"]) -> Bool[Tensor, "n m"]:
    """Return a mask of the pairs that the model asserts, as `HypCLIP.entails` does, in blocks."""
    return scores(model, general, specific)[1]


def cosines(general: Float[Tensor, "n d"], specific: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Return the cosine of the angle at the origin, to 12 decimals, so that a pair and its reverse are a tie."""
    return (normalize(general.double(), dim=-1) @ normalize(specific.double(), dim=-1).T).round(decimals=12)


def edge_measures(
    model: HypCLIP,
    general: Float[Tensor, "n d"],
    specific: Float[Tensor, "m d"],
    true: Bool[Tensor, "n m"],
    asked: Bool[Tensor, "n m"],
    of_one_level: bool = True,
) -> Iterator[tuple[str, int | float]]:
    """Yield measures of a model's answers to the pairs that are asked.

    pairs and base_rate (the share that is true); ap and auc of the model's score; ap-cosine, auc-cosine, ap-radius and
    auc-radius, the same minus that of the cosine and minus that of ρ_specific − ρ_general; precision and recall of what
    the model asserts, and multiplicity, the mean number of regions that hold a specific point, where the general ones
    are of one level. On the sphere ap and auc are those of the cosine, and there is nothing else. Measures without a
    value are not yielded: AP and AUC where all or none is true, precision where nothing is asserted.
    """
    truth = true[asked]
    yield "pairs", len(truth)
    yield "base_rate", truth.double().mean().item()
    ranks = bool(truth.any()) and not bool(truth.all())
    plain = precision_and_auc(cosines(general, specific)[asked], truth) if ranks else (0.0, 0.0)
    if not model.metric.has_cones:
        if ranks:
            yield from zip(("ap", "auc"), plain, strict=True)
        return
    score, every = scores(model, general, specific)
    if ranks:
        own = precision_and_auc(score[asked], truth)
        apart = radii(model, specific) - radii(model, general)[:, None]
        radial = precision_and_auc(apart[asked], truth)
        for name, value, cosine, radius in zip(("ap", "auc"), own, plain, radial, strict=True):
            yield name, value
            yield f"{name}-cosine", value - cosine
            yield f"{name}-radius", value - radius
    held = every & asked
    right = int((held & true).sum())
    if bool(held.any()):
        yield "precision", right / int(held.sum())
    if bool(truth.any()):
        yield "recall", right / int(truth.sum())
    if of_one_level:
        yield "multiplicity", held.sum(0).double().mean().item()


def transitivity(model: HypCLIP, phrases: Float[Tensor, "n d"]) -> float:
    """Return, of g ⊐ m and m ⊐ s that are both asserted, the share whose g ⊐ s is too; NaN where there are none.

    Of more than 2,000 phrases a fixed random sample of them is taken.
    """
    phrases = phrases[_sample(len(phrases), _TRIPLE_PHRASES)]
    held = asserted(model, phrases, phrases).fill_diagonal_(False)
    triples = (held.float() @ held.float()).fill_diagonal_(0).double()
    return ((triples * held).sum() / triples.sum()).item()


def containment(
    model: HypCLIP,
    texts: Float[Tensor, "m d"],
    images: Float[Tensor, "n d"],
    image_of: Int[Tensor, " m"],
    captions: Sequence[str],
) -> tuple[float, float]:
    """Return the shares of captions whose region holds their own image, and of other pairs in which it holds another's.

    A pair of a caption and an image with an equal caption is neither. The second is NaN where there are no such pairs.

    Args:
        model: of the embeddings.
        texts: of the captions.
        images: of the images.
        image_of: the row of each caption's image.
        captions: as they are written.
    """
    own = 0
    for rows in torch.split(torch.arange(len(texts)), _OWN_ROWS):
        some, theirs = texts[rows], images[image_of[rows]]
        own += int(asserted(model, some, theirs).diagonal().sum())
    columns = _sample(len(images), max(1, MOST_PAIRS // len(texts)))
    numbers: dict[str, int] = {}
    wording = torch.tensor([numbers.setdefault(same_phrase(caption), len(numbers)) for caption in captions])
    has = torch.zeros(len(numbers), len(images), dtype=torch.bool)
    has[wording, image_of] = True
    other = ~has[:, columns][wording]
    held = asserted(model, texts, images[columns])
    return own / len(texts), held[other].double().mean().item()


def geodesic_against_cosine(model: HypCLIP, pool: Float[Tensor, "m d"], queries: Int[Tensor, " n"]) -> float:
    """Return Spearman's correlation of the model's similarity with the cosine over a pool, the mean over queries.

    Over points of one radius it is 1: only a pool of mixed levels tells whether radii matter. No more than 100 queries
    take part, and no more than 20,000 points, fixed random samples. NaN where no query can be ranked.

    Args:
        model: of the embeddings.
        pool: what is ranked for each query, but for the query itself.
        queries: rows of the pool.
    """
    asking, ranked = queries[_sample(len(queries), _QUERIES)], _sample(len(pool), _POOL)
    points, others = pool[asking].double(), pool[ranked].double()
    rows = zip(asking.tolist(), model.similarity(points, others), cosines(points, others), strict=True)
    found = [rank_correlation(similar[ranked != own], cosine[ranked != own]) for own, similar, cosine in rows]
    return torch.tensor(found, dtype=torch.float64).nanmean().item()


def _sample(count: int, most: int) -> Int[Tensor, " n"]:
    """Return all numbers below `count`, or a fixed random choice of `most` of them, in order."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].sort().values


def _scaled(model: HypCLIP, x: Float[Tensor, "n d"]) -> Float[Tensor, "n factors k"]:
    """Return points at curvature −1, by factors; points of flat space as they are."""
    metric, x = model.metric, x.double()
    if not metric.is_hyperbolic:
        return x[:, None]
    return product.unit_curvature(x, model.curv.detach().cpu(), metric.factor_dim or x.shape[-1])[0]
