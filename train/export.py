"""Export a model for other tools: a Hugging Face directory, or ONNX files of both towers.

python train/export.py runs/quickstart/checkpoint runs/quickstart/onnx --to onnx
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import hypclip
from hypclip.console import escape_unprintable
from hypclip.errors import HypclipError
from hypclip.files import check_room, make_room, user_path


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    escape_unprintable()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=user_path, help="a model directory")
    parser.add_argument("output", type=user_path, help="the directory to write")
    parser.add_argument("--overwrite", action="store_true", help="move what is there to a dated name beside it")
    parser.add_argument("--to", choices=("huggingface", "onnx"), required=True, help="the format")
    arguments = parser.parse_args(argv)
    try:
        output = arguments.output.resolve()
        check_room(output, overwrite=arguments.overwrite)
        model = hypclip.load(arguments.checkpoint)
        fresh = output.with_name(f".{output.name}.new")  # what is there moves once there is something in its place
        try:
            _export(model, fresh, arguments.to)
            if aside := make_room(output, overwrite=arguments.overwrite):
                print(f"what was in {arguments.output} is now {aside}")
            fresh.rename(output)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
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
