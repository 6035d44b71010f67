"""Every setting of the server, read from the environment (HYPCLIP_...) here and nowhere else."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from hypclip.config import UserPath

ENV_PREFIX = "HYPCLIP_"


def _split(value: Any) -> Any:
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


Names: TypeAlias = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """Settings of the model, the index, the address and the limits of requests.

    The setting `max_k` is the environment variable HYPCLIP_MAX_K, and so on. Arguments given in code win over the
    environment.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    checkpoint: UserPath = Field(Path("runs/quickstart/checkpoint"), description="Directory of the model.")
    index: UserPath = Field(Path("runs/quickstart/index"), description="Directory of the stored points.")
    index_only: bool = Field(
        False,
        description="Serve the index without a model, such as that of a taxonomy: each collection in its own space, "
        "asked by stored points, embeddings and the root. Texts and images are answered 409.",
    )
    thumbnails: int = Field(
        160,
        ge=0,
        le=1024,
        description="Longest side in pixels of the thumbnails that are made of images as they are written. They are in "
        "a file in the folder of the index, for points in Qdrant too if there is such a folder. 0 makes and shows "
        "none.",
    )
    media_root: UserPath | None = Field(
        None,
        description="Folder of which images may be shown in full, those that train/embed.py --media-root embedded from "
        "it. When not given thumbnails are all that is shown.",
    )
    create_index: bool = Field(False, description="Start with an empty index when there is none.")
    qdrant_url: str | None = Field(
        None, description="URL of a Qdrant server or cluster that keeps the points, in place of the index directory."
    )
    qdrant_api_key: SecretStr | None = Field(None, description="Its key, if it asks for one.")
    qdrant_timeout_s: float = Field(10.0, gt=0, description="How long to try to reach it before answering 503.")
    device: str = Field(
        "auto", description="Where the model runs: cpu, cuda, cuda:1; auto takes a GPU if there is one."
    )
    backend: Literal["auto", "torch", "compile", "onnx"] = Field(
        "auto",
        description="What runs the towers: PyTorch, PyTorch compiled, or ONNX Runtime. auto is ONNX Runtime on a CPU "
        "where the extra hypclip[onnx] is installed and the towers can be exported, else PyTorch.",
    )
    precision: Literal["float32", "bfloat16", "int8"] = Field(
        "float32", description="What the towers compute in. The map into hyperbolic space is float32 always."
    )
    onnx_cache: UserPath | None = Field(
        None,
        description="Folder where exports to ONNX are kept for the next start; .NAME.onnx beside the checkpoint NAME "
        "when not given.",
    )
    workers: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Processes that run the model, each with its weights. When not given: one on a GPU, and two on a "
        "CPU, of half the cores each, which together embed more than one of all cores.",
    )
    threads: int | None = Field(
        None, ge=1, description="Threads of each of them on a CPU; the cores shared out when not given."
    )
    worker_timeout_s: float = Field(
        60.0, gt=0, description="How long a batch may take before its process counts as hung and is ended."
    )
    max_batch_tokens: int = Field(
        1024,
        ge=1,
        description="Most tokens of the texts of a batch, about 64 captions; a longer text goes alone. More pays where "
        "larger batches are faster, as on a GPU.",
    )
    max_batch_image: int = Field(16, ge=1, description="Most images of a batch.")
    batch_wait_ms: float = Field(
        4.0, ge=0, description="How long an input waits for others while the model is between two batches."
    )
    text_cache: int = Field(10_000, ge=0, description="How many embeddings of texts are kept; 0 keeps none.")

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 is every network of the machine.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")

    drain_s: float = Field(
        5.0,
        ge=0,
        description="On SIGTERM: how long /readyz says 503 while requests are still taken, so that a load balancer "
        "sees it. A second signal skips it.",
    )
    api_keys_file: UserPath | None = Field(
        None, description="File of the API keys, one `name:scope:sha256` per line; without it no key is asked for."
    )
    protect_metrics: bool = Field(False, description="Whether /metrics asks for a key of scope admin.")
    allowed_hosts: Names = Field(
        (),
        description="Names that the server is reached by besides that of HYPCLIP_HOST, with commas between them, "
        "*.example.com for all below one; a request by another name of the public DNS is answered 421. Addresses and "
        "names without a dot need not be given. * allows every name; where API keys are asked for no name is refused.",
    )
    cors_origins: Names = Field((), description="Origins of web pages that may call, with commas between them.")
    log_format: Literal["text", "json"] = Field("text", description="Lines for people, or for machines.")
    access_log: bool = Field(True, description="Whether every request gets a line.")
    otel_endpoint: str | None = Field(
        None, description="OTLP endpoint over HTTP that gets a trace of every request; none when not given."
    )

    request_timeout_s: float = Field(30.0, gt=0, description="How long a request may take before it is answered 504.")
    max_requests: int = Field(1024, ge=1, description="Most requests at a time; the next is answered 429.")
    max_request_bytes: int = Field(
        512 * 2**20, ge=1, description="Most bytes of the bodies of all requests at a time; the next is answered 429."
    )
    max_queue_items: int = Field(2048, ge=1, description="Most inputs that wait for the model or are in it.")
    max_queue_s: float = Field(
        1.0,
        gt=0,
        description="How long what waits for the model may be expected to take: the next request is answered 429, and "
        "after a storm the server is itself again so soon. 128 inputs may wait in any case.",
    )
    max_queue_bytes: int = Field(512 * 2**20, ge=1, description="Most bytes of them, as tokens and as resized pixels.")
    image_url_hosts: Names = Field(
        (),
        description="Hosts that images may be fetched from, with commas between them, *.example.com for all below "
        "one. None: no URL is ever fetched.",
    )
    image_url_timeout_s: float = Field(5.0, gt=0, description="How long fetching one may take, redirects included.")
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
        description="Most pixels of all images of a request, which are in memory together at 3 bytes per pixel.",
    )
    max_image_aspect: float = Field(
        100.0,
        ge=1,
        description="Longest side over shortest. The shortest side is resized to what the model takes, so an image "
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


def unknown_variables() -> list[str]:
    """Return a line about each variable of the environment that begins as a setting does and is none."""
    lines = []
    for variable in sorted(os.environ):
        name = variable.lower().removeprefix(ENV_PREFIX.lower())
        if name == variable.lower() or name in Settings.model_fields:
            continue
        close = difflib.get_close_matches(name, Settings.model_fields, n=1)
        meant = f"; did you mean {ENV_PREFIX}{close[0].upper()}?" if close else ""
        lines.append(f"the environment has {variable}, which is no setting and changes nothing{meant}")
    return lines
