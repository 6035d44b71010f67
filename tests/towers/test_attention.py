"""Explicit attention for training on a CPU: the same numbers and gradients, where it is asked for only."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention as fused

from hypclip.towers.attention import explicit_attention, use_explicit_attention
from tests.support.checks import is_fused

SHAPE = (2, 4, 9, 16)


def tensors(rows: int = 9, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, rows, 16, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


MASKS = {
    "none": {},
    "causal": {"is_causal": True},
    "bool": {"attn_mask": torch.ones(9, 9, dtype=torch.bool).tril()},
    "float": {"attn_mask": torch.full((9, 9), -torch.inf).triu(1)},
    "scale": {"scale": 0.3},
}


@pytest.mark.parametrize("mask", MASKS)
def test_written_out_it_has_the_same_values_and_gradients(mask):
    """Those of the operator in float64: its own in float32 are as far off, and by how much depends on the processor."""
    exact = {k: x.double() if torch.is_tensor(x) and x.is_floating_point() else x for k, x in MASKS[mask].items()}
    expected = fused(*(inputs := tensors(dtype=torch.float64)), **exact)
    expected.square().sum().backward()
    with explicit_attention():
        got = fused(*(ours := tensors()), **MASKS[mask])
    got.square().sum().backward()
    assert is_fused(fused(*tensors(), **MASKS[mask]))
    assert not is_fused(got)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)
    for a, b in zip(ours, inputs, strict=True):
        assert (a.grad - b.grad).abs().max() <= 1e-6 * b.grad.abs().max()


def test_keys_shared_by_heads():
    query, key, value = tensors()
    arguments = (query, key[:, :2], value[:, :2])
    with explicit_attention():
        got = fused(*arguments, enable_gqa=True)
    torch.testing.assert_close(got, fused(*arguments, enable_gqa=True), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "dtype", "written_out"),
    [(64, torch.float32, True), (65, torch.float32, False), (65, torch.bfloat16, True), (513, torch.bfloat16, False)],
)
def test_long_rows_stay_fused(rows, dtype, written_out):
    inputs = tensors(rows, dtype)
    with explicit_attention():
        assert is_fused(fused(*inputs)) is not written_out


def test_without_gradients_nothing_changes():
    inputs = tensors()
    with torch.no_grad():
        expected = fused(*inputs)
        with explicit_attention():
            assert torch.equal(fused(*inputs), expected)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("rows", "written_out"), [(9, True), (65, False)])
def test_layers_of_torch(batch_first, rows, written_out):
    torch.manual_seed(0)
    plain = nn.MultiheadAttention(16, 4, batch_first=batch_first)
    use_explicit_attention(layer := copy.deepcopy(plain))
    x = torch.randn(2, rows, 16) if batch_first else torch.randn(rows, 2, 16)
    mask = torch.full((rows, rows), -torch.inf).triu(1)
    expected = plain(x, x, x, need_weights=False, attn_mask=mask)[0]
    got = layer(x, x, x, need_weights=False, attn_mask=mask)[0]
    assert is_fused(got) is not written_out
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert layer(x, x, x, need_weights=False, attn_mask=mask)[1] is None


def test_weights_that_are_asked_for_are_those_of_torch():
    layer = copy.deepcopy(plain := nn.MultiheadAttention(16, 4, batch_first=True))
    use_explicit_attention(layer)
    x = torch.randn(2, 5, 16)
    assert layer(x, x, x)[1].shape == plain(x, x, x)[1].shape == (2, 5, 5)
