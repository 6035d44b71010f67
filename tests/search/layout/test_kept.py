"""Layouts on disk: read again as they were, made anew where they no longer fit."""

import numpy as np
import pytest

from hypclip.errors import InputError
from hypclip.search import Space
from hypclip.search.contents import Block, Contents
from hypclip.search.layout.kept import Layouts, landmarks

SPACE = Space("m", 1.0, 4, "a")


def contents(n: int, seed: int = 0) -> Contents:
    x = np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)
    blocks = [Block(np.arange(n)[::-1], x[::-1], np.zeros(n, np.uint8))] if n else []
    return Contents(str(n), n, lambda: blocks)


def test_a_layout_is_read_again_as_it_was(tmp_path):
    made = Layouts(tmp_path).of("c", SPACE, contents(100))
    again = Layouts(tmp_path).of("c", SPACE, contents(399, seed=1))
    assert again.about == made.about
    assert (again.circle.landmarks == made.circle.landmarks).all()
    assert (made.about.version, made.about.built_at) == (1, 100)


@pytest.mark.parametrize(
    "space, count", [(SPACE, 400), (Space("other", 1.0, 4, "a"), 100), (Space("m", 1.0, 4, "b"), 100)]
)
def test_a_layout_is_made_again_after_fourfold_growth_and_for_another_model(tmp_path, space, count):
    first = Layouts(tmp_path).of("c", SPACE, contents(100)).about
    second = Layouts(tmp_path).of("c", space, contents(count)).about
    assert (second.version, second.built_at) == (2, count)
    assert second.token != first.token
    assert Layouts(tmp_path).of("c", space, contents(count)).about == second


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"x" * 100, lambda b: b[::-1]])
def test_a_damaged_file_is_made_again_with_a_line_in_the_log(tmp_path, caplog, damage):
    Layouts(tmp_path).of("c", SPACE, contents(100))
    file = tmp_path / "layouts" / "c.npz"
    file.write_bytes(damage(file.read_bytes()))
    assert Layouts(tmp_path).of("c", SPACE, contents(100)).about.built_at == 100
    assert "made again" in caplog.text
    caplog.clear()
    Layouts(tmp_path).of("c", SPACE, contents(100))
    assert not caplog.text


def test_a_file_of_another_dimension_is_made_again(tmp_path):
    Layouts(tmp_path).of("c", SPACE, contents(100))
    x = np.ones((9, 3), np.float32)
    wide = Contents("v", 9, lambda: [Block(np.arange(9), x, np.zeros(9, np.uint8))])
    assert Layouts(tmp_path).of("c", Space("m", 1.0, 3, "a"), wide).circle.is_whole(3)


def test_where_no_file_can_be_written_a_layout_lasts_as_long_as_the_process(tmp_path, caplog):
    (tmp_path / "layouts").write_text("in the way")
    layouts = Layouts(tmp_path)
    first = layouts.of("c", SPACE, contents(100))
    assert "not kept" in caplog.text
    assert layouts.of("c", SPACE, contents(100)) is first


def test_names_that_would_leave_the_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="named by"):
        Layouts(tmp_path).of("../c", SPACE, contents(1))


def test_landmarks_are_evenly_spaced_in_the_order_of_the_keys():
    keys = np.random.default_rng(0).permutation(10_000)
    x = np.stack([keys, keys], 1).astype(np.float32)
    blocks = [Block(keys[s : s + 3000], x[s : s + 3000], np.zeros(0, np.uint8)) for s in range(0, 10_000, 3000)]
    found = landmarks(blocks, 2)[:, 0]
    assert len(found) == 2048
    assert set(np.diff(found).tolist()) == {4.0, 5.0}
    assert landmarks([], 2).tolist() == [[0, 0]]
