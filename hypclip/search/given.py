"""Conversion of arguments: points, ids and metadata from tensors, arrays and lists; all else is refused by name."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hypclip.data.given import shown as beginning
from hypclip.errors import InputError

Vectors: TypeAlias = Tensor | NDArray[Any] | Sequence[Any]
"""Space components: a tensor or an array of float32 or float64, or a list of numbers, lists, tensors or arrays."""


def as_vectors(given: object, what: str) -> Tensor:
    """Return numbers as a tensor, of the memory they are in where that can be; of lists of Python's numbers in float64.

    Args:
        given: see `Vectors`.
        what: names them in messages.

    Raises:
        InputError: they are none of these, or rows of unequal length.
    """
    if isinstance(given, Tensor):
        if given.layout != torch.strided:
            raise InputError(f"{what} must be a tensor in rows, got a sparse one: write it as x.to_dense()")
        return given.detach()
    if isinstance(given, np.ma.MaskedArray):
        raise InputError(f"{what} must have all of its numbers, got a masked array: fill it, x.filled(0.0)")
    if isinstance(given, np.ndarray) and given.dtype != object:
        return _of_array(given, what)
    if not isinstance(given, list | tuple | np.ndarray):
        raise InputError(f"{what} must be a tensor, an array or a list of numbers, got {shown(given)}")
    rows = list(given)
    try:
        if rows and all(isinstance(row, Tensor) for row in rows):
            return torch.stack([row.detach() for row in rows])
        array = np.array([row.detach().cpu().numpy() if isinstance(row, Tensor) else row for row in rows])
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{what} cannot be made a tensor: {error}") from error
    if array.dtype.kind == "i" and not any(isinstance(row, np.ndarray) for row in rows):
        array = array.astype(np.float64)
    return _of_array(array, what)


def as_ids(ids: Iterable[object], what: str = "ids") -> list[str]:
    """Return ids as a list of strings.

    Raises:
        InputError: one string, whose letters would be taken for ids, or something else than strings.
    """
    if isinstance(ids, str | bytes | Mapping) or not isinstance(ids, Iterable):
        raise InputError(f"{what} must be a list of strings, got {shown(ids)}")
    return [_id(one) for one in ids]


def as_whole(value: object, what: str) -> int:
    """Return a whole number of Python's or of numpy's.

    Raises:
        InputError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InputError(f"{what} must be a whole number, got {shown(value)}")
    return int(value)


def as_metadata(metadata: object, ids: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return one mapping per point; None stands for no metadata, of one point or of all.

    Raises:
        InputError: something else; the message names the point.
    """
    if metadata is None:
        return [{} for _ in ids]
    if isinstance(metadata, str | bytes | Mapping) or not isinstance(metadata, Iterable):
        raise InputError(f"metadata must be a list of mappings, one per point, got {shown(metadata)}")
    found = [{} if one is None else one for one in metadata]
    for index, one in enumerate(found):
        if not isinstance(one, Mapping):
            of = f" of point {ids[index]!r}" if index < len(ids) else ""
            raise InputError(f"metadata[{index}]{of} must be a mapping such as {{'year': 2024}}, got {shown(one)}")
    return found


def shown(value: object) -> str:
    """Return a value for a message: its type, and its shape or what it begins with."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{type(value).__name__} of shape {tuple(shape)}"
    return beginning(value)


def _of_array(array: NDArray[Any], what: str) -> Tensor:
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        kind = "something else than numbers" if array.dtype.kind in "OSUV" else str(array.dtype)
        raise InputError(f"{what} must be float32 or float64, got {kind}")
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    # torch warns of memory that may not be written to, and takes no stride below 0, which one row in C order may have.
    as_it_is = native.flags.writeable and all(stride >= 0 for stride in native.strides)
    return torch.from_numpy(native if as_it_is else native.copy())


def _id(given: object) -> str:
    try:
        if isinstance(given, str) and given and given.encode():
            return str(given)
    except UnicodeEncodeError:
        pass
    raise InputError(
        f"a point id must be a non-empty string of valid Unicode, got {given!r}"
        + (f": write it as {str(given)!r}" if isinstance(given, numbers.Integral) else "")
    )
