"""What the tests of the vector stores share: points that are hard to search, and answers from the definitions.

The answers come from 80-bit floats and from 50 digits, by formulas that share no rearrangement with hypclip.
"""

import contextlib
import json
import math
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from mpmath import mp, mpf

from hypclip.search import LocalStore, Points, Space
from hypclip.search.local import table
from hypclip.search.local.table import Snapshot, Table
from hypclip.search.where import MODALITIES
from tests.support import reference

SPACE = Space("m", 0.7, 4)
ORIGIN = torch.zeros(1, 4)
CURVS = st.floats(0.05, 10)
DIMS = st.sampled_from([2, 3, 8, 64])
ETAS = st.floats(0.3, 2.5)
MIN_RADII = st.floats(0.02, 0.5)
SEEDS = st.integers(0, 2**32)
RADII = st.floats(0.01, 12)
"""√c · radius."""

names = st.one_of(
    st.sampled_from(["a", "b", "a.b", "a[0]", "$", "$.a", "#-1", "[0]", "é", "名", "😀", "a b", "0", "'", "%", "?"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_characters='"\\'), min_size=1).filter(
        str.isprintable
    ),
)
texts = st.one_of(
    st.sampled_from(["", "1", "true", "null", "é", "😀", "a'b", 'a"b', "\n"]),
    st.text(st.characters(exclude_characters="\0"), max_size=4),
)
numbers = st.one_of(
    st.sampled_from([0, 1, -1, 0.0, -0.0, 1.0, 0.1, 0.1 + 0.2, 2**53, -(2**53), 1e-320]),
    st.integers(-(2**53), 2**53),
    st.floats(-(2.0**53), 2.0**53),
)
scalars = st.one_of(st.booleans(), st.none(), numbers, texts)
huge = st.sampled_from([2**53 + 1, 2**63, -(2**63) - 1, 10**30, 1e300])
values = st.recursive(
    st.one_of(scalars, huge),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=2)),
    max_leaves=5,
)


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Let through what the signatures forbid, as everywhere outside these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        yield


def points(ids: Any, seed: int = 0, metadata: Any = None, modality: str = "text", space: Space = SPACE) -> Points:
    """Random points of a space."""
    vectors = torch.randn(len(ids), space.dim, generator=torch.Generator().manual_seed(seed))
    return Points(ids, vectors, [modality] * len(ids), metadata or [{} for _ in ids])


def stored(store: LocalStore, vectors: Any, metadata: Any = None, modality: Any = None, name: str = "c") -> list[str]:
    """Put vectors into a collection and return their ids, whose order is that of the rows."""
    ids = [f"p{i:05}" for i in range(len(vectors))]
    modality = modality or [MODALITIES[i % 3] for i in range(len(vectors))]
    metadata = metadata or [{"i": i} for i in range(len(vectors))]
    store.upsert(name, Points(ids, torch.as_tensor(vectors), modality, metadata))
    return ids


def ids_of(found: Any) -> list[str]:
    return [hit.id for hit in found.hits]


