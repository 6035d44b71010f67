"""Gradients of a token table by row: the same updates as with whole ones, in any number of parts."""

import copy

import pytest
import torch
from torch import nn

from hypclip.objective import Objective
from hypclip.training import parallel
from hypclip.training.optim import adamw
from hypclip.training.step import forward_backward
from hypclip.training.tables import RowsToTable, dense_gradients, use_row_gradients
from tests.support.training import make_batch, tiny_model

STEPS = 4


def trained(by_row, parts=1, clip_norm=1.0):
    """Return a model after some steps, each on other texts, and the norms of its gradients."""
    model = tiny_model(seed=1).train()
    if by_row:
        assert use_row_gradients(model) == [model.text_tower.token_embedding]
    optimizer = adamw(model, learning_rate=1e-2, weight_decay=0.5, betas=(0.9, 0.98))
    RowsToTable(optimizer)
    objective = Objective.from_recipe("hycoclip")
    norms = []
    for step in range(STEPS):
        optimizer.zero_grad()
        forward_backward(model, model, objective, make_batch(seed=step), parts)
        assert model.text_tower.token_embedding.weight.grad.is_sparse is by_row
        norms.append(parallel.clip_gradients(model, clip_norm))
        optimizer.step()
    return model, torch.stack(norms)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("clip_norm", [0.01, 1e6])
def test_updates_are_those_of_whole_gradients(parts, clip_norm):
    want, norms = trained(False, parts, clip_norm)
    got, own_norms = trained(True, parts, clip_norm)
    torch.testing.assert_close(own_norms, norms)
    assert clip_norm > norms.max() or clip_norm < norms.min()
    for (name, weight), expected in zip(got.named_parameters(), want.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=2e-6, msg=name)


def table_and_optimizer():
    table = nn.Embedding(5_000, 2)
    (chosen,) = use_row_gradients(nn.ModuleList([table]))
    assert chosen is table
    optimizer = torch.optim.AdamW(table.parameters(), lr=0.1, fused=True)
    RowsToTable(optimizer)
    return table, optimizer


def update(table, optimizer, *tokens):
    optimizer.zero_grad()
    table(torch.tensor(tokens)).sum().backward()
    optimizer.step()


def test_a_token_that_is_gone_moves_on_by_its_moments_and_no_gradient_is_left_of_it():
    table, optimizer = table_and_optimizer()
    reference = copy.deepcopy(table)
    reference.sparse = False
    whole = torch.optim.AdamW(reference.parameters(), lr=0.1, fused=True)
    for tokens in ((7, 7, 9), (9,), (4_999,)):
        before = table.weight.detach().clone()
        update(table, optimizer, *tokens)
        update(reference, whole, *tokens)
        assert (table.weight[7] != before[7]).all()
        torch.testing.assert_close(table.weight, reference.weight)
    assert table.weight.grad is None
    moments, expected = optimizer.state[table.weight], whole.state[reference.weight]
    torch.testing.assert_close(moments["exp_avg"], expected["exp_avg"])
    torch.testing.assert_close(moments["exp_avg_sq"], expected["exp_avg_sq"])


def test_tables_that_are_small_or_locked_or_adapted_keep_whole_gradients():
    small, locked, adapted = nn.Embedding(100, 2), nn.Embedding(5_000, 2), nn.Embedding(5_000, 2)
    locked.weight.requires_grad_(False)
    nn.utils.parametrize.register_parametrization(adapted, "weight", nn.Identity())
    model = nn.ModuleList([small, locked, adapted])
    assert use_row_gradients(model) == []
    assert not any(table.sparse for table in model)


def test_the_rows_of_a_gradient_are_what_is_scaled():
    table, _ = table_and_optimizer()
    table(torch.tensor([3, 3, 8])).sum().backward()
    gradient = table.weight.grad.coalesce()
    dense = torch.ones(3)
    (rows, same) = dense_gradients([gradient, dense])
    assert same is dense
    rows.mul_(0.5)
    assert gradient.to_dense()[[3, 8, 9]].tolist() == [[1.0, 1.0], [0.5, 0.5], [0.0, 0.0]]
