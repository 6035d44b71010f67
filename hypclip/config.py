"""From YAML and `key=value` to dataclasses: every key known, every type right, every mistake named."""

from __future__ import annotations

import dataclasses
import difflib
import io
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError
from yaml import YAMLError

from hypclip.errors import ConfigError, DataError
from hypclip.files import expand_home, read_text, user_path
from hypclip.typed_yaml import quote_override, quote_texts

T = TypeVar("T")

STRICT_KEYS = ConfigDict(extra="forbid", arbitrary_types_allowed=False, allow_inf_nan=False)
"""The pydantic config of every dataclass that a YAML file fills."""


UserPath = Annotated[Path, AfterValidator(lambda path: user_path(str(path)))]
"""A path in a config, where a leading ~ is the home folder."""

UserPlace = Annotated[str, AfterValidator(expand_home)]
"""A path, a pattern of paths or a URL in a config, where a leading ~ is the home folder."""

UserPlaces = Annotated[
    str | list[str],
    AfterValidator(lambda one: expand_home(one) if isinstance(one, str) else [expand_home(place) for place in one]),
]
"""One or several of these."""


def read(path: Path, overrides: Sequence[str] = (), kind: Any = Any) -> dict[str, Any]:
    """Read a YAML file and put `a.b=value` overrides on top.

    A file may start from another: `extends: other.yaml`, looked for beside it. Mappings are merged key by key; lists
    and everything else are replaced.

    Args:
        path: the file, as UTF-8.
        overrides: the later ones go first. An empty mapping, evaluate.retrieval={}, empties what is there.
        kind: the dataclass that the settings are for. A value is a text where it says so, as it is spelled: 007, no.

    Raises:
        ConfigError: a file or an override cannot be read, or files extend each other.
    """
    for override in overrides:
        if "=" not in override or override.startswith(("-", "=")):
            raise ConfigError(f"cannot read {override!r}: overrides are written key=value, for example train.steps=100")
    layers = _layers(path, kind)
    try:
        merged = OmegaConf.merge(*layers)
    except (OmegaConfBaseException, TypeError) as error:  # the second of lists on mappings
        raise ConfigError(f"cannot read {path} on top of what it extends: {error}") from error
    for override in overrides:
        quoted = quote_override(_quote_braces(override) if kind is Any else override, kind)
        try:
            layer = OmegaConf.from_dotlist([quoted])
        except (YAMLError, OmegaConfBaseException, ValueError) as error:
            raise ConfigError(
                f"cannot read {path} with the override {override!r}, whose value is no YAML: where it is a text, put "
                f"it in quotes ({error})"
            ) from error
        name = override.partition("=")[0]
        try:
            if OmegaConf.select(layer, name) == {}:  # which would leave all as it is
                OmegaConf.update(merged, name, {}, merge=False)
            merged = OmegaConf.merge(merged, layer)
        except TypeError as error:
            raise ConfigError(
                f"cannot put {override!r} on top of {path}, which has a mapping there where this has a list, or the "
                "other way round"
            ) from error
        except OmegaConfBaseException as error:
            raise ConfigError(f"cannot read {path} with the override {override!r}: {error}") from error
    try:
        plain = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"cannot read {path} with the overrides given: {error}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _layers(path: Path, kind: Any, above: tuple[Path, ...] = ()) -> list[DictConfig]:
    """Return the settings of the files that a file extends, then its own; `above` are the files that led to it."""
    if not path.is_file():
        raise ConfigError(f"there is no config file {path}" + (f", which {above[-1]} extends" if above else ""))
    if path.resolve() in [file.resolve() for file in above]:
        raise ConfigError(f"extends: {path} extends itself, by way of {', '.join(map(str, above))}: remove one extends")
    try:
        settings = OmegaConf.load(io.StringIO(quote_texts(read_text(path), kind)))
        lower = settings.pop("extends", None) if isinstance(settings, DictConfig) else None
    except (OSError, DataError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if not isinstance(settings, DictConfig):
        raise ConfigError(f"{path} must hold a mapping of settings, got a list")
    if lower is None:
        return [settings]
    if not isinstance(lower, str):
        raise ConfigError(f"{path}: extends must be the name of a YAML file, got {lower!r}")
    return [*_layers(path.parent / expand_home(lower), kind, (*above, path)), settings]


def build(kind: type[T], data: Any, where: str = "") -> T:
    """Build a pydantic dataclass from plain data, nested dataclasses included.

    Args:
        kind: the dataclass.
        data: plain data, as `read` returns it.
        where: the key under which `data` stands in the whole config, for messages.

    Raises:
        ConfigError: an unknown or missing key, or a value of the wrong type or range; the message names each in full.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where or 'the config'} must be a mapping of settings, got {data!r}")
    try:
        return TypeAdapter(kind).validate_python(dict(data))
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(kind, problem, where) for problem in error.errors())) from error


def _explain(kind: type, problem: Mapping[str, Any], where: str) -> str:
    path = [str(part) for part in problem["loc"]]
    name = ".".join([where, *path] if where else path)
    match problem["type"]:
        case "unexpected_keyword_argument":
            known = _known_keys(kind, path[:-1])
            close = difflib.get_close_matches(path[-1], known, n=1)
            return f"unknown key {name!r}, " + (
                f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            )
        case "missing":
            return f"the config lacks {name!r}, which has no default"
        case "value_error":  # one of ours: it says what came
            return f"{name}: {problem['ctx']['error']}"
        case _:
            return f"{name}: {problem['msg']}, got {problem['input']!r}"


def _known_keys(kind: Any, path: Sequence[str]) -> list[str]:
    for part in path:
        if part.isdigit():
            kind = typing.get_args(kind)[0]
        elif dataclasses.is_dataclass(kind):
            kind = typing.get_type_hints(kind).get(part)
        elif typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
    if not dataclasses.is_dataclass(kind):
        return []
    return [field.name for field in dataclasses.fields(kind)]


def _quote_braces(override: str) -> str:
    """Keep a value such as a/{000..099}.tar a string: YAML would read the braces as a mapping."""
    key, _, value = override.partition("=")
    quoted = value.replace("'", "''")
    return f"{key}='{quoted}'" if "{" in value and ".." in value else override