def snapshot_of(vectors: np.ndarray, curv: float, segment_rows: int = 64, keys: Any = None) -> Snapshot:
    """Put points into a table of small segments; the keys are the numbers of the rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "SEGMENT_ROWS", segment_rows)
        filled = Table(curv, vectors.shape[1])
        keys = np.arange(len(vectors)) if keys is None else keys
        filled.put(keys, vectors, (np.arange(len(vectors)) % 3).astype(np.uint8))
        return filled.snapshot


def keys_at(snapshot: Snapshot, places: Any) -> set[int]:
    """Return the keys of rows given by segment, none of them twice."""
    found = [int(key) for i, rows in places for key in snapshot[i].columns.keys[rows]]
    assert len(set(found)) == len(found)
    return set(found)


def marks(snapshot: Snapshot, masks: Any) -> np.ndarray:
    """Return which rows the masks select, all segments in one."""
    return np.concatenate([np.ones(len(s), bool) if m is None else m for s, m in zip(snapshot, masks, strict=True)])


class Crowd(NamedTuple):
    """Points (n, D) in float32 around a query (D,), which is one of them and comes first."""

    points: np.ndarray
    query: np.ndarray


def crowd(seed: int, dim: int, curv: float, rho: float, n: int = 60, eta: float = 1.0) -> Crowd:
    """Draw a query at √c · radius rho with all that is hard about it.

    Its copies, near duplicates, points opposite to it and at the origin, strangers at every radius, and kin: points in
    nearly its direction, so that about half of them lie within each other's cones.
    """
    rng = np.random.default_rng(seed)

    def unit(m: int) -> np.ndarray:
        v = rng.normal(size=(m, dim))
        return v / np.linalg.norm(v, axis=1, keepdims=True)

    axis = unit(1)
    q = math.sinh(rho) * axis / math.sqrt(curv)
    side = unit(n)
    side -= (side @ axis.T) * axis
    side /= np.linalg.norm(side, axis=1, keepdims=True) + 1e-300
    far = rng.uniform(0, 12, n)
    angle = np.minimum(eta * rng.exponential(size=n) * np.exp(-np.minimum(far, rho)), math.pi)[:, None]
    kin = np.sinh(far)[:, None] * (np.cos(angle) * axis + np.sin(angle) * side) / math.sqrt(curv)
    strangers = np.sinh(rng.uniform(0, 12, n))[:, None] * unit(n) / math.sqrt(curv)
    near = q * (1 + 10 ** rng.uniform(-7, -1, (n, 1)) * rng.normal(size=(n, dim)))
    opposite = -q * np.array([[1.0], [0.5], [1.001]])
    on_the_ray = np.sinh(rng.uniform(0, 12, (4, 1))) * axis / math.sqrt(curv)
    rest = np.concatenate([kin, strangers, near, opposite, on_the_ray, np.zeros((2, dim)), q, q])
    found = np.concatenate([q, rest[rng.permutation(len(rest))]]).astype(np.float32)
    return Crowd(found, found[0])


def distances(x: np.ndarray, query: np.ndarray, curv: float) -> np.ndarray:
    """Distances from the definition d = 2/√c asinh(√c/2 √(|Δ|² − Δt²)) in 80-bit floats."""
    x, q, c = x.astype(np.longdouble), query.astype(np.longdouble), np.longdouble(curv)
    t, t_q = np.sqrt(1 / c + (x * x).sum(-1)), np.sqrt(1 / c + (q * q).sum(-1))
    dt = ((x - q) * (x + q)).sum(-1) / (t + t_q)
    squared = ((x - q) ** 2).sum(-1) - dt * dt
    return 2 / np.sqrt(c) * np.arcsinh(np.sqrt(c) / 2 * np.sqrt(np.maximum(squared, 0)))


def minus_inner(x: np.ndarray, z: np.ndarray, curv: float) -> np.ndarray:
    """−<z, x>_L of all pairs (places, rows) in 80-bit floats."""
    x, z, c = x.astype(np.longdouble), z.astype(np.longdouble), np.longdouble(curv)
    times = [np.sqrt(1 / c + (v * v).sum(-1)) for v in (z, x)]
    return times[0][:, None] * times[1] - z @ x.T


def cone_margins(general: Any, specific: Any, curv: float, eta: float, min_radius: float) -> np.ndarray:
    """φ − η ω of pairs of rows, from MERU's formula with acos at 50 digits; 0 angle of coincident and from the root."""
    general, specific = np.broadcast_arrays(general, specific)
    c, k = mpf(curv), mpf(min_radius)
    found = []
    for x, y in zip(general, specific, strict=True):
        if not x.any():
            found.append(-eta * math.pi / 2)
            continue
        ex, ey = (reference.number(v.astype(np.float64)) for v in (x, y))
        norm = mp.sqrt((ex * ex).sum())
        aperture = mp.asin(min(mpf(1), 2 * k / (mp.sqrt(c) * norm)))
        angle = mpf(0) if (x == y).all() else _angle(ex, ey, norm, c)
        found.append(float(angle - eta * aperture))
    return np.array(found)


def _angle(x: Any, y: Any, norm: Any, c: Any) -> Any:
    x_t, y_t = (mp.sqrt(1 / c + (v * v).sum()) for v in (x, y))
    product = c * ((x * y).sum() - x_t * y_t)
    cosine = (y_t + x_t * product) / (norm * mp.sqrt(product * product - 1))
    return mp.acos(min(max(cosine, mpf(-1)), mpf(1)))


def canonical(metadata: Any) -> str:
    """Metadata as it is stored."""
    return json.dumps(metadata, ensure_ascii=False)


def run_together(*calls: Any) -> None:
    """Run calls in threads, and raise the first error of any."""
    errors: list[BaseException] = []

    def guarded(call: Any) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
