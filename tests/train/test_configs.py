"""Every file of configs/ is what it says: the numbers of the papers, processes that start, a job that goes on."""

import functools
import json
import math
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils import DistributedType

from hypclip.config import read
from hypclip.data.augment import AugmentConfig
from hypclip.data.shards import find_shards
from hypclip.model import HypCLIP
from hypclip.objective import recipe_from
from hypclip.pretrained.published.conversion import SWAPPED_PIXEL_MEAN, require_structure
from hypclip.pretrained.published.keys import SIZES
from hypclip.taxonomy import load as load_taxonomy
from hypclip.training.calibration import FirstRadii
from hypclip.training.optim import learning_rate_at
from hypclip.training.settings import RunPlan, TrainConfig, configure
from tests.support.environment import environment
from tests.support.ports import free_port
from tests.support.training import ROLES, ROOT, command, read_log, run_config, write_config, write_shards

PRETRAIN = ROOT / "configs" / "pretrain"
REPRODUCE = PRETRAIN / "reproduce" / "hycoclip_vit_b.yaml"
ACCELERATE = sorted((ROOT / "configs" / "accelerate").iterdir())
PAIRS, BOXES = ("clip", "meru"), ("hycoclip", "phyclip", "uncha")
NAMES = [(recipe, size) for recipe in (*PAIRS, *BOXES) for size in "sbl"]
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PARAMETERS = {"s": (21.67, 85.29), "b": (85.80, 149.62), "l": (303.30, 367.25)}
"""Of the image tower without its projection and of the whole model, in millions."""

each_config = pytest.mark.parametrize(("recipe", "size"), NAMES, ids=lambda part: part)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"), shards=2, samples=8)


def file_of(recipe: str, size: str) -> Path:
    return PRETRAIN / f"{recipe}_vit_{size}.yaml"


def plan_of(path: Path, shards: Path) -> RunPlan:
    return configure(read(path, [f"data.shards={shards}/000.tar"]))


@functools.cache
def empty_model(path: Path) -> Any:
    """Build a model of which there are the shapes only."""
    with torch.device("meta"):
        return HypCLIP(configure(read(path)).config.model)


def millions(module: torch.nn.Module) -> float:
    return round(sum(p.numel() for p in module.parameters()) / 1e6, 2)


# What is trained ------------------------------------------------------------------------------------------------------


def test_there_is_a_config_for_every_recipe_and_size():
    ours = [file_of("hypclip", size) for size in "sb"]
    assert sorted(PRETRAIN.rglob("*.yaml")) == sorted([*(file_of(*name) for name in NAMES), *ours, REPRODUCE])


@pytest.mark.parametrize("size", ["s", "b"])
def test_our_recipe_has_the_towers_and_the_schedule_of_hycoclip(size, shards):
    ours, theirs = (plan_of(file_of(recipe, size), shards) for recipe in ("hypclip", "hycoclip"))
    assert ours.config.name == f"hypclip_vit_{size}"
    recipe, base = ours.objective.recipe, recipe_from("hypclip")
    assert replace(recipe, order=base.order, lineage=()) == base
    assert recipe.order[: len(base.order)] == base.order
    assert {(term.general, term.specific) for term in recipe.order[len(base.order) :]} == {
        ("concept", "concept"),
        ("concept", "box_text"),
    }
    assert {term.specific for term in recipe.lineage} == {"box_text", "box_image", "concept"}
    assert ours.config.model.towers == theirs.config.model.towers
    assert ours.config.model.learn_curv is False
    assert ours.config.model.entailment == ours.objective.recipe.rule
    changed = {"first_radii": FirstRadii(image=1.3, text=0.5), "clip_norm": 1.0, "calibrate_threshold": True}
    assert ours.config.train == replace(theirs.config.train, **changed)
    assert ours.taxonomy is load_taxonomy("wordnet")


@each_config
def test_a_config_says_what_it_is(recipe, size, shards):
    plan = plan_of(file_of(recipe, size), shards)
    assert plan.config.name == f"{recipe}_vit_{size}"
    assert plan.config.output_dir == Path(f"runs/{recipe}_vit_{size}")
    assert plan.objective.recipe == recipe_from(recipe)
    assert plan.objective.recipe.roles == frozenset(ROLES if recipe in BOXES else ROLES[:2])
    assert [Path(file) for file in find_shards(plan.config.data.shards)] == [shards / "000.tar"]
    assert plan.warm_start is None
    assert plan.config.tune == type(plan.config.tune)()


