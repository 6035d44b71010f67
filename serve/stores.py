"""The store of the settings: an index in a directory, or a Qdrant cluster."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

from hypclip.errors import HypclipError
from hypclip.search import LocalStore, VectorStore
from hypclip.search.thumbnails import FILE, ThumbnailFile, ThumbnailStore, sweep
from serve.settings import Settings


def open_thumbnails(settings: Settings) -> ThumbnailStore | None:
    """Open the thumbnails of the settings' index, if its folder is there; also where no new ones are to be made.

    Raises:
        StoreError: the file cannot be used.
    """
    return ThumbnailFile(settings.index / FILE) if settings.index.is_dir() else None


@contextlib.asynccontextmanager
async def swept(thumbnails: ThumbnailStore, store: VectorStore) -> AsyncIterator[None]:
    """Remove in the background what a process that died has left of thumbnails without points."""
    stopping = threading.Event()
    sweeping = asyncio.create_task(asyncio.to_thread(sweep, thumbnails, store, stop=stopping.is_set))
    try:
        yield
    finally:
        stopping.set()
        with contextlib.suppress(HypclipError):  # which is no reason not to serve
            await sweeping


def open_store(settings: Settings) -> VectorStore:
    """Open the store of the settings.

    Raises:
        StoreError: the index cannot be used, or the cluster is not there.
        MissingExtraError: the client of Qdrant is not installed.
    """
    if settings.qdrant_url is None:
        return LocalStore(settings.index, create=settings.create_index)
    from hypclip.search import QdrantStore

    key = settings.qdrant_api_key
    return QdrantStore.connect(
        settings.qdrant_url,
        api_key=None if key is None else key.get_secret_value(),
        timeout_s=settings.qdrant_timeout_s,
    )
