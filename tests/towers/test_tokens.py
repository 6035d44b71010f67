"""Token ids of several texts, joined end to end."""

import torch

from hypclip.towers.tokens import TokenRows

ROWS = TokenRows(torch.tensor([5, 6, 7, 0, 8, 9]), [3, 1, 2])


def test_padding_fills_each_text_up_to_the_longest():
    assert ROWS.padded(4).tolist() == [[5, 6, 7], [0, 4, 4], [8, 9, 4]]
    assert TokenRows(torch.empty(0, dtype=torch.int64), []).padded(4).shape == (0, 1)


def test_the_texts_of_several_are_joined_in_order():
    ids, lengths = TokenRows.joined([ROWS, TokenRows(torch.tensor([3, 2]), [2])])
    assert (ids.tolist(), lengths) == ([5, 6, 7, 0, 8, 9, 3, 2], [3, 1, 2, 2])


def test_each_text_has_its_own_ids():
    assert [ids.tolist() for ids in ROWS.split()] == [[5, 6, 7], [0], [8, 9]]
