"""Metrics for Prometheus. Labels take few values: no id, no text, no address of a client is ever one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_MAX_COLLECTIONS = 100


class Metrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(name, help, labels, registry=self.registry)

        def gauge(name: str, help: str, *labels: str) -> Gauge:
            return Gauge(name, help, labels, registry=self.registry)

        def seconds(name: str, help: str, *labels: str) -> Histogram:
            return Histogram(name, help, labels, buckets=_SECONDS, registry=self.registry)

        self.requests = counter("hypclip_requests_total", "Requests answered.", "endpoint", "code")
        self.request_seconds = seconds("hypclip_request_seconds", "From the first byte to the answer.", "endpoint")
        self.rejected = counter("hypclip_rejected_total", "Requests refused for want of room or rights.", "reason")
        self.queue_depth = gauge("hypclip_queue_depth", "Inputs that wait for the model or are in it.", "modality")
        self.queue_bytes = gauge("hypclip_queue_bytes", "Their size.", "modality")
        self.queue_wait = seconds("hypclip_queue_wait_seconds", "From the queue to a worker.", "modality")
        self.batch_size = Histogram(
            "hypclip_batch_size", "Inputs of a batch.", ["modality"], buckets=_SIZES, registry=self.registry
        )
        self.preprocess = seconds("hypclip_preprocess_seconds", "Decoding and resizing, or tokenizing.", "modality")
        self.inference = seconds("hypclip_inference_seconds", "A batch in the model.", "modality")
        self.index_seconds = seconds("hypclip_index_seconds", "A call of the store.", "op")
        self.index_points = gauge("hypclip_index_points", "Points stored, some seconds ago at most.", "collection")
        self.model_loaded = gauge("hypclip_model_loaded", "1 for the model that answers.", "model")
        self.heartbeat = gauge("hypclip_worker_heartbeat_seconds", "Since the model's worker was last heard of.")
        self.cache_hits = counter("hypclip_cache_hits_total", "Texts whose embedding was kept.")
        self.cache_misses = counter("hypclip_cache_misses_total", "Texts whose embedding was not.")

    def queued(self, modality: str, items: int, size: int) -> None:
        """Note that inputs came, or with negative numbers that they left."""
        self.queue_depth.labels(modality).inc(items)
        self.queue_bytes.labels(modality).inc(size)

    def batch_sent(self, modality: str, size: int, waits_s: Iterable[float]) -> None:
        """Note a batch on its way to a worker, and how long each of its inputs had waited."""
        self.batch_size.labels(modality).observe(size)
        wait = self.queue_wait.labels(modality)
        for waited_s in waits_s:
            wait.observe(waited_s)

    def batch_done(self, modality: str, seconds: float) -> None:
        """Note a batch that a worker has computed."""
        self.inference.labels(modality).observe(seconds)

    @contextlib.contextmanager
    def preprocessing(self, modality: str) -> Iterator[None]:
        """Time the preparation of inputs."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.preprocess.labels(modality).observe(time.perf_counter() - start)

    def serving(self, model_id: str) -> None:
        """Note which model answers from now on."""
        self.model_loaded.clear()
        self.model_loaded.labels(model_id).set(1)

    def render(self, heartbeat_age_s: float, points: Mapping[str, int]) -> bytes:
        """Return the text that Prometheus reads."""
        self.heartbeat.set(heartbeat_age_s)
        self.index_points.clear()
        for _, (collection, count) in zip(range(_MAX_COLLECTIONS), points.items(), strict=False):
            self.index_points.labels(collection).set(count)
        return generate_latest(self.registry)
