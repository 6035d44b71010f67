"""What accelerate's launcher was told, as the environment that it leaves."""

import pytest

from hypclip.errors import ConfigError
from hypclip.training.runtime.launch import check_launch, precision_notice
from tests.support.pretraining import assert_refused, config_of, run
from train import embed

USUAL = {
    "ACCELERATE_USE_CPU": "True",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_DYNAMO_BACKEND": "NO",
    "ACCELERATE_DYNAMO_USE_FULLGRAPH": "False",
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
}
REFUSED = [
    ("ACCELERATE_USE_DEEPSPEED", "true", "asks for DeepSpeed, .*train.parallel=fsdp"),
    ("ACCELERATE_USE_MEGATRON_LM", "true", "asks for Megatron-LM, .*train.parallel=fsdp"),
    ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "asks for parallelism_config, .*train.parallel=fsdp"),
    ("ACCELERATE_MIXED_PRECISION", "fp8", "asks for mixed_precision fp8, .*train.precision=bf16"),
    ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "asks for dynamo_backend INDUCTOR, .*train.compile=true"),
    ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "gradient_accumulation_steps 4, .*train.accumulate=4"),
    ("FSDP_OFFLOAD_PARAMS", "true", "asks for fsdp_offload_params, .*leave it out"),
    ("FSDP_ACTIVATION_CHECKPOINTING", "true", "asks for fsdp_activation_.*train.gradient_checkpointing=true"),
]


@pytest.mark.parametrize("environment", [{}, USUAL, dict.fromkeys(USUAL, "")])
def test_the_usual_is_taken(environment):
    check_launch(environment)


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
def test_what_would_be_left_undone_is_refused_by_name(name, value, message):
    with pytest.raises(
        ConfigError, match=message + ", and launch with --config_file and a file of configs/accelerate$"
    ):
        check_launch({**USUAL, name: value})


@pytest.mark.parametrize(
    ("asked", "precision", "told"),
    [
        ("", "fp32", False),
        ("no", "bf16", False),
        ("bf16", "bf16", False),
        ("fp16", "bf16", True),
        ("bf16", "fp32", True),
    ],
)
def test_another_precision_is_told_of(asked, precision, told):
    notice = precision_notice({"ACCELERATE_MIXED_PRECISION": asked} if asked else {}, precision)
    assert (notice is not None) is told
    if notice:
        assert f"mixed_precision {asked}, and this run computes in {precision}: train.precision decides" in notice
        assert f"train.precision={asked}" in notice


@pytest.mark.parametrize("case", [0, 3, 4])
def test_commands_refuse_it_before_anything_is_written(case, tmp_path, shards, monkeypatch, capsys):
    name, value, message = REFUSED[case]
    monkeypatch.setenv(name, value)
    assert_refused(config_of(tmp_path, shards), capsys, message)
    assert not (tmp_path / "run").exists()
    words = ["--checkpoint", "x", "--index", str(tmp_path / "index"), "--shards", "x.tar"]
    assert embed.main(words) == 1
    said = capsys.readouterr().err
    assert f"asks for {message.split(' ')[2].rstrip(',')}" in said
    assert "train." not in said  # of which embedding has no settings
    assert not (tmp_path / "index").exists()


def test_a_run_computes_as_its_own_settings_say(tmp_path, shards, monkeypatch, capfd):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    assert run(config_of(tmp_path, shards, train__precision="fp32"), "train.steps=1") == 0
    assert "warning: the configuration of accelerate launch asks for mixed_precision fp16" in capfd.readouterr().err
