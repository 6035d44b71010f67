"""The settings of a training run: the keys of a YAML file for train/pretrain.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Annotated, Any, Literal

from annotated_types import Interval
from pydantic import ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from hypclip.config import STRICT_KEYS, UserPath, UserPlace, UserPlaces, build
from hypclip.data.augment import AugmentConfig
from hypclip.data.record import BoxFrame
from hypclip.data.shards import find_shards
from hypclip.errors import ConfigError
from hypclip.evaluation.suite import EvaluationConfig
from hypclip.files import user_path
from hypclip.geometry.entailment import Plane
from hypclip.model import ModelConfig
from hypclip.objective import Objective
from hypclip.objective.terms import LOGIT_SCALE
from hypclip.pretrained.clip_sources import PretrainedClip, with_text_model
from hypclip.taxonomy import Taxonomy
from hypclip.taxonomy import load as load_taxonomy
from hypclip.training.calibration import FirstRadii
from hypclip.training.checkpointing.manifest import begun_model
from hypclip.training.monitoring.spikes import SpikeConfig
from hypclip.training.tuning import TuneConfig


@dataclass(frozen=True, config=STRICT_KEYS)
class DataConfig:
    """Sources of samples.

    Args:
        shards: a file, folder, pattern or URL of WebDataset tars, or a list of these.
        workers: loader processes per training process.
        shuffle_buffer: samples that each loader draws from at random.
        max_bad_fraction: a run ends when more than this share of its samples is bad.
        max_bad_shards: a run ends when more shards than this are damaged; by default none that is a file, and of others
            one in a hundred.
        caption_field: field of a .json that holds the caption or captions.
        boxes_are: whether boxes were found on images as they are "shown" or as they are "stored", before their EXIF
            turn; by default as `width` and `height` of the .json tell.
        box_margin: up to which fraction of a box its crop may be wider.
        box_size: side of a crop in pixels, that of the towers' images when not given; another one needs an image
            tower that takes images of several sizes.
        taxonomy: is-a edges over phrases that the objective's `lineage` learns, by name or as a file of a
            format that docs/taxonomies.md lists; `wordnet` knows any phrase by its head noun. Without it those terms
            are 0.
        concepts: how many of the taxonomy's phrases join the batch of each process.
        augment: random changes to images.
    """

    shards: UserPlaces
    workers: NonNegativeInt = 1
    shuffle_buffer: PositiveInt = 1_000
    max_bad_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.01
    max_bad_shards: NonNegativeInt | None = None
    caption_field: str = "caption"
    boxes_are: BoxFrame | None = None
    box_margin: NonNegativeFloat = 0.0
    box_size: PositiveInt | None = None
    taxonomy: UserPlace | None = None
    concepts: PositiveInt = 128
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True, config=STRICT_KEYS)
class TrainConfig:
    """Optimisation, checkpoints and the log.

    Args:
        steps: updates of the weights.
        batch_size: samples per step, of all processes together.
        learning_rate: at its highest, behind the warm-up; it falls to 0 as a cosine.
        betas: AdamW's two decay rates.
        weight_decay: AdamW's.
        decay_norms: whether norms and biases decay too, as in the published code and against its papers.
        warmup_steps: steps over which the learning rate rises from 0.
        clip_norm: largest norm of a gradient; a longer one is scaled down to it.
        first_radii: the mean radii to begin with; the first batch sets the scales of the lift so.
        calibrate_threshold: whether the threshold of half-spaces is set on the taxonomy when training ends.
        accumulate: parts of a process's batch that go through the towers one after the other; the loss, over the whole
            batch, and its gradient stay the same.
        precision: of the towers; auto is bf16 where the machine has instructions for it and fp32 elsewhere. Geometry
            and losses are fp32 in any case.
        gradient_checkpointing: whether activations are computed again in the backward pass, to save memory.
        compile: whether the towers are compiled.
        parallel: how processes share the work; with fsdp each keeps a part of every weight of the towers only.
        deterministic: whether operations are refused whose result depends on the order of threads.
        ema_decay: of weights averaged over time, which the finished model then has; none when not given.
        spike: a guard against spikes of the loss; none when not given.
        seed: of weights, order and augmentation.
        threads: torch's, per process; 0 leaves its default.
        log_every: steps per line of the log.
        trackers: what gets the log besides metrics.jsonl.
        checkpoint_every: steps from one saved state of the run to the next, written in the background.
        keep_checkpoints: how many of the newest stay.
        keep_every: those of multiples of so many steps stay too.
        upload_to: a folder that each is copied to, as fsspec names it: s3://bucket/x.
    """

    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat = 5e-4
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: NonNegativeFloat = 0.2
    decay_norms: bool = False
    warmup_steps: NonNegativeInt = 0
    clip_norm: PositiveFloat = 1.0
    first_radii: FirstRadii | None = None
    calibrate_threshold: bool = False
    accumulate: PositiveInt = 1
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"
    deterministic: bool = False
    ema_decay: Annotated[float, Interval(gt=0, lt=1)] | None = None
    spike: SpikeConfig | None = None
    seed: int = 0
    threads: NonNegativeInt = 0
    log_every: PositiveInt = 10
    trackers: list[Literal["tensorboard", "wandb"]] = field(default_factory=lambda: ["tensorboard"])
    checkpoint_every: PositiveInt = 1_000
    keep_checkpoints: PositiveInt = 2
    keep_every: PositiveInt | None = None
    upload_to: str | None = None


@dataclass(frozen=True, config=STRICT_KEYS)
class EvaluateConfig(EvaluationConfig):
    """Evaluations of the model as it is every so many steps, and after the last one.

    Args:
        every: steps from one to the next.
    """

    every: PositiveInt = 1_000


@dataclass(frozen=True, config=STRICT_KEYS)
class WarmStartConfig:
    """A trained CLIP whose towers a run begins with, see hypclip/pretrained/warm_start.py.

    The finished model reads the config and the tokenizer of a `text_model` where they are, from that directory.

    Args:
        source: an open_clip model and tag, "ViT-B-32/laion2b_s34b_b79k"; a checkpoint file of open_clip, for which
            model.towers says of what towers; or a directory that transformers saved.
        text_model: directory in which transformers saved a text model, such as BERT, for the source's text tower.
        keep_logit_scale: whether the temperature is the source's too.
        calibrate: whether the scales of the lift are set so that tangent vectors have a mean length of 1.
    """

    source: UserPlace
    text_model: UserPath | None = None
    keep_logit_scale: bool = False
    calibrate: bool = True


@dataclass(frozen=True, config=STRICT_KEYS)
class RunConfig:
    """A whole run.

    Args:
        output_dir: folder of the run.
        model: what to build.
        data: what to train on.
        train: how to optimise.
        objective: a recipe's name, its YAML file, or a recipe written out.
        evaluate: scores on the way.
        warm_start: the trained CLIP to begin with, in place of model.towers.
        tune: what is trained.
        name: of the run, in its log and in the finished model.
    """

    output_dir: UserPath
    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    objective: str | Mapping[str, Any] = "hycoclip"
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    warm_start: WarmStartConfig | None = None
    tune: TuneConfig = field(default_factory=TuneConfig)
    name: str = "hypclip"


@dataclass(frozen=True, config=ConfigDict(arbitrary_types_allowed=True))
class RunPlan:
    """The settings of a run, its objective, the trained CLIP that it starts from, and the taxonomy of its phrases."""

    config: RunConfig
    objective: Objective
    warm_start: PretrainedClip | None = None
    taxonomy: Taxonomy | None = None

    def phrases(self) -> dict[str, Any]:
        """Return the arguments of `collate` for the taxonomy."""
        wanted = self.config.data.concepts if self.objective.recipe.uses_taxonomy else 0
        return {"taxonomy": self.taxonomy, "concepts": wanted}

    def resume_invariants(self) -> dict[str, Any]:
        """Return the settings that a resumed run must keep, by dotted name: else it would be another run."""
        config = asdict(self.config)
        kept = {
            "model": config["model"],
            "tune": config["tune"],
            "objective": asdict(self.objective.recipe),
            "data": {
                **{name: config["data"][name] for name in _INVARIANT_DATA},
                "augment": config["data"]["augment"],
                "shards": [shard.rpartition("/")[2] for shard in find_shards(self.config.data.shards)],
            },
            "train": {name: config["train"][name] for name in ("batch_size", "seed", "ema_decay", "accumulate")},
        }
        return _by_dotted_name(kept)


def configure(settings: Mapping[str, Any], *, resume: bool = False) -> RunPlan:
    """Return the plan of a run; settings of the space that the model leaves out come from the recipe.

    With a warm start the towers and the pixel statistics are those of the source, where the model says nothing else.
    A run that is resumed has them in its checkpoints, and its source is not read here.

    Args:
        settings: plain data.
        resume: the run goes on from a checkpoint, if it has any.

    Raises:
        ConfigError: an unknown key, a value out of range, or a model whose space is not that of the recipe.
        CheckpointError: the source of a warm start cannot be read.
    """
    objective = Objective.from_recipe(settings.get("objective", RunConfig.objective))
    given = settings.get("model", {} if settings.get("warm_start") else None)
    if not isinstance(given, Mapping):
        return RunPlan(build(RunConfig, settings), objective)  # which says what is wrong with it
    recipe = objective.recipe
    wanted: dict[str, Any] = {
        "geometry": recipe.geometry,
        "distance": recipe.distance,
        "factor_dim": recipe.factor_dim,
        "other_scales": {name: value for name, value in recipe.scales.items() if name != LOGIT_SCALE},
    }
    if recipe.metric.has_cones:
        wanted["entailment"] = asdict(recipe.rule)
        wanted["learn_curv"] = recipe.learn_curv
    if LOGIT_SCALE in recipe.scales:
        wanted["logit_scale_init"] = recipe.scales[LOGIT_SCALE]
    for name in ("geometry", "distance", "factor_dim"):
        if name in given and given[name] != wanted[name]:
            raise ConfigError(
                f"model.{name} is {given[name]!r} and the objective's {name} is {wanted[name]!r}: "
                f"leave model.{name} out, and it follows the objective"
            )
    clip = None
    if settings.get("warm_start"):
        start = build(WarmStartConfig, settings["warm_start"], "warm_start")
        begun = begun_model(user_path(str(settings["output_dir"]))) if resume and "output_dir" in settings else None
        if begun is None:
            clip = read_source(start, given.get("towers"))
            begun = asdict(clip.model_config())
        wanted |= {name: begun[name] for name in _OF_SOURCE}
        if start.text_model is not None:  # towers were given for the source, and one of them is another now
            given = {name: value for name, value in given.items() if name != "towers"}
    config = build(RunConfig, {**settings, "model": {**wanted, **given}})
    if missing := wanted["other_scales"].keys() - config.model.other_scales.keys():
        raise ConfigError(f"model.other_scales lacks {sorted(missing)}, which the objective names")
    if config.train.calibrate_threshold and not (config.data.taxonomy and isinstance(config.model.entailment, Plane)):
        raise ConfigError("train.calibrate_threshold needs data.taxonomy, and entailment: {form: plane}")
    taxonomy = load_taxonomy(config.data.taxonomy) if config.data.taxonomy is not None else None
    return RunPlan(config, objective, clip, taxonomy)


def read_source(start: WarmStartConfig, towers: str | Mapping[str, Any] | None = None) -> PretrainedClip:
    """Read the pretrained CLIP that a run starts from.

    Args:
        start: see WarmStartConfig.
        towers: of a checkpoint file, which does not say.

    Raises:
        ConfigError: no such source, or one that lacks or does not take `towers`.
        CheckpointError: damaged, or not of the towers it should be of.
    """
    from hypclip.pretrained.warm_start import read_clip  # which takes seconds to import

    clip = read_clip(start.source, towers)
    return clip if start.text_model is None else with_text_model(clip, start.text_model)


_INVARIANT_DATA = (
    "workers", "shuffle_buffer", "caption_field", "boxes_are", "box_margin", "box_size", "taxonomy", "concepts"
)  # fmt: skip
_OF_SOURCE = ("towers", "image_mean", "image_std")


def _by_dotted_name(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _by_dotted_name(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
