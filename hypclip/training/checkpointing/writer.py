"""Writing checkpoints beside training, which waits only for the copy in memory."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec

from hypclip.checkpoint import atomic_directory
from hypclip.errors import CheckpointError, ConfigError
from hypclip.training.checkpointing.manifest import checkpoint_path, files_to_copy, prune, write_manifest
from hypclip.training.checkpointing.state import Snapshot

_LOOK_S = 60.0
"""Seconds that the beginning of a run waits for a place that does not answer."""

_LAST_COPIES_S = 600.0
"""Seconds that the end of a run waits for copies to a place that does not answer."""


class Saver:
    """Write snapshots in order, one at a time, on a thread; copy each to another place on a second one.

    Args:
        output_dir: of the run.
        keep: how many of the newest checkpoints stay.
        keep_every: checkpoints of multiples of so many steps stay too.
        upload_to: a folder as fsspec names it, such as s3://bucket/runs/x, or None.
        warn: told of copies that failed; training goes on, and the next checkpoint is copied again.

    Raises:
        ConfigError: `upload_to` is of no known kind, or its library is not installed.
    """

    def __init__(
        self,
        output_dir: Path,
        keep: int,
        keep_every: int | None = None,
        upload_to: str | None = None,
        warn: Callable[[str], Any] = print,
    ):
        self._output_dir, self._keep, self._keep_every, self._warn = output_dir, keep, keep_every, warn
        self._target: tuple[Any, str] | None = None
        if upload_to is not None:
            try:
                self._target = fsspec.core.url_to_fs(upload_to)
            except (ImportError, ValueError) as error:
                raise ConfigError(f"train.upload_to {upload_to!r} cannot be used: {error}") from error
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._uploads: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        # A daemon, so that the program can end without it.
        self._uploader = threading.Thread(target=self._upload_all, name="upload", daemon=True)
        if self._target is not None:
            self._uploader.start()
        self._writing: Future[None] | None = None
        self._deleting = threading.Lock()
        self._copying: Path | None = None
        self._written = -1

    def check_no_copies(self) -> None:
        """Refuse to copy the checkpoints of a new run over those of another one.

        Raises:
            ConfigError: the other place holds checkpoints.
        """
        if self._target is None:
            return
        filesystem, root = self._target
        place = f"{root.rstrip('/')}/checkpoints"
        there: list[Any] = []

        def look() -> None:
            with contextlib.suppress(Exception):  # nothing there, or no answer: of which copying will warn
                there.extend(filesystem.ls(place, detail=False))

        looking = threading.Thread(target=look, name="look", daemon=True)
        looking.start()
        looking.join(_LOOK_S)
        if there:
            raise ConfigError(
                f"train.upload_to: {place} holds the checkpoints of another run: name another folder, or copy the "
                "newest of them into output_dir/checkpoints and go on with --resume"
            )

    def save(self, snapshot: Snapshot) -> None:
        """Begin to write a snapshot, once the one before is written.

        Raises:
            CheckpointError: the one before could not be written.
        """
        self.wait()
        self._writing = self._writer.submit(self._write, snapshot)

    @property
    def failure(self) -> Exception | None:
        """Error of the last checkpoint that could not be written, as soon as it is known."""
        if self._writing is None or not self._writing.done():
            return None
        error = self._writing.exception()
        return error if isinstance(error, Exception) else None

    @property
    def is_writing(self) -> bool:
        """True while a checkpoint is being written."""
        return self._writing is not None and not self._writing.done()

    def wait(self) -> None:
        """Wait until the last snapshot is on disk.

        Raises:
            CheckpointError: it could not be written.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """Wait until the last snapshot is on disk, and for a limited time for its copy.

        Raises:
            CheckpointError: the last checkpoint could not be written.
        """
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            self._uploads.put(None)
            if self._target is not None:
                self._uploader.join(_LAST_COPIES_S)
                if self._uploader.is_alive():
                    self._warn(f"copies of checkpoints to {self._target[1]} took over {_LAST_COPIES_S:g} s: given up")
        if self._written >= 0:
            self._prune()

    def _write(self, snapshot: Snapshot) -> None:
        path = checkpoint_path(self._output_dir, snapshot.step)
        try:
            if not self._output_dir.is_dir():
                raise FileNotFoundError(f"{self._output_dir} has been removed")
            with atomic_directory(path) as folder:
                snapshot.write(folder)
                write_manifest(folder)
            self._written = snapshot.step
            self._prune()
        except Exception as error:
            raise CheckpointError(
                f"the checkpoint of step {snapshot.step} could not be written to {path}: {error}; those before it are "
                "as they were: mend the cause and go on with --resume"
            ) from error
        if self._target is not None:
            self._uploads.put(path)

    def _prune(self) -> None:
        with self._deleting:  # but not what is being copied: deleting waits for no network
            prune(self._output_dir, self._written, self._keep, self._keep_every, self._copying)

    def _upload_all(self) -> None:
        while (path := self._uploads.get()) is not None:
            self._upload(path)

    def _upload(self, path: Path) -> None:
        assert self._target is not None
        filesystem, root = self._target
        target = f"{root.rstrip('/')}/checkpoints/{path.name}"
        with self._deleting:
            if not path.is_dir():
                return  # newer ones were written faster than this could be copied
            self._copying = path
        try:
            filesystem.makedirs(target, exist_ok=True)
            for file in files_to_copy(path):
                filesystem.put_file(str(file), f"{target}/{file.name}")
        except Exception as error:  # each filesystem has errors of its own
            self._warn(f"the checkpoint {path.name} could not be copied to {target}: {error}")
        finally:
            self._copying = None
