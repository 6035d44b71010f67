"""The command `python -m serve`: load the model, open the index, serve."""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop
from pydantic import ValidationError

from hypclip.console import escape_unprintable
from hypclip.errors import ConfigError, HypclipError
from hypclip.search import VectorStore
from hypclip.search.thumbnails import ThumbnailStore
from serve.app import create_app
from serve.errors import WorkerFailed
from serve.http.keys import SCOPES, new_key
from serve.http.server import Server
from serve.inference.engine import ModelEngine
from serve.settings import ENV_PREFIX, Settings, unknown_variables
from serve.stores import open_store, open_thumbnails
from serve.telemetry import logs
from serve.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Load the model, open the index, serve until a signal comes.

    Returns:
        0; 1 when the process of the model has died; 2 when a setting, the checkpoint or the index cannot be used; 130
        after a Ctrl-C before it served.
    """
    escape_unprintable()
    arguments = _parser().parse_args(argv)
    if arguments.new_key is not None:
        return _print_key(arguments.new_key)
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    try:
        settings = Settings(**given)
        logs.configure(settings.log_format)
        for line in unknown_variables():
            logger.warning("%s", line)
        with contextlib.closing(open_store(settings)) as store:
            _check_address(settings.host, settings.port)
            return uvloop.run(_serve(settings, store, open_thumbnails(settings)))
    except ValidationError as error:
        return _refuse("; ".join(f"{ENV_PREFIX}{str(p['loc'][0]).upper()}: {p['msg']}" for p in error.errors()))
    except HypclipError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return 130


async def _serve(settings: Settings, store: VectorStore, thumbnails: ThumbnailStore | None) -> int:
    metrics = Metrics()
    server: Server | None = None

    def died(failure: WorkerFailed) -> None:
        if server is not None:
            server.fail(failure)

    async def load() -> ModelEngine:
        return await ModelEngine.start(settings, metrics, died)

    engine = None if settings.index_only else await load()
    try:
        again = None if engine is None else load
        app = create_app(settings, engine, store, thumbnails=thumbnails, load=again, metrics=metrics)
        server = Server(app, settings)
        # The half million objects of the libraries stay; to look through them again and again stops the server for
        # a third of a second each time.
        gc.collect()
        gc.freeze()
        await server.serve()
    finally:
        if engine is not None:
            await engine.aclose()  # once more, if the app has come so far as to do it
    return 1 if server.failed else 0


def _check_address(host: str, port: int) -> None:
    """Refuse an address that cannot be listened at, before the model takes its time to load.

    Raises:
        ConfigError: it is in use, not of this machine, or not allowed to this user.
    """
    address: tuple[object, ...] = (host, port)
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            attempt.bind(address)
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {address[:2]}: {str(error.strerror or error).lower()}; another address is given by "
            f"--host and --port, or {ENV_PREFIX}HOST and {ENV_PREFIX}PORT"
        ) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serve",
        description="Serve a model and an index over HTTP; interactive docs at /docs. "
        f"Limits are settings of the environment: {ENV_PREFIX}MAX_BODY_BYTES and the others of serve/settings.py.",
    )
    fields = Settings.model_fields
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help=_help("checkpoint"))
    parser.add_argument("--index", type=Path, metavar="DIR", help=_help("index"))
    parser.add_argument("--index-only", action="store_true", default=None, help=fields["index_only"].description)
    parser.add_argument("--qdrant-url", metavar="URL", help=_help("qdrant_url"))
    parser.add_argument("--create-index", action="store_true", default=None, help=fields["create_index"].description)
    parser.add_argument("--host", help=_help("host"))
    parser.add_argument("--port", type=int, help=_help("port"))
    parser.add_argument("--new-key", metavar="NAME:SCOPE", help="Make an API key and end. Scopes: " + ", ".join(SCOPES))
    return parser


def _help(name: str) -> str:
    field = Settings.model_fields[name]
    default = "" if field.default is None else f" Default: {field.default}."
    return f"{field.description}{default}"


def _print_key(asked: str) -> int:
    name, _, scope = asked.partition(":")
    if not name or scope not in SCOPES:
        return _refuse(f"--new-key takes NAME:SCOPE, the scope one of {', '.join(SCOPES)}; got {asked!r}")
    key, sha256 = new_key()
    sys.stdout.write(
        f"key, for the client:           {key}\nline, for {ENV_PREFIX}API_KEYS_FILE: {name}:{scope}:{sha256}\n"
    )
    return 0


def _refuse(message: str) -> int:
    sys.stderr.write(f"serve: {' '.join(message.split())}\n")
    return 2
