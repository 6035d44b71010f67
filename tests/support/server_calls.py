"""What tests ask of a server that runs as a process, and what they wait for."""

import contextlib

import httpx2
import psutil
import torch

from tests.support.processes import PATIENCE_S, eventually, worker_processes


def workers_of(server):
    return [worker.pid for worker in worker_processes(psutil.Process(server.pid))]


@contextlib.contextmanager
def suspended(process):
    """Let a process stand still, so that what it was asked stays under way."""
    process.suspend()
    try:
        yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()


def embed(server, *inputs, **options):
    with server.new_client() as client:
        return client.post("/embed", json={"inputs": list(inputs)}, **options)


def metric(server, name):
    """Sum a metric over its labels."""
    lines = httpx2.get(server.url + "/metrics", trust_env=False, timeout=PATIENCE_S).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def until_waiting(server, count):
    eventually(lambda: metric(server, "hypclip_queue_depth") == count, f"{count} inputs that wait")


def until_refused(server):
    eventually(lambda: server.status("/healthz") == 0, "the end of listening")


def points_of(response):
    return torch.tensor([datum["embedding"] for datum in response.json()["data"]])
