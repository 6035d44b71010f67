"""HypCLIP: towers → projection → learned scale → lift onto the hyperboloid.

open_clip builds the towers, projection included; this file adds what makes the model hyperbolic.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, NamedTuple

import open_clip
import torch
from annotated_types import Len
from jaxtyping import Bool, Float, Int
from pydantic import Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hypclip.config import STRICT_KEYS
from hypclip.data.given import ImageLike, batches, images_of, texts_of
from hypclip.errors import ConfigError, InputError
from hypclip.geometry.entailment import Cone, Entailment, Plane, coincident, pairwise_score
from hypclip.geometry.metric import Distance, Geometry, Metric
from hypclip.roles import BOX_ROLES
from hypclip.towers.attention import explicit_attention, use_explicit_attention
from hypclip.towers.build import build_towers, tower_config
from hypclip.towers.image import evaluation_transform
from hypclip.towers.passes import TextPasses, cost_of_a_pass
from hypclip.towers.text import Tokenizer

LOG_SCALE_RANGE = (math.log(0.01), math.log(100.0))
LOG_CURV_RANGE = (math.log(0.1), math.log(10.0))


@dataclass(frozen=True, config=STRICT_KEYS)
class ModelConfig:
    """Everything that builds a model.

    Args:
        towers: name of an open_clip model config, "ViT-B-32", or such a config written out: {"embed_dim", "vision_cfg",
            "text_cfg"}.
        geometry: where the features live; in a run it follows the objective.
        distance: what similarities are made of, see `Metric`; it follows the objective too.
        factor_dim: dimensions of a factor, of a product.
        image_mean: of pixel values in [0, 1], by channel.
        image_std: their standard deviation.
        curv_init: c to begin with; the curvature is −c.
        learn_curv: whether c is learned.
        logit_scale_init: inverse temperature of the contrast to begin with.
        other_scales: those of the other inverse temperatures that the objective names.
        entailment: what makes one point more general than another: its cone, or the half-space beyond it.
    """

    towers: str | dict[str, Any]
    geometry: Geometry = "lorentz"
    distance: Distance = "geodesic"
    factor_dim: PositiveInt | None = None
    image_mean: Annotated[Sequence[float], Len(3, 3)] = field(
        default_factory=lambda: list(open_clip.OPENAI_DATASET_MEAN)
    )
    image_std: Annotated[Sequence[PositiveFloat], Len(3, 3)] = field(
        default_factory=lambda: list(open_clip.OPENAI_DATASET_STD)
    )
    curv_init: PositiveFloat = 1.0
    learn_curv: bool = True
    logit_scale_init: PositiveFloat = 1 / 0.07
    other_scales: dict[str, PositiveFloat] = field(default_factory=dict)
    entailment: Annotated[Cone | Plane, Field(discriminator="form")] = field(default_factory=Cone)

    @property
    def metric(self) -> Metric:
        """The space, and the distance that similarities are made of."""
        return Metric(self.geometry, self.distance, self.factor_dim)


class Output(NamedTuple):
    """Features by role, each (B, D) space components in float32, and what else the objective needs."""

    features: dict[str, Tensor]
    curv: Tensor
    scales: dict[str, Tensor]


class HypCLIP(nn.Module):
    """Two towers whose features live on a hyperboloid of learned curvature −c.

    Args:
        config: see ModelConfig.

    Raises:
        ConfigError: the towers are unknown to open_clip or their config has an unknown key.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.metric = config.metric
        self.model_id = "unsaved"
        self.revision = ""
        self._computes_again = False
        self._attends_explicitly = False
        self.passes_are_fixed = False
        """Whether batches have to have a pass per role: FSDP gathers weights per pass, compilation is per shape."""
        towers = tower_config(config.towers)
        self.pass_tokens = cost_of_a_pass(towers["text_cfg"].get("width", 512))
        """What a pass of the text tower costs besides its tokens, in tokens."""
        self.image_tower, self.text_tower = build_towers(towers)
        self.dim: int = towers["embed_dim"]
        self.image_size = _square(towers["vision_cfg"].get("image_size", 224))
        self.tokenizer = Tokenizer(towers["text_cfg"])
        self.transform = evaluation_transform(self.image_size, config.image_mean, config.image_std)

        factors = self.metric.factors(self.dim)
        for name in config.other_scales:
            if not name.isidentifier() or name == "logit_scale" or hasattr(nn.ParameterDict, name):
                raise ConfigError(f"model.other_scales cannot name a scale {name!r}: choose another name")

        def learned(value: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.full(shape, value))

        each = (factors,) if self.metric.geometry == "product" else ()
        self.log_logit_scale = learned(math.log(config.logit_scale_init))
        self.log_other_scales = nn.ParameterDict(
            {name: learned(math.log(value)) for name, value in config.other_scales.items()}
        )
        self.log_curv = learned(math.log(config.curv_init), *each)
        self.log_image_scale = learned(self.metric.initial_log_scale(self.dim), *each)
        self.log_text_scale = learned(self.metric.initial_log_scale(self.dim), *each)
        for scale in (self.log_image_scale, self.log_text_scale):
            scale.requires_grad_(self.metric.has_cones)
        self.log_curv.requires_grad_(config.learn_curv and self.metric.is_hyperbolic)

    @property
    def curv(self) -> Float[Tensor, "*factors"]:
        """C > 0: the model's space has curvature −c; one number, or for a product one per factor."""
        return self.log_curv.exp()

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        """The inverse temperature of the contrastive logits."""
        return self.log_logit_scale.exp()

    @property
    def scales(self) -> dict[str, Float[Tensor, ""]]:
        """Every inverse temperature by the name that a recipe gives it."""
        others = {name: scale.exp() for name, scale in self.log_other_scales.items()}
        return {"logit_scale": self.logit_scale, **others}

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.log_curv.device

    def encode_image(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch d"]:
        """Embed normalised pixels; float32 space components whatever the towers run in."""
        with self._attention():
            features = self.image_tower(pixels)
        return self.metric.lift(features.float(), self.log_image_scale.exp(), self.curv)

    def encode_text(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch d"]:
        """Embed token ids of any length up to the context length."""
        return self._lift_text(self._read(tokens))

    def forward(
        self,
        images: Mapping[str, Tensor],
        texts: TextPasses,
        shape: tuple[int, int] | None = None,
        box_rows: Int[Tensor, " m"] | None = None,
    ) -> Output:
        """Embed every role of a batch, images of one size in one pass and texts in the passes they come in.

        Args:
            images: role → pixels (B, 3, H, W).
            texts: token ids of the roles of texts, as `collate` plans them.
            shape: (B, N), N being how many boxes a sample may have; needed with `box_rows` only.
            box_rows: with several boxes, box roles have M rows; the place of each among B · N. Their features are
                (B, N, D), at the origin where there is no box.
        """
        features: dict[str, Tensor] = {}
        for roles in _by_size(images):
            embedded = self.encode_image(torch.cat([images[r] for r in roles]))
            features.update(zip(roles, torch.split(embedded, [images[r].shape[0] for r in roles]), strict=True))
        features.update(self._encode_texts(texts))
        if box_rows is not None and shape is not None:
            for role in features.keys() & BOX_ROLES:
                padded = features[role].new_zeros(shape[0] * shape[1], self.dim)
                features[role] = padded.index_copy(0, box_rows, features[role]).view(*shape, self.dim)
        return Output(features, self.curv, self.scales)

    def _encode_texts(self, texts: TextPasses) -> dict[str, Tensor]:
        if texts.order is None:
            return dict(zip(texts.counts, map(self.encode_text, texts.passes), strict=True))
        embedded = self._lift_text(texts.read(self._read))
        return dict(zip(texts.counts, torch.split(embedded, list(texts.counts.values())), strict=True))

    def _read(self, tokens: Tensor) -> Tensor:
        with self._attention():
            features: Tensor = self.text_tower(tokens)
        return features

    def _lift_text(self, features: Tensor) -> Tensor:
        return self.metric.lift(features.float(), self.log_text_scale.exp(), self.curv)

    def _attention(self) -> contextlib.AbstractContextManager[object]:
        # What is computed again in the backward pass is so outside of this context, and must come out the same.
        explicit = self._attends_explicitly and not self._computes_again
        return explicit_attention() if explicit else contextlib.nullcontext()

    def use_explicit_attention(self) -> None:
        """Train the towers with explicit attention, which is faster on a CPU; see `hypclip.towers.attention`."""
        self._attends_explicitly = True
        for tower in (self.image_tower, self.text_tower):
            use_explicit_attention(tower)

    def set_grad_checkpointing(self) -> None:
        """Let the towers compute activations again in the backward pass instead of keeping them.

        Raises:
            ConfigError: a tower cannot.
        """
        towers: dict[str, Any] = {"image": self.image_tower, "text": self.text_tower}
        for name, tower in towers.items():
            part = getattr(tower, "trunk", tower)  # timm's own, since open_clip's wrapper hides its refusal
            if isinstance(part, open_clip.modified_resnet.ModifiedResNet) or not hasattr(
                part, "set_grad_checkpointing"
            ):
                raise ConfigError(f"train.gradient_checkpointing: the {name} tower, {type(part).__name__}, has none")
            try:
                part.set_grad_checkpointing(True)
            except (AssertionError, AttributeError, NotImplementedError) as error:
                raise ConfigError(f"train.gradient_checkpointing: the {name} tower has none: {error}") from error
        self._computes_again = True

    @torch.no_grad()
    def clamp_scalars(self) -> None:
        """Bring the learned scalars back into their ranges; called once after each optimiser step."""
        for scale in (self.log_logit_scale, *self.log_other_scales.values()):
            scale.clamp_(*LOG_SCALE_RANGE)
        self.log_curv.clamp_(*LOG_CURV_RANGE)
        self.log_image_scale.clamp_(max=0.0)
        self.log_text_scale.clamp_(max=0.0)

    @torch.no_grad()
    def embed_text(self, texts: Iterable[Any], batch_size: int = 256) -> Float[Tensor, "n d"]:
        """Embed strings.

        Args:
            texts: any number of strings, in a list, a generator, or an array or a column of one dimension.
            batch_size: rows per forward pass.

        Returns:
            Space components (N, D), float32, on the CPU.

        Raises:
            InputError: one string in place of a list of them, or something else than a string among them.
        """
        with _evaluating(self):
            rows = [
                self.encode_text(self.tokenizer(chunk).to(self.device))
                for chunk in batches(texts_of(texts), batch_size)
            ]
        return torch.cat(rows).cpu() if rows else torch.empty(0, self.dim)

    @torch.no_grad()
    def embed_image(self, images: ImageLike | Iterable[Any], batch_size: int = 128) -> Float[Tensor, "n d"]:
        """Embed images of any mode and size.

        Args:
            images: images, in a list or a generator, or an array (N, H, W, 3) of uint8; one image is a row of its
                own. An image is one of PIL's, the path of a file, the bytes of one,  or an array (H, W, 3) of uint8.
            batch_size: rows per forward pass.

        Returns:
            Space components (N, D), float32, on the CPU.

        Raises:
            InputError: something among them is no image, or may mean several.
            DataError: a file cannot be read.
        """
        with _evaluating(self):
            rows = [
                self.encode_image(torch.stack([self.transform(image) for image in chunk]).to(self.device))
                for chunk in batches(images_of(images), batch_size)
            ]
        return torch.cat(rows).cpu() if rows else torch.empty(0, self.dim)

    def similarity(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        """Return the similarity the model is trained with: minus its distance, or the cosine for one on the sphere.

        Raises:
            InputError: x or y are no rows of the model's.
        """
        self._check_rows(x=x, y=y)
        return self.metric.pairwise_similarity(x, y, self.curv.detach().to(x))

    def entails(
        self,
        general: Float[Tensor, "n d"],
        specific: Float[Tensor, "m d"],
        entailment: Entailment | None = None,
    ) -> Bool[Tensor, "n m"]:
        """Return whether each of the first is more general than each of the second: an animal entails its image.

        Args:
            general: space components (N, D).
            specific: space components (M, D).
            entailment: another rule than the one in the model's config.

        Raises:
            InputError: they are no rows of the model's, or the rule is none.
            ConfigError: the model lives on the sphere, where no point is more general than another.
        """
        self._check_rows(general=general, specific=specific)
        rule = self.config.entailment if entailment is None else entailment
        if not isinstance(rule, Entailment):
            raise InputError(f"entailment must be a Cone or a Plane, got {type(rule).__name__}")
        equal = coincident(general, specific) if rule.strict else None
        score = pairwise_score(rule, general.double(), specific.double(), self.metric, self.curv.detach(), equal)
        held = score >= 0
        return held if equal is None else held & ~equal

    def _check_rows(self, **rows: object) -> None:
        for name, points in rows.items():
            if not isinstance(points, Tensor) or points.dim() != 2 or points.shape[1] != self.dim:
                shape = f" of shape {tuple(points.shape)}" if hasattr(points, "shape") else ""
                raise InputError(
                    f"{name} must be a tensor (N, {self.dim}), as embed_text and embed_image return it, got "
                    f"{type(points).__name__}{shape}"
                )


class _evaluating:
    """Switch a module to evaluation mode for a block, and each of its submodules back to its own mode after it."""

    def __init__(self, module: nn.Module):
        self.module, self.training = module, [(m, m.training) for m in module.modules()]

    def __enter__(self) -> None:
        self.module.eval()

    def __exit__(self, *_: object) -> None:
        for module, training in self.training:
            module.training = training


def _by_size(images: Mapping[str, Tensor]) -> list[list[str]]:
    """Return the roles whose images have one size together, whatever their numbers: those differ by process."""
    groups: dict[torch.Size, list[str]] = {}
    for role, pixels in images.items():
        groups.setdefault(pixels.shape[1:], []).append(role)
    return list(groups.values())


def _square(size: int | Sequence[int]) -> int:
    if isinstance(size, int):
        return size
    if len(set(size)) != 1:
        raise ConfigError(f"model.towers: vision_cfg.image_size must be square, got {list(size)}")
    return size[0]