@pytest.mark.slow
@each_config
def test_towers_are_those_of_the_published_checkpoints(recipe, size):
    model = empty_model(file_of(recipe, size))
    published = next(known for known in SIZES if known.name == size)
    require_structure(model, published)  # depth, heads, epsilons, GELU, positions that are not trained
    assert model.image_tower.trunk.patch_embed.proj.weight.shape == (published.width, 3, 16, 16)
    assert model.image_tower.trunk.pos_embed.shape == (1, 197, published.width)
    assert model.image_tower.trunk.global_pool == "token"
    assert model.image_tower.head.proj.weight.shape == (512, published.width)
    assert model.image_tower.head.proj.bias is None
    assert (len(model.text_tower.transformer.resblocks), model.text_tower.positional_embedding.shape) == (12, (77, 512))
    assert model.text_tower.token_embedding.weight.shape == (49408, 512)
    assert (model.dim, model.image_size) == (512, 224)
    projection = model.text_tower.text_projection.numel() / 1e6
    assert millions(model.text_tower) - projection == pytest.approx(63.17, abs=0.006)
    assert (millions(model.image_tower.trunk), millions(model)) == PARAMETERS[size]


@each_config
def test_spaces_and_scales_are_those_of_the_recipe(recipe, size, shards):
    plan = plan_of(file_of(recipe, size), shards)
    model = empty_model(file_of(recipe, size))
    config = plan.config.model
    assert config.metric == plan.objective.recipe.metric
    assert config.curv_init == 1.0
    assert model.log_curv.requires_grad is (recipe != "clip")
    assert model.log_curv.shape == ((64,) if recipe == "phyclip" else ())
    factors = 64 if recipe == "phyclip" else 1
    assert config.logit_scale_init == pytest.approx(1 / 0.07 / factors)
    others = {"box_scale": 1 / 0.05, "box_whole_scale": 1 / 0.06} if recipe == "uncha" else {}
    assert config.other_scales == pytest.approx(others)


@each_config
def test_numbers_are_those_of_the_papers(recipe, size, shards):
    config = plan_of(file_of(recipe, size), shards).config
    steps, batch_size = (120_000, 2048) if recipe in PAIRS else (500_000, 768)
    assert config.train == TrainConfig(
        steps=steps,
        batch_size=batch_size,
        learning_rate=5e-4,
        betas=(0.9, 0.98),
        weight_decay=0.2,
        warmup_steps=4_000,
        clip_norm=1e6,
        seed=0,
        decay_norms=False,
        log_every=100,
        checkpoint_every=5_000,
    )
    assert (list(config.model.image_mean), list(config.model.image_std)) == (IMAGENET_MEAN, IMAGENET_STD)
    assert (config.data.workers, config.data.shuffle_buffer) == (4, 4_000)
    if recipe == "uncha":
        assert config.data.augment == AugmentConfig(crop_scale=(0.8, 1.0), colour_jitter=0.4, grey=0.2)
    else:
        assert config.data.augment == AugmentConfig(crop_scale=(0.5, 1.0))


def test_the_rate_rises_for_4000_steps_and_falls_as_half_a_cosine(shards):
    train = plan_of(file_of("hycoclip", "b"), shards).config.train

    def rate(step: int) -> float:
        return learning_rate_at(step, peak=train.learning_rate, warmup_steps=train.warmup_steps, steps=train.steps)

    assert rate(2_000) == pytest.approx(2.5e-4, rel=1e-3)
    middle = (train.warmup_steps + train.steps) // 2
    assert rate(middle) == pytest.approx(5e-4 * math.cos(math.pi / 4) ** 2, rel=1e-3)
    assert rate(train.steps - 1) < 1e-9


def test_sizes_differ_in_their_towers_alone():
    for recipe in (*PAIRS, *BOXES):
        small, *others = (read(file_of(recipe, size)) for size in "sbl")
        for other in others:
            for settings in (small, other):
                settings["model"]["towers"]["vision_cfg"].pop("timm_model_name", None)
                settings["model"]["towers"]["vision_cfg"].pop("timm_model_kwargs", None)
            ignored = {"name", "output_dir"}
            assert {k: v for k, v in other.items() if k not in ignored} == {
                k: v for k, v in small.items() if k not in ignored
            }


