"""The store of the settings: an index in a directory, or a Qdrant cluster."""

from __future__ import annotations

from hypclip.search import LocalStore, VectorStore
from serve.settings import Settings


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
