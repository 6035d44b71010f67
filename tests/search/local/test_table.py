"""Segments: what is put is there, what is removed is gone, and a snapshot stays what it was."""

import itertools
import math
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypclip.search import Where
from hypclip.search.local import ivf, table
from hypclip.search.local.table import Cells, Columns, Segment, Table, gather, segment_rows, select, selected
from tests.support.search import run_together, unchecked

CURV, DIM = 0.7, 3
ROWS = 64


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch):
    monkeypatch.setattr(table, "SEGMENT_ROWS", ROWS)


def vectors_of(keys):
    """Each key has its vector."""
    keys = np.asarray(keys, np.float32)
    return np.stack([keys, -keys, keys % 7], 1)


def put(filled, keys, replaced=None):
    keys = np.asarray(keys, np.int64)
    filled.put(keys, vectors_of(keys), (keys % 3).astype(np.uint8), None if replaced is None else np.asarray(replaced))


def alive(snapshot):
    """Return the keys of living rows in the order of the segments, having checked all that goes with them."""
    found = []
    for segment in snapshot:
        keys = segment.columns.keys[segment.alive]
        fresh = Columns.of(keys, vectors_of(keys), (keys % 3).astype(np.uint8), CURV)
        for got, want in zip(segment.columns.take(np.flatnonzero(segment.alive)).arrays(), fresh.arrays(), strict=True):
            np.testing.assert_array_equal(got, want)
        assert segment.count == len(keys)
        assert len(segment) == len(segment.alive) == len(segment.columns.keys)
        np.testing.assert_array_equal(
            segment.columns.keys[np.sort(segment.find(segment.columns.keys))], segment.columns.keys
        )
        if segment.cells is None:
            assert (np.diff(segment.columns.keys) > 0).all()
        found += keys.tolist()
    return found


def indexed(snapshot, m=4):
    """A segment with cells of the living rows, in an order of its own."""
    rows = np.array([key for segment in snapshot for key in segment.columns.keys[segment.alive]])
    rows = rows[np.lexsort((rows, rows * 7919 % m))]
    columns = Columns.of(rows, vectors_of(rows), (rows % 3).astype(np.uint8), CURV)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows * 7919 % m, minlength=m))])
    by_key = np.argsort(rows).astype(np.int32)
    marks = np.ones(len(rows), np.bool_)
    return Segment(columns, marks, len(rows), Cells(np.zeros((m, DIM), np.float32), starts, 2, by_key))


# Writing --------------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(["put", "put", "remove", "build", "adopt"]), st.integers(0, 200)), max_size=40)
)
def test_a_table_is_a_set_of_keys_whatever_is_done_to_it(steps):
    filled, kept, fresh, built = Table(CURV, DIM), set(), itertools.count(1), None
    rng = np.random.default_rng(len(steps))
    snapshots = []
    for step, size in steps:
        some = np.array(sorted(kept), np.int64)[rng.random(len(kept)) < size / 200]
        if step == "put":
            keys = list(itertools.islice(fresh, size))
            put(filled, keys, some[:size])
            kept = kept - set(some[:size].tolist()) | set(keys)
        elif step == "remove":
            filled.remove(rng.permutation(np.concatenate([some, [10**9]])))
            kept -= set(some.tolist())
        elif step == "build" and kept:
            built = indexed(filled.snapshot), filled.snapshot
        elif step == "adopt" and built:
            filled.adopt(*built)
            built = None
            assert filled.snapshot[0].cells is not None or filled.snapshot[0].count == 0
        found = alive(filled.snapshot)
        assert set(found) == kept
        assert len(found) == len(filled) == len(kept)
        snapshots.append((filled.snapshot, set(kept)))
    # What was read at any time is what it was then.
    for snapshot, then in snapshots:
        assert set(alive(snapshot)) == then


@pytest.mark.parametrize("size", [1, ROWS - 1, ROWS, ROWS + 1, 5 * ROWS + 3])
def test_a_call_of_any_size_fills_segments_to_the_brim(size):
    filled = Table(CURV, DIM)
    put(filled, range(1, size + 1))
    assert alive(filled.snapshot) == list(range(1, size + 1))
    assert all(len(segment) <= ROWS for segment in filled.snapshot)
    assert sum(len(segment) == ROWS for segment in filled.snapshot) == size // ROWS


def test_an_empty_call_changes_nothing():
    filled = Table(CURV, DIM)
    put(filled, [1, 2])
    put(filled, [])
    filled.remove(np.zeros(0, np.int64))
    assert alive(filled.snapshot) == [1, 2]


def test_rows_that_died_do_not_pile_up():
    filled = Table(CURV, DIM)
    for key in range(1, 50 * ROWS):
        put(filled, [key], [key - 1] if key % 10 else None)  # one in ten is never replaced
    assert sum(map(len, filled.snapshot)) < 2 * len(filled) + 2 * ROWS
    assert len(filled.snapshot) <= 2 + len(filled) // (ROWS // 4)
    filled.remove(np.arange(50 * ROWS))
    assert sum(map(len, filled.snapshot)) <= ROWS
    assert len(filled) == 0


