"""Export a model for other tools: a Hugging Face directory, or ONNX files of both towers.

python train/export.py runs/quickstart/checkpoint runs/quickstart/onnx --to onnx
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import hypclip
from hypclip.errors import HypclipError, InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a model directory")
    parser.add_argument("output", type=Path, help="where to write; it must not exist, or be an empty folder")
    parser.add_argument("--to", choices=("huggingface", "onnx"), required=True, help="the format")
    arguments = parser.parse_args(argv)
    try:
        output = arguments.output.resolve()
        if output.exists() and not (output.is_dir() and next(output.iterdir(), None) is None):
            raise InputError(f"{arguments.output} exists and is not an empty folder: choose another, or remove it")
        _export(hypclip.load(arguments.checkpoint), output, arguments.to)
        print(f"{arguments.output}: {', '.join(sorted(file.name for file in output.iterdir()))}")
    except (HypclipError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _export(model: hypclip.HypCLIP, output: Path, to: str) -> None:
    """Write the format; only its own libraries are imported."""
    match to:
        case "onnx":
            from hypclip.export.onnx import export_onnx

            export_onnx(model, output)
        case _:
            from hypclip.export.huggingface import export_huggingface

            export_huggingface(model, output)


if __name__ == "__main__":
    sys.exit(main())
