"""The log of the server: lines for people, or one JSON object a line for machines."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Literal

logger = logging.getLogger(__name__)


def configure(style: Literal["text", "json"]) -> None:
    """Send the log of this process to standard error."""
    if style == "json":
        from pythonjsonlogger.json import JsonFormatter

        names = {"asctime": "time", "levelname": "level", "name": "logger"}
        formatter: logging.Formatter = JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=names, datefmt="%Y-%m-%dT%H:%M:%S%z"
        )
    else:
        formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    # Of libraries only what went wrong: the exporter to ONNX alone would say sixty things that nobody can act on.
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for ours in ("serve", "hypclip"):
        logging.getLogger(ours).setLevel(logging.INFO)
    if not sys.warnoptions:  # whoever asks for Python's warnings gets them
        warnings.simplefilter("ignore")


def announce(style: Literal["text", "json"], address: str) -> None:
    """Say on standard error where the server listens, in the form that `configure` gives the log."""
    lines = [f"{address} – docs at /docs", f"Explorer: {address}/"]
    if style == "json":
        logger.info("%s", lines[0])
        return
    text = "\n".join(lines)
    try:
        text.encode(getattr(sys.stderr, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        text = text.replace("–", "-")
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
