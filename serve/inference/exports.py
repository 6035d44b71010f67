"""ONNX exports that are kept from one start of the server to the next, beside the checkpoint they were made of.

A folder has one export a folder: files, and a list of their hashes. Each appears whole, under a name that is made of
everything that decides what is in it, so that what is found is either the right one or damaged, which is noticed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypclip.checkpoint import WEIGHTS, sha256, sync

logger = logging.getLogger(__name__)

_LIST = "export.json"
_LOCK = ".lock"
_SCRATCH = ".writing-"
_ABANDONED_S = 3600.0
"""Age from which an unfinished export counts as left behind by a killed process."""
_MAX_WAIT_S = 900.0
"""Longest wait for another process that exports. A lock ends with its process, but that may hang."""


@dataclass(frozen=True)
class Contents:
    """Everything that decides the bytes of an export.

    Args:
        revision: hash of the weights.
        precision: of the graphs.
        more: all else, as plain data: the towers, versions of libraries.
    """

    revision: str
    precision: str
    more: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The folder's name, the same for the same contents."""
        written = json.dumps([self.revision, self.precision, self.more], sort_keys=True, default=str)
        return f"{self._prefix}{hashlib.sha256(written.encode()).hexdigest()[:16]}"

    def takes_the_place_of(self, name: str) -> bool:
        """Tell whether this export makes one of another name useless: of other weights, or made in another way."""
        return name != self.name and (not name.startswith(f"{self.revision[:12]}-") or name.startswith(self._prefix))

    @property
    def _prefix(self) -> str:
        return f"{self.revision[:12]}-{self.precision}-"


class Exports:
    """The exports of one checkpoint.

    Args:
        checkpoint: directory or file of the model; links are followed.
        cache: where the exports of several checkpoints are kept; when not given, they are in `.NAME.onnx` beside each.
    """

    def __init__(self, checkpoint: Path, cache: Path | None = None):
        self._checkpoint = checkpoint.resolve()
        if cache is None:
            self.folder = self._checkpoint.with_name(f".{self._checkpoint.name}.onnx")
        else:
            place = hashlib.sha256(os.fsencode(self._checkpoint)).hexdigest()[:8]
            self.folder = cache / f"{self._checkpoint.name}-{place}"

    def find(self, contents: Contents) -> Path | None:
        """Return the folder of an export if it is there and whole; its files are not to be changed."""
        folder = self.folder / contents.name
        try:
            hashes = json.loads((folder / _LIST).read_text(encoding="utf-8"))
            whole = {file.name: sha256(file) for file in folder.iterdir() if file.name != _LIST} == hashes
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be read and is made again: %s", folder, error)
            return None
        if not whole:
            logger.warning("%s is damaged and is made again", folder)
            return None
        return folder

    def keep(self, contents: Contents, files: Path) -> None:
        """Copy the files of a folder into the place of an export; those that it takes the place of are removed.

        Raises:
            OSError: the place cannot be written.
        """
        self._prepare()
        target, scratch, damaged = self.folder / contents.name, self._scratch(), self._scratch()
        try:
            scratch.mkdir()
            hashes = {}
            for file in files.iterdir():
                shutil.copyfile(file, scratch / file.name)
                sync(scratch / file.name)
                hashes[file.name] = sha256(scratch / file.name)
            (scratch / _LIST).write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")
            sync(scratch / _LIST)
            if target.exists():
                target.rename(damaged)
            try:
                scratch.rename(target)
            except OSError:
                if not target.exists():  # else another process has been faster, where locks do not work
                    raise
        finally:
            for folder in (scratch, damaged):
                shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # others may sweep too
            self._sweep(contents)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait for others that export the same checkpoint, for what they leave is what this process needs.

        Where the folder cannot be written, or the file system has no locks, nobody waits.
        """
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                self._prepare()
                descriptor = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                stack.callback(os.close, descriptor)
                end = time.monotonic() + _MAX_WAIT_S
                while time.monotonic() < end:
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        time.sleep(0.1)
            yield

    def _prepare(self) -> None:
        """Make the folder, readable by the users who may read the weights, since an export contains them."""
        if self.folder.is_dir():
            return
        weights = self._checkpoint / WEIGHTS if self._checkpoint.is_dir() else self._checkpoint
        readable = weights.stat().st_mode & 0o044
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(exist_ok=True, mode=0o700 | readable | readable >> 2)

    def _scratch(self) -> Path:
        return self.folder / f"{_SCRATCH}{secrets.token_hex(8)}"

    def _sweep(self, contents: Contents) -> None:
        """Remove what this export takes the place of, and what killed processes have left."""
        for folder in self.folder.iterdir():
            abandoned = folder.name.startswith(_SCRATCH) and time.time() - folder.stat().st_mtime > _ABANDONED_S
            replaced = (folder / _LIST).is_file() and contents.takes_the_place_of(folder.name)
            if abandoned or replaced:
                shutil.rmtree(folder, ignore_errors=True)
