"""The configs that come with hypclip, by name: `--config quickstart` from any folder."""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

from hypclip.files import user_path


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None, *folders: str) -> argparse.Namespace:
    """Parse a command line that has --config, a file or the name of a config in one of these folders of configs/.

    Without --config the program ends with a list of the names, and with an unknown one it names the nearest.
    """
    parser.add_argument("--config", metavar="FILE", help="YAML file, or the name of a config that comes with hypclip")
    arguments = parser.parse_intermixed_args(argv)
    known = named(*folders)
    if arguments.config is None:
        lines = [f"  {name:<{max(map(len, known))}}  {_first_line(path)}" for name, path in known.items()]
        parser.exit(2, "\n".join(["give --config, a YAML file or one of these names:", *lines, ""]))
    path = user_path(arguments.config)
    if path.suffix not in (".yaml", ".yml") and not path.exists():
        if arguments.config not in known:
            near = difflib.get_close_matches(arguments.config, known, n=1) or list(known)
            parser.exit(1, f"error: no config is called {arguments.config!r}: did you mean {' or '.join(near)}?\n")
        path = known[arguments.config]
    arguments.config = path
    return arguments


def named(*folders: str) -> dict[str, Path]:
    """Return the configs in these folders of configs/, by name."""
    return {file.stem: file for folder in folders for file in sorted((root() / folder).glob("*.yaml"))}


def root() -> Path:
    """Return the folder of configs: in the checkout, or from the installed package."""
    checkout = Path(__file__).parents[1] / "configs"
    if (checkout / "quickstart.yaml").is_file():
        return checkout
    files = importlib.metadata.files("hypclip") or ()
    return next(Path(str(one.locate())).parent for one in files if one.match("share/hypclip/configs/quickstart.yaml"))


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8") as lines:
        return next(lines, "").removeprefix("#").strip()