def test_reproduction_is_the_config_with_two_quirks(shards):
    plain, quirky = read(file_of("hycoclip", "b")), read(REPRODUCE)
    assert quirky["model"].pop("image_mean") == list(SWAPPED_PIXEL_MEAN) != plain["model"].pop("image_mean")
    assert quirky["train"].pop("decay_norms") is True
    for key in ("name", "output_dir"):
        assert quirky.pop(key) != plain.pop(key)
    assert quirky == plain
    plan = plan_of(REPRODUCE, shards)
    assert plan.config.train.decay_norms
    assert millions(empty_model(REPRODUCE)) == PARAMETERS["b"][1]


@pytest.mark.parametrize("path", sorted(PRETRAIN.rglob("*.yaml")), ids=lambda path: path.stem)
def test_a_header_says_how_and_how_well_and_that_it_was_not_run(path):
    head = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    text = " ".join(line.removeprefix("#").strip(" \\") for line in head)
    for wanted in (
        "Not run here",
        "ardware",
        "ime",
        "ublished",
        "arXiv:" if path != REPRODUCE else "../hycoclip_vit_b",
    ):
        assert wanted in text, wanted
    assert f"--config {path.relative_to(ROOT)} data.shards='" in text
    assert text.index("accelerate launch --multi_gpu --num_processes ") < text.index("train/pretrain.py --config")
    processes = int(text.partition("--num_processes ")[2].split()[0])
    assert processes == (4 if path.stem.startswith(("hycoclip", "hypclip", "uncha")) else 8)
    assert read(path)["train"]["batch_size"] % processes == 0


# How it is launched ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ACCELERATE, ids=lambda path: path.stem)
def test_accelerate_knows_every_key(path):
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    machines, processes = {"gpu_2x8": (2, 16), "gpu_8": (1, 8), "fsdp_8": (1, 8), "cpu_2": (1, 2)}.get(
        path.stem, (1, 1)
    )
    assert (config.num_machines, config.num_processes) == (machines, processes)
    several = DistributedType.MULTI_GPU if processes > 1 else DistributedType.NO
    assert config.distributed_type == (DistributedType.FSDP if path.stem == "fsdp_8" else several)
    assert config.use_cpu is (path.stem == "cpu")
    assert config.mixed_precision == "no"
    assert f"--config_file {path.relative_to(ROOT)}" in path.read_text(encoding="utf-8")


def test_the_launch_configs_are_these():
    assert [path.stem for path in ACCELERATE] == ["cpu", "cpu_2", "fsdp_8", "gpu_1", "gpu_2x8", "gpu_8"]


def start(script: Path, config: str, *arguments: str) -> subprocess.Popen[str]:
    file = str(ROOT / "configs" / "accelerate" / f"{config}.yaml")
    return subprocess.Popen(
        command("accelerate", "launch", "--config_file", file, *arguments, script),
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def told(tmp_path) -> Path:
    """A script that tells of the process it is."""
    script = tmp_path / "told.py"
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "CUDA_VISIBLE_DEVICES")
    # One write a line, which two processes do not tear apart.
    told = f"' '.join(str(os.getenv(name)) for name in {names}) + chr(10)"
    script.write_text(f"import os\nos.write(1, ({told}).encode())\n")
    return script


@pytest.mark.slow
def test_two_processes_start_on_the_cpu_and_see_no_gpu(told):
    with start(told, "cpu_2") as launcher:
        output, _ = launcher.communicate(timeout=120)
    assert launcher.returncode == 0
    assert sorted(output.splitlines()) == ["0 2 0 -1,-1", "1 2 1 -1,-1"]