def test_small_segments_are_joined():
    filled = Table(CURV, DIM)
    put(filled, range(1, 8 * ROWS + 1))
    kept = [key for key in range(1, 8 * ROWS + 1) if key % 8 == 0]
    filled.remove(np.setdiff1d(np.arange(8 * ROWS + 1), kept))
    assert alive(filled.snapshot) == kept
    assert len(filled.snapshot) <= 4


def test_dead_rows_of_an_indexed_segment_are_marked_and_it_is_given_up_when_most_are_dead():
    filled = Table(CURV, DIM)
    put(filled, range(1, 201))
    filled.adopt(indexed(filled.snapshot), filled.snapshot)
    order = filled.snapshot[0].columns.keys.copy()
    filled.remove(np.arange(1, 91))
    assert filled.snapshot[0].cells is not None
    np.testing.assert_array_equal(filled.snapshot[0].columns.keys, order)
    assert sorted(alive(filled.snapshot)) == list(range(91, 201))
    put(filled, [201, 202], [150, 151])
    assert filled.snapshot[0].cells is not None
    filled.remove(np.arange(91, 150))
    assert all(segment.cells is None for segment in filled.snapshot)
    assert alive(filled.snapshot) == [*range(152, 201), 201, 202]


def test_rows_written_while_an_index_was_built_stay_behind_it():
    filled = Table(CURV, DIM)
    put(filled, range(1, 101))
    seen = filled.snapshot
    built = indexed(seen)
    put(filled, range(101, 101 + 3 * ROWS), [5, 6])
    filled.remove(np.array([7, 110]))
    filled.adopt(built, seen)
    first, *rest = filled.snapshot
    assert first.cells is not None
    assert sorted(alive([first])) == sorted(set(range(1, 101)) - {5, 6, 7})
    assert alive(rest) == sorted(set(range(101, 101 + 3 * ROWS)) - {110})
    put(filled, [10_000], [8, 120])
    assert set(alive(filled.snapshot)) == set(range(1, 101 + 3 * ROWS)) - {5, 6, 7, 8, 110, 120} | {10_000}


def test_a_later_index_takes_the_place_of_an_earlier_one():
    filled = Table(CURV, DIM)
    put(filled, range(1, 101))
    early = filled.snapshot
    first = indexed(early)
    put(filled, range(101, 151), [1])
    second = indexed(filled.snapshot)
    seen = filled.snapshot
    filled.adopt(second, seen)
    filled.adopt(first, early)  # one that was begun before, and took longer
    assert set(alive(filled.snapshot)) == set(range(2, 151))
    filled.adopt(indexed(filled.snapshot), filled.snapshot)
    assert set(alive(filled.snapshot)) == set(range(2, 151))


def test_restored_cells_are_those_that_were_stored():
    filled = Table(CURV, DIM)
    put(filled, range(1, 101))
    before = indexed(filled.snapshot)
    stored = ivf.StoredCells(before.cells.centroids, before.cells.starts, before.columns.keys, 2, 0.9)
    restored = ivf.SegmentLoader(stored, DIM)
    keys = np.array([key for key in range(1, 121) if key % 10])
    rest = restored.add(keys, vectors_of(keys), (keys % 3).astype(np.uint8), CURV)
    np.testing.assert_array_equal(keys[rest], keys[keys > 100])
    after = restored.finish()
    assert sorted(alive([after])) == [key for key in range(1, 101) if key % 10]
    expected = before.without(np.arange(0, 101, 10))
    np.testing.assert_array_equal(after.alive, expected.alive)
    for got, want in zip(after.columns.arrays(), before.columns.arrays(), strict=True):
        np.testing.assert_array_equal(got[after.alive], want[after.alive])
        assert np.isfinite(got).all()
    for name in ("centroids", "starts", "probes", "order"):
        np.testing.assert_array_equal(getattr(after.cells, name), getattr(before.cells, name))


# Reading --------------------------------------------------------------------------------------------------------------


def test_columns_are_what_they_say():
    x = np.array([[3.0, 4.0], [0.0, 0.0], [1e-20, 0.0], [3e6, 4e6]], np.float32)
    columns = Columns.of(np.arange(4), x, np.zeros(4, np.uint8), 0.25)
    np.testing.assert_allclose(columns.norms, [5, 0, 1e-20, 5e6], rtol=1e-7)
    np.testing.assert_allclose(columns.times, [math.sqrt(29), 2, 2, 5e6], rtol=1e-7)
    assert columns.shells.tolist() == [math.floor(128 * math.asinh(s / 2)) for s in (5, 0, 1e-20, 5e6)]


