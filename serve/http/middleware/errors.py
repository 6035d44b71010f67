"""Errors raised below become answers."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import (
    ClientGone,
)
from serve.http.middleware.context import logged
from serve.http.responses import error_response, response_to

logger = logging.getLogger(__name__)


class Errors:
    """Answer what is raised below: expected errors by what they say, others by 500 with the traceback in the log.

    It stands inside the middleware for CORS, so that scripts of the origins that may call can read errors too.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except ClientGone:
            raise
        except Exception as error:
            if started:
                raise
            request_id = scope["state"]["request_id"]
            response = response_to(error, request_id)
            if response is None or response.status_code == 500:
                logger.exception("request %s failed: %s %s", request_id, scope["method"], logged(scope["path"]))
            if response is None:
                message = "the server failed to answer this request; its log has the details under this request id"
                response = error_response(request_id, 500, "internal_error", message)
            await response(scope, receive, send)
