"""Requests of which each is plain."""

from dataclasses import dataclass

TEXT = b'{"text":"a"}'
PLAIN = (
    b"POST /classify-text HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n" + TEXT
)
PICTURE = b"POST /classify-image HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 3\r\n\r\n"


@dataclass
class Named:
    """Stands for a model: what it is called."""

    name: str = "lstm"


def with_header(header: bytes, sent: bytes = PLAIN) -> bytes:
    """The request with one header more, or several."""
    return sent.replace(b"Host: x\r\n", b"Host: x\r\n" + header + b"\r\n")
