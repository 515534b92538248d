"""When a request is sent again, and how long to wait before."""

import random
import time
from http import HTTPStatus

import httpx

from sightread_client.errors import DeadlineExceeded, SightreadError, Unreachable, error_of

AGAIN = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
BROKEN = (httpx.NetworkError, httpx.RemoteProtocolError)
"""The connection could not be made, or ended before the answer: a prediction changes nothing, so it is asked again."""


class Attempts:
    """The attempts at one request: how much time is left for them, and whether there is another one.

    Args:
        url: of the service, for what is said of it.
        retries: how often it may be sent again.
        timeout: seconds for all attempts and the pauses between them.
    """

    def __init__(self, url: str, *, retries: int, timeout: float) -> None:
        self._url = url
        self._retries = retries
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._made = 0

    @property
    def seconds_left(self) -> float:
        """Until the deadline."""
        return self._deadline - time.monotonic()

    def pause_after(self, outcome: httpx.Response | Exception) -> float:
        """Seconds to wait before the next attempt.

        Args:
            outcome: a response that is not 2xx, or why there is none.

        Raises:
            SightreadError: there is no next attempt, because it would not help or would come too late.
        """
        self._made += 1
        if isinstance(outcome, httpx.Response):
            error = error_of(outcome)
            again = outcome.status_code in AGAIN
        else:
            error = self._without_answer(outcome)
            again = isinstance(outcome, BROKEN)
        pause = pause_before(self._made, error.retry_after)
        if not again or self._made > self._retries or pause >= self.seconds_left:
            raise error
        return pause

    def _without_answer(self, fault: Exception) -> SightreadError:
        if isinstance(fault, TimeoutError | httpx.TimeoutException):
            return DeadlineExceeded(f"{self._url} did not answer within {self._timeout:g} seconds.")
        return Unreachable(f"Nobody answers at {self._url} ({fault or type(fault).__name__}).")


def pause_before(retry: int, retry_after: float | None) -> float:
    """Seconds before a retry, the first of which is 1: what the service said, or else twice as long each time.

    A part is left to chance, so that those who were refused together do not come back together.
    """
    if retry_after is not None:
        return retry_after * random.uniform(1, 1.25)  # noqa: S311  # no secret
    return random.uniform(0.5, 1) * min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (retry - 1))  # noqa: S311  # no secret
