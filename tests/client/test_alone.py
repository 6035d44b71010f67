"""The client where little else is installed, and as a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hypclip.client as c
from tests.support.client import MODEL


def test_the_installed_client_works_without_torch(tmp_path):
    """Nor anything else that only the rest of hypclip needs."""
    program = """
import sys
for missing in ("torch", "torchvision", "open_clip", "transformers", "numpy", "PIL", "pydantic", "safetensors"):
    sys.modules[missing] = None  # importing it fails as if it were not there
import httpx2, hypclip, hypclip.client as c
with c.Client(transport=httpx2.MockTransport(lambda request: httpx2.Response(200, json=MODEL))) as client:
    print(client.model().dim, sorted(set(hypclip.__all__) - set(dir(hypclip))))
try:
    hypclip.load
except ImportError as error:
    print(error.name)
"""
    run = [sys.executable, "-c", f"MODEL = {MODEL!r}\n{program}"]
    environment = {**os.environ, "PYTHONPATH": str(Path(c.__file__).parents[2])}
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{MODEL['dim']} []\ntorch\n"


def test_the_folder_works_without_hypclip(tmp_path):
    source = Path(c.__file__).parent
    copy = tmp_path / "copied"
    copy.mkdir()
    for file in source.glob("*.py"):
        (copy / file.name).write_text(file.read_text())
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import copied; copied.Client().close(); "
        "print([m for m in ('hypclip', 'torch', 'numpy', 'PIL', 'pydantic') if m in sys.modules])"
    )
    run = [sys.executable, "-I", "-c", program, str(tmp_path)]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "[]\n"
