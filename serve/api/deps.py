"""What every route starts from: the service that this request was given."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import Depends, Request

from serve.service import Service


async def _service(request: Request) -> Service:
    service = request.state.service
    assert isinstance(service, Service)
    return service


Running: TypeAlias = Annotated[Service, Depends(_service)]
