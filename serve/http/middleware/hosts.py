"""The name that a server was asked by, against pages of the web that pass a name of theirs off as this machine's."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.errors import UnknownHost
from serve.telemetry.metrics import Metrics

_OPEN = ("/healthz", "/readyz")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@/\\?#\s]+)(?::[0-9]{0,5})?", re.IGNORECASE)


class Hosts:
    """Refuse requests by a name that is not this server's, where no API key protects it.

    A browser lets a page read what comes from the name that the page has. Who owns the name can let it lead to
    127.0.0.1, or to an address of the local network, once the page is loaded (DNS rebinding). That takes a name of the
    public DNS: addresses, and names without a dot such as localhost or those of containers, are let through.

    Args:
        app: what is protected.
        names: that are this server's; *.example.com is every name below one, and * any.
        metrics: count what is refused.
    """

    def __init__(self, app: ASGIApp, names: Sequence[str], metrics: Metrics):
        self.app, self._metrics = app, metrics
        self._names = [name.lower().rstrip(".") for name in names]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "http" and scope["path"] not in _OPEN:
            for name, value in scope["headers"]:
                if name == b"host" and not self._is_ours(value.decode("latin-1")):
                    self._metrics.rejected.labels("host").inc()
                    raise UnknownHost(value.decode("latin-1"))
        await self.app(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        match = _HOST.fullmatch(host.strip())
        if match is None:
            return False
        name = match[1].lower().removesuffix(".")
        if _is_address(name.strip("[]")) or (name and "." not in name):
            return True
        return any(
            known in ("*", name) or (known.startswith("*.") and name.endswith(known[1:])) for known in self._names
        )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
