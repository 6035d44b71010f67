import itertools
import random

import pytest
import torch

from hypclip.towers.passes import TextPasses, cost_of_a_pass, passes_by_length
from hypclip.towers.tokens import TokenRows

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


# The passes of a batch ------------------------------------------------------------------------------------------------

PAD = 0


def rows(*lengths: int, first: int = 1) -> TokenRows:
    """Return texts whose tokens are all one number, `first` and up."""
    return TokenRows(torch.cat([torch.full((n,), first + i) for i, n in enumerate(lengths)]), list(lengths))


TEXTS = {"text": rows(3, 30, 4, 29, 30, 3), "box_text": rows(2, 3, 30, first=11), "concept": rows(1, 4, first=21)}


def read(passes: TextPasses) -> list[tuple[int, int]]:
    """Return the number of each text, role after role, and how many tokens it has."""
    features = passes.read(lambda tokens: torch.stack([tokens[:, 0], (tokens != PAD).sum(1)], 1))
    return [tuple(row) for row in features.tolist()]


EVERY = [(1, 3), (2, 30), (3, 4), (4, 29), (5, 30), (6, 3), (11, 2), (12, 3), (13, 30), (21, 1), (22, 4)]


def test_passes_by_length_hold_little_padding_and_give_texts_back_in_their_order():
    passes = TextPasses.plan(TEXTS, PAD, 5)
    assert sum(tokens.numel() for tokens in passes.passes) < 0.6 * 11 * 30
    assert len(passes.passes) >= 3, "never fewer than a pass per role"
    assert read(passes) == EVERY


def test_without_a_cost_each_role_is_a_pass():
    passes = TextPasses.plan(TEXTS, PAD)
    assert [tuple(tokens.shape) for tokens in passes.passes] == [(6, 30), (3, 30), (2, 4)]
    assert (passes.order, passes.counts) == (None, {"text": 6, "box_text": 3, "concept": 2})
    assert read(passes) == EVERY


def test_lengths_all_alike_are_not_sorted():
    alike = {"text": rows(7, 7, 7), "box_text": rows(7, 7)}
    assert TextPasses.plan(alike, PAD, 1).order is None
    assert TextPasses.plan({}, PAD, 1) == TextPasses([], {})


@pytest.mark.parametrize("pass_tokens", [None, 5])
def test_a_part_has_the_texts_of_its_ranges(pass_tokens):
    passes = TextPasses.plan(TEXTS, PAD, pass_tokens)
    part = passes.part({"text": slice(1, 3), "box_text": slice(2, 3), "concept": slice(0, 0)})
    assert part.counts == {"text": 2, "box_text": 1}
    assert read(part) == [(2, 30), (3, 4), (13, 30)]
    assert all(len(tokens) for tokens in part.passes)
    assert read(part.part({"box_text": slice(0, 1)})) == [(13, 30)]


def test_every_tensor_of_passes_is_changed():
    moved = TextPasses.plan(TEXTS, PAD, 5).map(lambda x: x.to("meta"))
    assert moved.order is not None
    assert {x.device.type for x in [*moved.passes, moved.order]} == {"meta"}


@pytest.mark.parametrize("pass_tokens", [None, 1])
def test_a_role_may_have_no_texts(pass_tokens):
    none, some = TokenRows(torch.zeros(0, dtype=torch.int64), []), TokenRows(torch.tensor([1, 2, 3]), [2, 1])
    planned = TextPasses.plan({"text": some, "box_text": none}, 0, pass_tokens)
    assert planned.counts == {"text": 2, "box_text": 0}
    assert planned.read(lambda tokens: tokens.sum(1)).tolist() == [3, 3]
    assert sum(map(len, TextPasses.plan({"text": none}, 0, pass_tokens).passes)) == 0
