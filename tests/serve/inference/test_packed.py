"""Texts packed in one row have the features that a text tower gives them by themselves."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hypclip.towers.build import build_towers
from hypclip.towers.text import Tokenizer
from hypclip.towers.tokens import TokenRows
from serve.inference.packed import PackedTower, can_be_packed, pack, read_packed
from tests.support.models import tiny_model

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
TEXTS = ["", "a dog", "x" * 500, "a dog <end_of_text> and a cat", "two dogs", "a dog", "a cat " * 60, "A café, 18 °C"]


def tower_of(**changes: Any) -> tuple[nn.Module, Tokenizer]:
    text = {**TEXT, **changes}
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 8, "patch_size": 8, "width": 32, "head_width": 16, "layers": 1},
    }
    torch.manual_seed(0)
    return build_towers({**config, "text_cfg": text})[1].eval(), Tokenizer(text)


@pytest.mark.parametrize(
    "changes",
    [{}, {"proj_bias": True}, {"proj_type": "none", "width": 16}, {"ls_init_value": 0.1}, {"context_length": 12}],
    ids=str,
)
@pytest.mark.parametrize("count", [1, 2, len(TEXTS), 60])
@torch.no_grad()
def test_packed_texts_have_the_features_of_each_alone(changes, count):
    tower, tokenizer = tower_of(**changes)
    assert can_be_packed(tower)
    rows = tokenizer.encode((TEXTS * 8)[:count])
    passes = []

    def packed(row: Tensor) -> Tensor:
        passes.append(row.shape[1])
        return PackedTower(tower)(row)

    found = read_packed(packed, rows)
    expected = torch.cat([tower(tokenizer([text])) for text in (TEXTS * 8)[:count]])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=5e-6)  # products of other shapes round otherwise
    assert sum(passes) == sum(rows.lengths)
    assert max(passes) <= 128
    assert all(a + b > 128 for a, b in itertools.pairwise(passes))


@torch.no_grad()
def test_a_text_longer_than_a_pass_has_one_of_its_own():
    tower, tokenizer = tower_of(context_length=300)
    texts = ["dog " * 400, "a dog", "dog " * 400]
    found = read_packed(PackedTower(tower), tokenizer.encode(texts))
    torch.testing.assert_close(found, tower(tokenizer(texts)), rtol=1e-5, atol=5e-6)


def test_positions_begin_anew_with_each_text():
    packed, ends = pack(TokenRows(torch.tensor([7, 5, 9, 7, 9, 7, 4, 9]), [3, 2, 3]))
    assert packed.tolist() == [[7, 5, 9, 7, 9, 7, 4, 9], [0, 1, 2, 0, 1, 0, 1, 2]]
    assert ends.tolist() == [2, 4, 7]


@pytest.mark.parametrize(
    "changes",
    [{"no_causal_mask": True}, {"embed_cls": True}, {"pool_type": "last"}, {"pool_type": "first"}],
    ids=str,
)
def test_towers_that_see_more_or_elsewhere_are_not_packed(changes):
    assert not can_be_packed(tower_of(**changes)[0])


def test_towers_of_others_are_not_packed():
    assert not can_be_packed(tiny_model().image_tower)
