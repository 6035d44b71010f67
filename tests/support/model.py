"""The spaces that a model can embed in, and a batch of pixels and tokens of every role."""

import pytest
import torch
from torch import Tensor

from hypclip.towers.passes import TextPasses
from tests.support.training import ROLES, passes_of

SPACES = {
    "lorentz": {},
    "sphere": {"geometry": "sphere"},
    "euclidean": {"geometry": "euclidean", "distance": "squared"},
    "product": {"geometry": "product", "distance": "l1", "factor_dim": 4},
}
each_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def batch(rows: int = 3, roles=ROLES) -> tuple[dict[str, Tensor], TextPasses]:
    generator = torch.Generator().manual_seed(2)
    images = {r: torch.randn(rows, 3, 32, 32, generator=generator) for r in roles if "image" in r}
    texts = {r: torch.randint(1, 49406, (rows, 4 + len(r)), generator=generator) for r in roles if "text" in r}
    return images, passes_of(texts)
