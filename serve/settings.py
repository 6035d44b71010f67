"""Every setting of the server, read from the environment (HYPCLIP_...) here and nowhere else."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

ENV_PREFIX = "HYPCLIP_"


class Settings(BaseSettings):
    """Where the model and the index are, where to listen, and what a request may ask for.

    The setting `max_k` is the environment variable HYPCLIP_MAX_K, and so on. Arguments given in code win over the
    environment.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    checkpoint: Path = Field(Path("runs/quickstart/checkpoint"), description="Directory of the model.")
    index: Path = Field(Path("runs/quickstart/index"), description="Directory of the stored points.")
    create_index: bool = Field(False, description="Start with an empty index when there is none.")
    qdrant_url: str | None = Field(
        None, description="URL of a Qdrant server or cluster that keeps the points, in place of the index directory."
    )
    qdrant_api_key: SecretStr | None = Field(None, description="Its key, if it asks for one.")
    qdrant_timeout_s: float = Field(10.0, gt=0, description="How long to try to reach it before answering 503.")
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 is every network of the machine.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")

    max_body_bytes: int = Field(
        64 * 2**20,
        ge=1,
        description="Largest request body. It is held in memory, with its parsed form several times over; "
        "1,000 embeddings of 512 numbers take about 10 MB of JSON.",
    )
    max_inputs: int = Field(256, ge=1, description="Most inputs of an /embed or /classify request.")
    max_text_chars: int = Field(
        8192, ge=1, description="Longest text. The model reads the first context window of it, 77 tokens in CLIP."
    )
    max_image_bytes: int = Field(10 * 2**20, ge=1, description="Largest image file, after base64.")
    max_image_pixels: int = Field(
        50_000_000,
        ge=1,
        le=178_956_970,
        description="Most pixels of an image, read from its header before any of it is decoded. Pillow itself reads "
        "no more than 178,956,970.",
    )
    max_request_pixels: int = Field(
        200_000_000,
        ge=1,
        description="Most pixels of all images of a request, which are in memory together at 3 bytes a pixel.",
    )
    max_image_aspect: float = Field(
        100.0,
        ge=1,
        description="Longest side over shortest. The shortest side is resized to what the model takes, so a picture "
        "one pixel high would grow to gigabytes.",
    )
    max_labels: int = Field(
        4096, ge=1, description="Most texts that a /classify request embeds as labels: labels times templates."
    )
    max_taxonomy_edges: int = Field(20_000, ge=1, description="Most edges of a taxonomy.")
    max_k: int = Field(1000, ge=1, description="Most neighbours of a search.")
    max_depth: int = Field(
        100_000, ge=1, description="Furthest end of a page, offset + k; all before it is ranked anew for every page."
    )
    max_points: int = Field(10_000, ge=1, description="Most points written or deleted in one request.")
    max_metadata_bytes: int = Field(16 * 2**10, ge=1, description="Largest metadata of a point, as JSON.")
