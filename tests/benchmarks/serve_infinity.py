"""infinity-emb, the peer: a model of ViT-B/32's size that it can load without a network, and how to start it.

Run with the Python of its environment this file writes that model:  python serve_infinity.py FOLDER, where FOLDER has
CLIP's vocab.json and merges.txt.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

OFFLINE = {
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}


def command(venv: Path, model: Path, batch_size: int, compiled: bool) -> list[str]:
    """Return the command that starts infinity, but for its port."""
    return [
        *(str(venv / "bin" / "infinity_emb"), "v2", "--model-id", str(model), "--served-model-name", "clip"),
        *("--engine", "torch", "--device", "cpu", "--dtype", "float32", "--batch-size", str(batch_size)),
        *("--compile" if compiled else "--no-compile", "--no-lengths-via-tokenize", "--log-level", "warning"),
        *("--host", "127.0.0.1", "--port", "{port}"),
    ]


def make_model(venv: Path, folder: Path) -> None:
    """Write a CLIPModel with random weights and all that infinity reads beside them."""
    from open_clip.tokenizer import SimpleTokenizer

    folder.mkdir()
    ours = SimpleTokenizer()
    named = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    (folder / "vocab.json").write_text(json.dumps({named.get(t, t): i for t, i in ours.encoder.items()}))
    merges = [" ".join(pair) for pair in ours.bpe_ranks]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    subprocess.run([venv / "bin" / "python", __file__, folder], check=True, stdout=subprocess.DEVNULL)


def _write(folder: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    # The activation of the ViT-B/32 it is compared with, faster than CLIPConfig's own "quick_gelu".
    config = transformers.CLIPConfig(text_config={"hidden_act": "gelu"}, vision_config={"hidden_act": "gelu"})
    transformers.CLIPModel(config).eval().save_pretrained(folder)
    # Without it infinity 0.0.78 takes generation's default, 20, for the context, and cuts longer captions off.
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, "max_length": 77}))
    transformers.CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    # With Pillow; the processor on torchvision takes twice the time on a CPU.
    transformers.CLIPImageProcessor().save_pretrained(folder)


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
