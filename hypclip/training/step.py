"""Loss and gradients of one batch, in one pass or in parts.

The contrastive terms compare every sample with every other, so that a batch cannot be cut into parts whose gradients
are added. With a cache of features it can: the towers first run over the parts without a graph; the objective runs once
on all features and finds the gradient of each; then the towers run over the parts again and carry those back. Memory is
that of one part, time one more forward pass. The gradient of curvature and scales that the objective finds is counted
once, not once a part. Source: Gao et al. 2021, arXiv:2101.06983.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hypclip import distributed
from hypclip.data.batch import Batch
from hypclip.model import HypCLIP, Output
from hypclip.objective import Loss, Objective
from hypclip.roles import CONCEPT
from hypclip.training.parallel import average_unsharded_gradients, is_sharded, unsynchronised
from hypclip.training.precision import Precision, towers_in


@dataclass(frozen=True)
class Embedded:
    """Inputs of the objective, of all processes, detached: features, curvature, and all `known` of the samples."""

    features: dict[str, Tensor]
    curv: Tensor
    known: dict[str, Any]


def forward_backward(
    wrapped: nn.Module,
    model: HypCLIP,
    objective: Objective,
    batch: Batch,
    parts: int = 1,
    *,
    precision: Precision = "fp32",
    scaler: torch.amp.GradScaler | None = None,
) -> tuple[Loss, Embedded]:
    """Return the loss of the batch of all processes, detached, and leave the gradients in the parameters.

    Args:
        wrapped: the model as it is called, such as in DistributedDataParallel.
        model: the model itself.
        objective: the recipe.
        batch: this process's samples, on the model's device.
        parts: into how many to cut them. Normalisation over a batch, as in ResNets, then runs over a part, and its
            running statistics see every part twice.
        precision: what the towers compute in.
        scaler: multiplies the gradients, for fp16.

    Nothing waits for the device: whether loss and gradients are finite is for the caller to look at, before the update.
    """
    if parts == 1:
        output = embed(wrapped, batch, objective, precision)
        own, loss, seen = _loss(output, objective, batch)
        torch.autograd.backward(_scaled(own, scaler))
        _exchange(model)
        return loss, seen
    chunks = batch.split(parts)
    states: list[list[Tensor]] = []
    cached: list[Output] = []
    with torch.no_grad():
        for chunk in chunks:
            states.append(_random_state(model.device))
            cached.append(embed(wrapped, chunk, objective, precision))
    features = {
        role: torch.cat([part.features[role] for part in cached if role in part.features]).requires_grad_()
        for role in dict.fromkeys(role for part in cached for role in part.features)
    }
    curv = cached[0].curv.clone().requires_grad_()
    scales = {name: scale.clone().requires_grad_() for name, scale in cached[0].scales.items()}
    own, loss, seen = _loss(Output(features, curv, scales), objective, batch)
    torch.autograd.backward(_scaled(own, scaler))
    done = dict.fromkeys(features, 0)
    for place, (chunk, state) in enumerate(zip(chunks, states, strict=True)):
        last = place == len(chunks) - 1
        _set_random_state(model.device, state)
        with contextlib.nullcontext() if last else unsynchronised(wrapped, model):
            output = embed(wrapped, chunk, objective, precision)
            carried = []
            for role, x in output.features.items():
                carried.append(_dot(x, _gradient(features[role])[done[role] : done[role] + len(x)]))
                done[role] += len(x)
            if last:
                carried += [_dot(output.curv, _gradient(curv))]
                carried += [_dot(output.scales[name], _gradient(scale)) for name, scale in scales.items()]
            torch.autograd.backward(torch.stack(carried).sum())
    _exchange(model)
    return loss, seen


def _exchange(model: HypCLIP) -> None:
    if is_sharded(model):
        average_unsharded_gradients(model)


def embed(wrapped: nn.Module, batch: Batch, objective: Objective, precision: Precision) -> Output:
    """Return the features of this process's samples."""
    shape = (batch.size, objective.recipe.max_boxes)
    with towers_in(precision, next(iter(batch.content.values())).device):
        output: Output = wrapped(batch.images, batch.texts, shape, batch.box_rows)
    return output


def _scaled(loss: Tensor, scaler: torch.amp.GradScaler | None) -> Tensor:
    return loss if scaler is None else scaler.scale(loss)


def _loss(output: Output, objective: Objective, batch: Batch) -> tuple[Tensor, Loss, Embedded]:
    """Return the loss to be differentiated, the mean over processes with its parts, and the inputs of the objective."""
    own = {**output.features, **{f"content {role}": ids for role, ids in batch.content.items()}}
    own |= {f"ancestors {role}": ids for role, ids in batch.ancestors.items()}
    if batch.box_weight is not None:
        own["box_weight"] = batch.box_weight
    if batch.levels is not None:
        own["levels"] = batch.levels
    of_all: dict[str, Tensor] = {}
    # Samples and concepts are of different numbers.
    for names in ([n for n in own if not _of_concepts(n)], [n for n in own if _of_concepts(n)]):
        if names:
            gathered = distributed.gather_rows_with_gradient([own[name] for name in names])
            of_all |= dict(zip(names, gathered, strict=True))
    features = {role: of_all[role] for role in output.features}
    known: dict[str, Any] = {
        "content": {role: of_all[f"content {role}"] for role in batch.content},
        "ancestors": {role: of_all[f"ancestors {role}"] for role in batch.ancestors},
        "box_weight": of_all.get("box_weight"),
        "levels": of_all.get("levels"),
    }
    first = distributed.rank() * batch.size
    local = slice(first, first + batch.size)
    loss = objective(features, curv=output.curv, logit_scale=output.scales, local=local, **known)
    # A scale that the recipe does not name takes part too: DistributedDataParallel waits for the gradient of each.
    every_scale = torch.stack(list(output.scales.values())).sum()
    whole = loss.loss + 0 * every_scale
    values = torch.stack([whole, *loss.parts.values()]).detach().unsqueeze(0)
    mean, *parts = distributed.gather_rows(values).mean(0)
    detached = {role: x.detach() for role, x in features.items()}
    seen = Embedded(detached, output.curv.detach(), known)
    return whole, Loss(mean, dict(zip(loss.parts, parts, strict=True))), seen


def _of_concepts(name: str) -> bool:
    return name == "levels" or name.rpartition(" ")[2] == CONCEPT


def _dot(value: Tensor, gradient: Tensor) -> Tensor:
    return (value * gradient).sum()


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _random_state(device: torch.device) -> list[Tensor]:
    state = [torch.get_rng_state()]
    return [*state, torch.cuda.get_rng_state(device)] if device.type == "cuda" else state


def _set_random_state(device: torch.device, state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