def test_keys_are_found_in_any_order_and_unknown_ones_passed_over():
    filled = Table(CURV, DIM)
    put(filled, [2, 4, 6, 8])
    for segment in (filled.snapshot[0], indexed(filled.snapshot)):
        rows = segment.find(np.array([8, 5, 2, 100, -1]))
        assert segment.columns.keys[rows].tolist() == [8, 2]
        assert len(segment.find(np.zeros(0, np.int64))) == 0
    assert len(Table(CURV, DIM).snapshot[0].find(np.array([1]))) == 0


def test_selection_is_the_and_of_all_that_is_asked():
    filled = Table(CURV, DIM)
    put(filled, range(1, 3 * ROWS))
    filled.remove(np.arange(10, 20))
    keys = np.arange(5, 150, 5)
    where = Where(modality="image", min_radius=3.0, max_radius=5.5)
    masks = select(filled.snapshot, where, keys, CURV)
    found = [int(k) for i, rows in segment_rows(filled.snapshot, masks) for k in filled.snapshot[i].columns.keys[rows]]
    root = math.sqrt(CURV)
    radius = {k: math.asinh(root * float(np.linalg.norm(vectors_of([k])))) / root for k in range(1, 3 * ROWS)}
    assert found == [k for k in range(5, 150, 5) if k % 3 == 1 and 3.0 <= radius[k] <= 5.5 and not 10 <= k < 20]
    assert selected(filled.snapshot, masks) == len(found)


def test_no_mask_is_made_where_everything_counts():
    filled = Table(CURV, DIM)
    put(filled, range(1, 2 * ROWS))
    assert select(filled.snapshot, Where(), None, CURV) == [None, None]
    assert selected(filled.snapshot, [None, None]) == 2 * ROWS - 1


@settings(max_examples=100)
@given(st.floats(0.05, 10), st.floats(0, 16.5), st.integers(-3, 3), st.integers(0, 99))
def test_a_range_of_radii_is_decided_in_float64(curv, rho, step, seed):
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(40, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    x = (math.sinh(rho) / math.sqrt(curv) * direction).astype(np.float32)  # all at nearly one radius
    filled = Table(curv, 3)
    filled.put(np.arange(40), x, np.zeros(40, np.uint8))
    root = math.sqrt(curv)
    radii = np.arcsinh(root * np.linalg.norm(x.astype(np.float64), axis=1)) / root
    edge = max(0.0, float(np.median(radii)) * (1 + step * 1e-8))
    # What is within a rounding of the edge may fall on either side.
    for where, inside in ((Where(min_radius=edge), radii >= edge), (Where(max_radius=edge), radii <= edge)):
        masks = select(filled.snapshot, where, None, curv)
        got = np.concatenate(
            [np.ones(len(s), bool) if m is None else m for s, m in zip(filled.snapshot, masks, strict=True)]
        )
        sure = np.abs(radii - edge) > 1e-14 * edge
        np.testing.assert_array_equal(got[sure], inside[sure])


def test_an_open_range_of_radii_does_not_copy_the_vectors(monkeypatch):
    filled = Table(CURV, DIM)
    put(filled, range(1, ROWS))
    measured = []
    norm = np.linalg.norm
    monkeypatch.setattr(np.linalg, "norm", lambda x, **k: measured.append(len(x)) or norm(x, **k))
    with unchecked():
        select(filled.snapshot, Where(min_radius=1.0), None, CURV)
        select(filled.snapshot, Where(max_radius=1.0), None, CURV)
    assert sum(measured) < 5


def test_gathered_rows_come_in_the_order_asked_for():
    filled = Table(CURV, DIM)
    put(filled, range(1, 2 * ROWS))
    got = gather(filled.snapshot, [(1, np.array([3, 0])), (0, np.array([7])), (0, np.zeros(0, np.intp))], DIM)
    assert got.keys.tolist() == [ROWS + 4, ROWS + 1, 8]
    np.testing.assert_array_equal(got.vectors, vectors_of(got.keys))
    np.testing.assert_array_equal(got.modality, got.keys % 3)
    got.vectors[:] = 0  # a copy
    alive(filled.snapshot)
    nothing = gather(filled.snapshot, [], DIM)
    assert (len(nothing), nothing.vectors.shape) == (0, (0, DIM))


def test_readers_see_one_state_while_writers_write():
    filled, done = Table(CURV, DIM), threading.Event()
    put(filled, range(1, 101))

    def write():
        # At all times one hundred points: every call replaces ten of them.
        try:
            held = list(range(1, 101))
            for start in range(101, 6001, 10):
                put(filled, range(start, start + 10), held[:10])
                held = held[10:] + list(range(start, start + 10))
                if start % 500 == 1:
                    filled.adopt(indexed(filled.snapshot), filled.snapshot)
        finally:
            done.set()

    def read():
        while not done.is_set():
            found = sorted(alive(filled.snapshot))
            assert found == list(range(found[0], found[0] + 100))

    run_together(write, read, read)
