"""A client of the server's REST interface, for programs that need neither torch nor the rest of hypclip.

    from hypclip.client import Client, image

    with Client("http://127.0.0.1:8000") as client:
        client.put_points([{"id": "photo-1", **image("photo.jpg"), "metadata": {"year": 2024}}])
        for hit in client.retrieve("a photo of a dog", k=5, modality="image").hits:
            print(hit.id, hit.distance, hit.radius)

An item, wherever one is asked for, is a text, or what `image`, `stored`, `point` or `root` returns. `AsyncClient` has
the same methods, to be awaited. The files of this folder import httpx2 and each other, nothing else that must be
installed: where installing hypclip is too much, copy the folder. (PIL images and arrays need Pillow, which whoever has
them has.)
"""

from .clients import AsyncClient, Client
from .errors import (
    Conflict,
    DeadlineExceeded,
    HypclipServerError,
    InvalidRequest,
    NoAnswer,
    NotFound,
    Overloaded,
    Unauthorized,
    Unavailable,
    UnusableProxy,
)
from .items import ConeRule, Item, PlaneRule, Rule, image, point, root, stored
from .maps import ANCESTOR, DESCENDANT, ITSELF, Focus, Map
from .results import (
    Classified,
    CollectionInfo,
    Deleted,
    Embedding,
    FieldInfo,
    Fields,
    Hit,
    IndexInfo,
    Listing,
    ModelInfo,
    Ordering,
    Page,
    Point,
    PointDetails,
    Related,
    Stop,
    Thumbnail,
    Traversal,
    Written,
)

__all__ = [
    "ANCESTOR",
    "DESCENDANT",
    "ITSELF",
    "AsyncClient",
    "Classified",
    "Client",
    "CollectionInfo",
    "ConeRule",
    "Conflict",
    "DeadlineExceeded",
    "Deleted",
    "Embedding",
    "FieldInfo",
    "Fields",
    "Focus",
    "Hit",
    "HypclipServerError",
    "IndexInfo",
    "InvalidRequest",
    "Item",
    "Listing",
    "Map",
    "ModelInfo",
    "NoAnswer",
    "NotFound",
    "Ordering",
    "Overloaded",
    "Page",
    "PlaneRule",
    "Point",
    "PointDetails",
    "Related",
    "Rule",
    "Stop",
    "Thumbnail",
    "Traversal",
    "Unauthorized",
    "Unavailable",
    "UnusableProxy",
    "Written",
    "image",
    "point",
    "root",
    "stored",
]
