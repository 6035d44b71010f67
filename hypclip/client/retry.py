"""Retries: whether to try again, and the pause before."""

from __future__ import annotations

import email.utils
import random
import time

import httpx2

from .errors import is_about_tls

_FIRST_PAUSE_S = 0.25


def pause_s(outcome: httpx2.Response | httpx2.RequestError, attempt: int) -> float | None:
    """Return the seconds to wait before a retry, or None where a retry is of no use.

    Args:
        outcome: the response or the error.
        attempt: 0 the first time. Pauses double where the server gives no Retry-After.
    """
    asked = None
    if isinstance(outcome, httpx2.Response):
        if outcome.status_code not in (429, 503):
            return None
        asked = _seconds(outcome.headers.get("Retry-After", ""))
    elif not isinstance(outcome, httpx2.ConnectError | httpx2.ConnectTimeout) or is_about_tls(outcome):
        return None
    # A little longer than asked for, by chance: clients refused together must not all come back together.
    return (_FIRST_PAUSE_S * 2**attempt if asked is None else asked) * random.uniform(1.0, 1.25)


def _seconds(retry_after: str) -> float | None:
    """Read the header: seconds, or a date."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
