"""Classes that were never seen, recognised by their place in a tree.

Classes and what stands above them have fixed points in hyperbolic space, their prototypes. A small head learns to put
features of images where the prototypes of their classes are, from seen classes alone; an image of an unseen class then
lies nearest to where the tree has it. After Long et al. 2020, "Searching for Actions on the Hyperbole", and Liu et al.
2020, "Hyperbolic Visual Embedding Learning for Zero-Shot Recognition". Everything has the curvature −1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hypclip.errors import DataError, InputError, first_few
from hypclip.geometry import lorentz
from hypclip.taxonomy.embedding import place
from hypclip.taxonomy.graph import Taxonomy, same_phrase

_FIRST_SCALE = 3.0
"""1/T to begin with."""


@dataclass(frozen=True)
class Prototypes:
    """Points of the hyperboloid by phrase.

    Args:
        phrases: classes and what stands above them, as a taxonomy spells them.
        points: their space components.
    """

    phrases: tuple[str, ...]
    points: Float[Tensor, "n d"]

    def of(self, phrases: Sequence[str]) -> Float[Tensor, "m d"]:
        """Return the points of phrases.

        Raises:
            DataError: some have none; the message names the first few.
        """
        rows = {phrase: row for row, phrase in enumerate(self.phrases)}
        wanted = [same_phrase(phrase) for phrase in phrases]
        if lost := [phrase for phrase in wanted if phrase not in rows]:
            raise DataError(f"there are no prototypes of {first_few(list(map(repr, lost)))}: the tree lacks them")
        return self.points[[rows[phrase] for phrase in wanted]]

    def without_tree(self, seed: int) -> Prototypes:
        """Return prototypes of the same phrases at the same radii, in random directions: they know no tree."""
        generator = torch.Generator().manual_seed(seed)
        direction = nn.functional.normalize(torch.randn(self.points.shape, generator=generator), dim=1)
        return Prototypes(self.phrases, direction * self.points.norm(dim=1, keepdim=True))


def place_prototypes(taxonomy: Taxonomy, dim: int = 32, tau: float = 1.0) -> Prototypes:
    """Place a tree in closed form, see `hypclip.taxonomy.embedding.place`."""
    phrases, points = place(taxonomy, dim, tau)
    return Prototypes(tuple(phrases), points)


def read_prototypes(folder: Path) -> Prototypes:
    """Read what train/embed_taxonomy.py has written: points.safetensors and phrases.json.

    Raises:
        DataError: they cannot be read, or are not of one length.
    """
    try:
        points = load_file(folder / "points.safetensors")["points"]
        phrases = json.loads((folder / "phrases.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} is no output of train/embed_taxonomy.py: {error}") from error
    if len(phrases) != len(points):
        raise DataError(f"{folder} has {len(phrases)} phrases and {len(points)} points")
    return Prototypes(tuple(phrases), points.float())


@dataclass(frozen=True)
class HeadTraining:
    """How a head is trained.

    Args:
        steps: updates.
        batch: images of one.
        rate: the learning rate of AdamW, which falls to 0 as a cosine.
        weight_decay: of its matrices.
        dropout: share of the features that a step leaves out.
        hidden: units of a hidden layer; 0 is a linear head.
        seed: of the first weights and of all samples.
    """

    steps: int = 600
    batch: int = 256
    rate: float = 3e-3
    weight_decay: float = 1e-4
    dropout: float = 0.3
    hidden: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("hidden", 0), ("weight_decay", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not self.rate > 0:
            raise InputError(f"rate must be positive, got {self.rate:g}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be at least 0 and below 1, got {self.dropout:g}")


class PrototypeHead(nn.Module):
    """Features to points of the hyperboloid: exp0 of a linear map, or of a network of one hidden layer.

    Args:
        features: how many a row has.
        dim: D.
        hidden: units of the hidden layer; 0 for none.
        dropout: share of the features left out in training.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: int, dim: int, hidden: int = 0, dropout: float = 0.0):
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.dropout = nn.Dropout(dropout)
        middle: list[nn.Module] = [nn.Linear(features, hidden), nn.GELU()] if hidden else []
        self.net = nn.Sequential(*middle, nn.Linear(hidden or features, dim))
        self.log_scale = nn.Parameter(torch.tensor(-math.log(dim) / 2))
        self.log_inverse_temperature = nn.Parameter(torch.tensor(_FIRST_SCALE).log())

    def forward(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "n d"]:
        """Return space components, from features that are standardised as those of training were."""
        tangent = self.net(self.dropout((features.float() - self.mean) / self.deviation))
        return lorentz.exp_map0(tangent * self.log_scale.exp(), 1.0)

    def logits(self, points: Float[Tensor, "n d"], prototypes: Float[Tensor, "c d"]) -> Float[Tensor, "n c"]:
        """Return −d(point, prototype)/T of all pairs, T learned."""
        return -lorentz.pairwise_dist(points, prototypes, 1.0) * self.log_inverse_temperature.exp()

    def save(self, path: Path) -> None:
        """Write weights and sizes to a .safetensors file."""
        linear = self.net[-1]
        assert isinstance(linear, nn.Linear)
        hidden = linear.in_features if len(self.net) > 1 else 0
        sizes = {"features": len(self.mean), "dim": linear.out_features, "hidden": hidden}
        save_file(self.state_dict(), path, {name: str(size) for name, size in sizes.items()})

    @classmethod
    def load(cls, path: Path) -> PrototypeHead:
        """Read what `save` wrote.

        Raises:
            DataError: it cannot be read, or is something else.
        """
        try:
            with safe_open(path, "pt") as file:
                sizes = file.metadata()
            head = cls(int(sizes["features"]), int(sizes["dim"]), int(sizes["hidden"]))
            head.load_state_dict(load_file(path))
        except Exception as error:  # safetensors has an exception type of its own for each damage
            raise DataError(f"cannot read a head from {path}: {error}") from error
        return head.eval()