@pytest.mark.slow
def test_the_demo_launches_without_advice(told):
    """By its very command, where nobody has said how many threads."""
    recipe = (ROOT / "Makefile").read_text().replace("\\\n", "")
    words = recipe.split("$(BIN)/accelerate ")[1].split(" train/pretrain.py")[0].replace("$(THREADS)", "1").split()
    given = {name: value for name, value in environment().items() if name != "OMP_NUM_THREADS"}
    ended = subprocess.run(
        command("accelerate", *words, told), cwd=ROOT, env=given, capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == ["None None None None"]


@pytest.mark.slow
def test_two_machines_find_each_other(told):
    """Two launchers of one process each, in place of eight."""
    common = ("--num_processes", "2", "--main_process_ip", "127.0.0.1", "--main_process_port", str(free_port()))
    with (
        start(told, "gpu_2x8", *common, "--machine_rank", "0") as first,
        start(told, "gpu_2x8", *common, "--machine_rank", "1") as second,
    ):
        outputs = [launcher.communicate(timeout=120)[0] for launcher in (first, second)]
    assert outputs == ["0 2 0 None\n", "1 2 0 None\n"]


# Slurm ----------------------------------------------------------------------------------------------------------------

SRUN = """
#!{python}
import os, pathlib, signal, subprocess, sys, time
log = pathlib.Path(os.environ["FAKE_LOG"])
own = {{"start_new_session": True}}
tasks = [
    subprocess.Popen(sys.argv[1:], env=dict(os.environ, SLURM_PROCID=str(i), SLURM_LOCALID=str(i)), **own)
    for i in range(int(os.environ["SLURM_NTASKS"]))
]
while os.environ["FAKE_SIGNAL"] and not (log.exists() and log.stat().st_size):
    assert all(task.poll() is None for task in tasks)
    time.sleep(0.05)
for task in tasks:
    if os.environ["FAKE_SIGNAL"]:
        os.killpg(task.pid, signal.SIGUSR1)  # which is what Slurm does to a step
sys.exit(max(abs(task.wait()) for task in tasks))
"""
SCONTROL = """
#!{python}
import os, pathlib, sys
if sys.argv[1:3] == ["show", "hostnames"]:
    print("127.0.0.1", "127.0.0.2", sep="\\n")
else:
    with open(os.environ["FAKE_CALLS"], "a") as file:
        print(*sys.argv[1:], file=file)
"""


class Slurm:
    """Stand-ins for srun and scontrol, and the environment of a job of two tasks."""

    def __init__(self, folder: Path, output_dir: Path):
        self.output_dir, self.calls = output_dir, folder / "calls"
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
            (folder / name).write_text(textwrap.dedent(text).lstrip().format(python=sys.executable))
            (folder / name).chmod(0o755)
        self.environment = {
            **environment(),
            "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_NTASKS": "2",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "FAKE_LOG": str(output_dir / "metrics.jsonl"),
            "FAKE_CALLS": str(self.calls),
        }

    def run(self, config: Path, *overrides: str, signal: bool = False) -> int:
        """Run the job once, in which Slurm sends its signal as soon as there is a log, or does not."""
        script = ROOT / "configs" / "slurm" / "pretrain.sbatch"
        environment = {**self.environment, "FAKE_SIGNAL": "1" if signal else ""}
        return subprocess.run(
            ["bash", str(script), str(config), str(self.output_dir), *overrides], cwd=ROOT, env=environment, timeout=200
        ).returncode

    @property
    def requeued(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.mark.slow
def test_a_job_that_runs_out_of_time_goes_on_until_the_model_is_finished(tmp_path, shards):
    output_dir = tmp_path / "run"
    config = write_config(
        tmp_path / "c.yaml",
        run_config(tmp_path / "other", shards, data__workers=1, train__steps=400, train__checkpoint_every=50),
    )
    slurm = Slurm(tmp_path, output_dir)
    assert slurm.run(config, "train.log_every=1", signal=True) == 0
    stopped = len(read_log(output_dir))
    assert 0 < stopped < 400
    assert not (output_dir / "checkpoint").exists()
    assert slurm.requeued == [f"requeue {os.getpid()}"]

    assert slurm.run(config, "train.log_every=1", f"train.steps={stopped + 2}") == 0
    assert [line["step"] for line in read_log(output_dir)] == list(range(1, stopped + 3))
    counters = json.loads((output_dir / f"checkpoints/step-{stopped + 2:08d}/state.json").read_text())
    assert len(counters["streams"]) == 2  # processes
    assert (output_dir / "checkpoint" / "config.yaml").is_file()
    assert len(slurm.requeued) == 1


def test_a_job_that_fails_is_not_put_back(tmp_path):
    slurm = Slurm(tmp_path, tmp_path / "run")
    (tmp_path / "python").write_text("#!/bin/sh\necho $RANK of $WORLD_SIZE $@ >> $FAKE_CALLS\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    assert slurm.run(Path("c.yaml"), "data.shards=a b/{0..9}.tar", "x=1") == 1
    arguments = f"train/pretrain.py --config c.yaml --resume output_dir={tmp_path}/run data.shards=a b/{{0..9}}.tar x=1"
    assert sorted(slurm.calls.read_text().splitlines()) == [f"{rank} of 2 {arguments}" for rank in (0, 1)]
