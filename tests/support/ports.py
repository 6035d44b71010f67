"""Ports for the servers and process groups of tests."""

import contextlib
import random
import socket


def free_port() -> int:
    """Return a port below those that systems give to connections, where it stays free until it is used."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            port = random.SystemRandom().randrange(30_000, 32_768)
            probe.bind(("127.0.0.1", port))
            return port