def train_head(
    features: Float[Tensor, "n f"],
    labels: Sequence[int],
    prototypes: Float[Tensor, "c d"],
    training: HeadTraining = HeadTraining(),
) -> PrototypeHead:
    """Train a head on the cross-entropy of softmax(−d(head(x), prototype)/T) over the seen classes.

    Args:
        features: of images of seen classes.
        labels: which of the prototypes each is of.
        prototypes: of the seen classes.
        training: how.

    Raises:
        InputError: no features, features that are not finite, or labels that are no rows of the prototypes.
    """
    y = torch.tensor(labels)
    if not len(features) or len(y) != len(features):
        raise InputError(f"a head needs features and as many labels, got {len(features)} and {len(y)}")
    if not features.isfinite().all():
        raise InputError("features must be finite numbers, and some are not")
    if int(y.min()) < 0 or int(y.max()) >= len(prototypes):
        raise InputError(f"labels must be rows of the {len(prototypes)} prototypes, got {int(y.min())}..{int(y.max())}")
    x = features.float()
    generator = torch.Generator().manual_seed(training.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        head = PrototypeHead(x.shape[1], prototypes.shape[1], training.hidden, training.dropout)
        head.mean.copy_(x.mean(0))
        head.deviation.copy_(x.std(0, correction=0).clamp(min=1e-6))
        matrices = [p for p in head.parameters() if p.dim() > 1]
        rest = [p for p in head.parameters() if p.dim() <= 1]
        groups = [{"params": matrices, "weight_decay": training.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, lr=training.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, training.steps)
        for _ in range(training.steps):
            rows = torch.randint(len(x), (training.batch,), generator=generator)
            loss = nn.functional.cross_entropy(head.logits(head(x[rows]), prototypes), y[rows])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
    return head.eval()
