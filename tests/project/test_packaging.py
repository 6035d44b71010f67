"""The wheel: what it holds works outside of a checkout, by the names of its programs."""

from __future__ import annotations

import json
import re
import shutil
import site
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path

import pytest

from tests.support.environment import environment
from tests.support.ports import free_port
from tests.support.training import ROOT, run_config, wait_for, write_shards

PARTS = ("hypclip", "train", "serve", "configs", "pyproject.toml", "README.md", "LICENSE")
PROGRAMS = (
    "pretrain",
    "evaluate",
    "zero-shot",
    "prepare-data",
    "embed",
    "embed-taxonomy",
    "prototypes",
    "hyperbolicity",
    "ask",
    "study",
    "convert",
    "export",
    "serve",
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A venv with the wheel, and with what it needs from the environment of the tests; its folder of programs."""
    source, wheels, home = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "venv"))
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, source / part)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    kept = elsewhere()
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, source], check=True, env=kept)
    (wheel,) = wheels.glob("*.whl")
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True, env=kept)
    (library,) = home.glob("lib/python*/site-packages")
    # A path alone, so that what is installed editable there stays unknown.
    (library / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return home / "bin"


def elsewhere() -> dict[str, str]:
    """Return an environment that does not say where this checkout is."""
    return {name: value for name, value in environment().items() if name != "PYTHONPATH"}


def run(program: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [program, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=elsewhere(), capture_output=True, text=True)


@pytest.mark.slow
def test_what_is_installed_trains_and_serves_outside_of_a_checkout(installed, tmp_path):
    found = run(installed / "python", "-c", "import hypclip, train, serve; print(hypclip.__file__)", cwd=tmp_path)
    assert found.stdout.startswith(str(installed.parent)), found
    assert {file.name for file in installed.glob("hypclip-*")} == {f"hypclip-{name}" for name in PROGRAMS}
    asked = run(installed / "hypclip-serve", "--help", cwd=tmp_path)
    assert (asked.returncode, "--checkpoint" in asked.stdout) == (0, True), asked
    listed = run(installed / "hypclip-pretrain", cwd=tmp_path)
    assert (listed.returncode, "hypclip_vit_s" in listed.stderr) == (2, True), listed

    shards = write_shards(tmp_path / "shards")
    small = run_config(tmp_path / "run", shards, data__workers=0, train__steps=1)["model"]["towers"]
    towers = [
        f"model.towers.{part}.{key}={value}"
        for part in ("vision_cfg", "text_cfg")
        for key, value in small[part].items()
    ]
    trained = run(
        installed / "hypclip-pretrain", "--config", "quickstart", f"data.shards={shards}", "output_dir=run", *towers,
        "train.steps=1", "train.batch_size=4", "data.workers=0", "data.shuffle_buffer=5", "evaluate.retrieval={}",
        "evaluate.hierarchy={}", "train.calibrate_threshold=false", "model.towers.embed_dim=16", cwd=tmp_path,
    )  # fmt: skip
    assert trained.returncode == 0, trained
    port = free_port()
    command = [installed / "hypclip-serve", "--checkpoint", tmp_path / "run" / "checkpoint", "--port", str(port)]
    command += ["--index", tmp_path / "index", "--create-index"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=elsewhere(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            wait_for(lambda: server.poll() is not None or ready(port), "the server")
            assert server.poll() is None
            body = json.dumps({"inputs": ["a red apple"]}).encode()
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/embed", body, {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request) as answer:
                (point,) = json.load(answer)["data"]
            assert len(point["embedding"]) == 16
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
                files = re.findall(r'(?:href|src)="(explorer/[^"]+)"', answer.read().decode())
            assert "explorer/js/main.js" in files
            for file in [*files, "explorer/vendor/lit-html.js", "explorer/js/views/shell.js"]:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/{file}") as answer:
                    assert answer.status == 200
        finally:
            server.terminate()


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
