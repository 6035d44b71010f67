"""Gradients of a token table as its rows, on a CPU.

A batch has a few hundred of a vocabulary's 49,408 tokens; the rest of a gradient of the whole table is zeros, written,
added, measured, scaled and sent to other processes at every step. torch's sparse gradients leave them out; this file
chooses the tables and gives AdamW, which moves every row at every step, the whole gradient that it needs. The update is
the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_LARGE = 4_096
"""Rows from which a table is worth it."""


def use_row_gradients(model: nn.Module) -> list[nn.Embedding]:
    """Let the large tables of a model have sparse gradients; return those tables.

    Only where gradients are exchanged by gloo, if at all, since NCCL exchanges whole ones only, and where every batch
    has tokens, since DistributedDataParallel waits for the gradient of each table.
    """
    tables = [
        module
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        and module.num_embeddings >= _LARGE
        and module.weight.requires_grad
        and not parametrize.is_parametrized(module)
    ]
    for table in tables:
        table.sparse = True
    return tables


def dense_gradients(gradients: list[Tensor]) -> list[Tensor]:
    """Return what is in gradients: of a sparse one, which has to be coalesced, its rows."""
    return [gradient.values() if gradient.is_sparse else gradient for gradient in gradients]


class RowsToTable:
    """Hand an optimiser whole gradients in place of sparse ones, for the time of its update.

    Args:
        optimizer: of parameters that may have sparse gradients.
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        self._tables: dict[nn.Parameter, Tensor] = {}  # of zeros, but within an update
        self._filled: list[tuple[nn.Parameter, Tensor]] = []
        optimizer.register_step_pre_hook(self._fill)
        optimizer.register_step_post_hook(self._clear)

    def _fill(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    rows = parameter.grad.coalesce()
                    index = rows.indices()[0]
                    if parameter not in self._tables:
                        self._tables[parameter] = torch.zeros_like(parameter)
                    table = self._tables[parameter]
                    table.index_copy_(0, index, rows.values())
                    parameter.grad = table
                    self._filled.append((parameter, index))

    def _clear(self, *_: Any) -> None:
        for parameter, index in self._filled:
            self._tables[parameter].index_fill_(0, index, 0)
            parameter.grad = None
        self._filled.clear()
