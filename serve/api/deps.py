"""Dependencies of the routes: the service that a request leases, and the runtime."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import Depends, Request

from serve.runtime import Runtime
from serve.service import Service


async def _runtime(request: Request) -> Runtime:
    runtime = request.state.runtime
    assert isinstance(runtime, Runtime)
    return runtime


async def _service(request: Request) -> Service:
    service = request.state.service
    assert isinstance(service, Service)
    return service


RuntimeDep: TypeAlias = Annotated[Runtime, Depends(_runtime)]
ServiceDep: TypeAlias = Annotated[Service, Depends(_service)]
