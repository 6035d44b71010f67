"""Settings of `accelerate launch` that a command here does not follow, or follows in its own way."""

from __future__ import annotations

from collections.abc import Mapping

from hypclip.errors import ConfigError
from hypclip.training.precision import Precision

_TRUE = ("1", "true", "yes", "y", "t", "on")
_REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": ("DeepSpeed", "parts of the weights in each process come by train.parallel=fsdp"),
    "ACCELERATE_USE_MEGATRON_LM": ("Megatron-LM", "parts of the weights in each process come by train.parallel=fsdp"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": ("parallelism_config", "use train.parallel=fsdp"),
    "FSDP_OFFLOAD_PARAMS": ("fsdp_offload_params", "leave it out"),
    "FSDP_ACTIVATION_CHECKPOINTING": ("fsdp_activation_checkpointing", "use train.gradient_checkpointing=true"),
}


def check_launch(environment: Mapping[str, str], *, training: bool = True) -> None:
    """Refuse settings of `accelerate launch` that would be ignored in silence.

    Args:
        environment: of this process, in which the launcher writes its configuration.
        training: whether this is a run, which has settings of its own for some of it.

    Raises:
        ConfigError: DeepSpeed, Megatron-LM, fp8, dynamo and the like; the message says what to use.
    """
    found = [told for name, told in _REFUSED.items() if environment.get(name, "").lower() in _TRUE]
    if environment.get("ACCELERATE_MIXED_PRECISION", "").lower() == "fp8":
        found.append(("mixed_precision fp8", "use train.precision=bf16"))
    dynamo = environment.get("ACCELERATE_DYNAMO_BACKEND", "no")
    if dynamo.lower() not in ("no", ""):
        found.append((f"dynamo_backend {dynamo}", "use train.compile=true"))
    parts = environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if parts not in ("1", ""):
        found.append((f"gradient_accumulation_steps {parts}", f"use train.accumulate={parts}"))
    if found:
        what, instead = found[0]
        advice = f"{instead}, and " if training else ""
        raise ConfigError(
            f"the configuration of accelerate launch asks for {what}, which hypclip does not do: {advice}launch "
            "with --config_file and a file of configs/accelerate"
        )


def precision_notice(environment: Mapping[str, str], precision: Precision) -> str | None:
    """Return a notice where accelerate's mixed_precision differs from the precision of the run, which decides."""
    asked = environment.get("ACCELERATE_MIXED_PRECISION", "").lower()
    if asked in ("", "no", precision):
        return None
    return (
        f"the configuration of accelerate launch asks for mixed_precision {asked}, and this run computes in "
        f"{precision}: train.precision decides, set train.precision={asked} for the other"
    )
