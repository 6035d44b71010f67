import itertools
import random

import pytest

from hypclip.towers.passes import cost_of_a_pass, passes_by_length

MUCH = 10**9


def cost(lengths: list[int], sizes: tuple[int, ...] | list[int], overhead: int) -> int:
    """Tokens of passes of so many rows, with what each costs besides."""
    ends = list(itertools.accumulate(sizes))
    return sum(size * lengths[end - 1] + overhead for size, end in zip(sizes, ends, strict=True))


def least(lengths: list[int], overhead: int) -> int:
    """The least cost of all ways to cut the rows."""
    ways = (cut for count in range(4) for cut in itertools.combinations(range(1, len(lengths)), count))
    return min(cost(lengths, [b - a for a, b in itertools.pairwise((0, *cut, len(lengths)))], overhead) for cut in ways)


@pytest.mark.parametrize("overhead", [1, 5, 20, 512])
def test_no_other_cut_costs_less(overhead):
    drawn = random.Random(overhead)
    counts = set()
    for _ in range(100):
        lengths = sorted(drawn.choices(range(1, 30), k=drawn.randint(1, 12)))
        sizes = passes_by_length(lengths, MUCH, 1, overhead)
        assert min(sizes) > 0
        assert sum(sizes) == len(lengths)
        assert cost(lengths, sizes, overhead) == least(lengths, overhead)
        counts.add(len(sizes))
    assert max(counts) == (1 if overhead == 512 else 4)


def test_captions_of_the_web_go_in_four():
    drawn = random.Random(0)
    captions = sorted(min(77, 2 + round(drawn.lognormvariate(2.8, 0.55))) for _ in range(256))
    sizes = passes_by_length(captions, len(captions) * captions[-1], 1, cost_of_a_pass(512))
    assert len(sizes) == 4
    assert cost(captions, sizes, 0) < 0.45 * len(captions) * captions[-1]


def test_what_saves_too_little_is_left_as_it_is():
    assert passes_by_length([8] * 64, 64 * 8, 1, 512) == []
    assert passes_by_length([5] * 8 + [9] * 8, 16 * 9, 1, 512) == []
    assert passes_by_length([5] * 8 + [6] * 8, 8 * 5 + 8 * 6, 2, 512) == []  # though one pass would cost less
    assert passes_by_length([5] * 16, 8 * 5 + 8 * 60, 2, 1) == []
    assert passes_by_length([5] * 8 + [6] * 8, 8 * 50 + 8 * 60, 2, 1) == [8, 8]
