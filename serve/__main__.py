"""Start the server: python -m serve --checkpoint DIR --index DIR."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from pydantic import ValidationError

import hypclip
from hypclip.errors import HypclipError
from serve.app import create_app
from serve.engine import ModelEngine
from serve.settings import ENV_PREFIX, Settings
from serve.stores import open_store


def main(argv: Sequence[str] | None = None) -> int:
    """Load the model, open the index, serve until a signal comes.

    Returns:
        0, or 2 when a setting, the checkpoint or the index cannot be used.
    """
    arguments = _parser().parse_args(argv)
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    with contextlib.ExitStack() as opened:
        try:
            settings = Settings(**given)
            store = opened.enter_context(contextlib.closing(open_store(settings)))
            engine = opened.enter_context(ModelEngine(hypclip.load(settings.checkpoint)))
            app = create_app(settings, engine, store)
            engine.warm_up()
        except ValidationError as error:
            return _refuse("; ".join(f"{ENV_PREFIX}{str(p['loc'][0]).upper()}: {p['msg']}" for p in error.errors()))
        except HypclipError as error:
            return _refuse(str(error))
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        uvicorn.run(app, host=settings.host, port=settings.port)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serve",
        description="Serve a model and an index over HTTP; interactive docs at /docs. "
        f"Limits are settings of the environment: {ENV_PREFIX}MAX_BODY_BYTES and the others of serve/settings.py.",
    )
    fields = Settings.model_fields
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help=_help("checkpoint"))
    parser.add_argument("--index", type=Path, metavar="DIR", help=_help("index"))
    parser.add_argument("--qdrant-url", metavar="URL", help=_help("qdrant_url"))
    parser.add_argument("--create-index", action="store_true", default=None, help=fields["create_index"].description)
    parser.add_argument("--host", help=_help("host"))
    parser.add_argument("--port", type=int, help=_help("port"))
    return parser


def _help(name: str) -> str:
    field = Settings.model_fields[name]
    return f"{field.description} Default: {field.default}."


def _refuse(message: str) -> int:
    sys.stderr.write(f"serve: {' '.join(message.split())}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
