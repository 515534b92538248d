"""What both clients tell httpx."""

import ssl
from dataclasses import dataclass
from typing import Any

import httpx

from sightread_client.asking import Ask
from sightread_client.retrying import Attempts

SHORTEST = 0.001
"""Seconds: what X-Request-Timeout can say."""
LAST_PORT = 65_535


@dataclass(frozen=True)
class Connection:
    """How the service is reached.

    Attributes:
        url: where it is, such as http://127.0.0.1:8080.
        api_key: the key that opens it, where it wants one.
        timeout: seconds for one request with all its attempts.
        retries: how often a request may be sent again.
        verify: how the service's certificate is checked; False: not at all.

    Raises:
        ValueError: one of them cannot be.
    """

    url: str
    api_key: str | None
    timeout: float
    retries: int
    verify: ssl.SSLContext | bool

    def __post_init__(self) -> None:
        try:
            parts = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise ValueError(f"{self.url!r} is no address ({error})") from error
        if parts.scheme not in {"http", "https"} or not parts.host or not 0 <= (parts.port or 0) <= LAST_PORT:
            raise ValueError(f"{self.url!r} is no address such as http://127.0.0.1:8080")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ValueError("the API key holds characters that no key has")
        if not self.timeout > 0:
            raise ValueError(f"the timeout is {self.timeout}; it takes a positive number of seconds")

    def attempts(self) -> Attempts:
        """A new request's attempts."""
        return Attempts(self.url, retries=self.retries, timeout=self.timeout)

    def options(self) -> dict[str, Any]:
        """Of httpx's clients."""
        headers = {"User-Agent": "sightread-client"} | ({"X-API-Key": self.api_key} if self.api_key else {})
        return {"base_url": self.url, "headers": headers, "verify": self.verify}


def request_options(ask: Ask[Any], seconds: float) -> dict[str, Any]:
    """One attempt, for `build_request` of httpx's clients; the service is told how long it may take."""
    seconds = max(seconds, SHORTEST)
    headers = {"X-Request-Timeout": f"{seconds:.3f}"} | ({"Content-Type": ask.media_type} if ask.media_type else {})
    body = {"files": ask.files} if ask.files else {"content": ask.content}
    return {
        "method": ask.method,
        "url": ask.path,
        "params": ask.query,
        "headers": headers,
        "timeout": seconds,
        **body,
    }
