"""Typed errors for mistakes a user can make. Each message says what was expected, what came, and what to do."""

from collections.abc import Sequence


class HypclipError(Exception):
    """Base of every error hypclip raises on purpose."""

    def __str__(self) -> str:
        """Return the message on one line, also where it quotes one of several lines, such as a YAML reader's."""
        return " ".join(line.strip() for line in super().__str__().splitlines())


class ConfigError(HypclipError, ValueError):
    """A configuration names an unknown key or holds a value that cannot work."""


class DataError(HypclipError, ValueError):
    """Data on disk is missing, damaged, or not in the documented format."""


class CheckpointError(HypclipError, RuntimeError):
    """A checkpoint cannot be read or does not belong to this model."""


class InputError(HypclipError, ValueError):
    """An argument has the wrong type, shape, dtype or range."""


class MissingExtraError(HypclipError, ImportError):
    """A library of an optional extra is not installed."""


class TrainingError(HypclipError, RuntimeError):
    """A run cannot go on, for example after a non-finite loss."""


class StoreError(HypclipError, RuntimeError):
    """A vector store refuses a request, for example points of another model."""


def first_few(problems: Sequence[str], most: int = 3) -> str:
    """Return the first of several problems for a message, and how many more there are."""
    more = f", and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problems[:most]) + more
