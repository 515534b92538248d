"""Requests that were valid once: seeded, so that whatever they find can be found again."""

import json
import random
from dataclasses import dataclass, field, replace

from fuzz.seeds import TEXTS, pictures

BOUNDARY = b"frame"
ODD_BYTES = [
    b"\x00",
    b"\xff",
    b"\r\n",
    b"\r\n\r\n",
    b"--",
    b"--frame",
    b'"',
    b"{",
    b"[",
    b"\\u0000",
    b"\xed\xa0\x80",
    b";",
    b"%",
]
ODD_VALUES = [
    "",
    "0",
    "-1",
    "1e9",
    "nan",
    "99999999999999999999",
    "%00",
    "%ff",
    "..",
    "true",
    "\xff",
    "a" * 3000,
    "null",
]
ODD_HEADERS = [
    ("Content-Encoding", "gzip"),
    ("Content-Encoding", "identity"),
    ("Content-Type", "text/plain; charset=utf-7"),
    ("Content-Type", "multipart/form-data"),
    ("Content-Type", "image/"),
    ("Expect", "100-continue"),
    ("Accept", "text/html"),
    ("Accept-Encoding", "gzip;q=-1"),
    ("Range", "bytes=0-1"),
    ("If-None-Match", "*"),
    ("Cookie", "a=b; " * 50),
    ("traceparent", "00-zz"),
    ("X-Forwarded-For", "127.0.0.1, nowhere"),
    ("X-Request-ID", "\xfc" * 20),
    ("X-Request-Timeout", "0.01"),
]


@dataclass(frozen=True)
class Asked:
    """A request."""

    path: str
    body: bytes
    content_type: str
    method: str = "POST"
    query: list[tuple[str, str]] = field(default_factory=list)
    headers: list[tuple[str, str]] = field(default_factory=list)


def form(files: list[bytes]) -> bytes:
    """Files as a form."""
    head = b'--%s\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' % BOUNDARY
    return b"".join(head + content + b"\r\n" for content in files) + b"--%s--\r\n" % BOUNDARY


def valid_requests() -> list[Asked]:
    """Valid requests of every shape that there is."""
    encoded = pictures((24, 16))
    multipart = f"multipart/form-data; boundary={BOUNDARY.decode()}"
    return [
        *(Asked("/classify-image", picture, "image/png") for picture in encoded),
        *(Asked("/classify-image", form(encoded[at : at + 3]), multipart) for at in range(0, 12, 3)),
        *(Asked("/classify-text", text.encode(), "text/plain; charset=utf-8") for text in TEXTS),
        *(Asked("/classify-text", json.dumps({"text": text}).encode(), "application/json") for text in TEXTS),
        Asked("/classify-text", json.dumps({"texts": TEXTS}).encode(), "application/json"),
    ]


class Mutations:
    """Endless mutated requests; the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311  # no secret
        self._valid = valid_requests()
        # bodies are what is parsed most
        self._ways = [
            *[self._body] * 6,
            self._query,
            self._header,
            self._type,
            self._path,
        ]

    def next(self) -> Asked:
        """A valid request with one to four of its parts others."""
        asked = self._random.choice(self._valid)
        for _ in range(self._random.randint(1, 4)):
            asked = self._random.choice(self._ways)(asked)
        return asked

    def _body(self, asked: Asked) -> Asked:
        luck, body = self._random, bytearray(asked.body)
        at = luck.randint(0, len(body))
        match luck.randrange(7):
            case 0 if body:
                body[at % len(body)] ^= 1 << luck.randrange(8)
            case 1:
                body = body[:at]
            case 2:
                body[at:at] = luck.choice(ODD_BYTES)
            case 3:
                del body[at : at + luck.randint(1, 20)]
            case 4:
                body[at:at] = body[at : at + luck.randint(1, 200)] * luck.randint(1, 20)
            case 5:
                body[at : at + 4] = luck.choice(
                    [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", luck.randbytes(4)]
                )
            case _:
                other = luck.choice(self._valid).body
                body[at:] = other[luck.randint(0, len(other)) :]
        return replace(asked, body=bytes(body))

    def _query(self, asked: Asked) -> Asked:
        names = ["top_k", "version", "version_label", "explain", "top_k[]", "", "\xff"]
        return replace(asked, query=[*asked.query, (self._random.choice(names), self._random.choice(ODD_VALUES))])

    def _header(self, asked: Asked) -> Asked:
        return replace(asked, headers=[*asked.headers, self._random.choice(ODD_HEADERS)])

    def _type(self, asked: Asked) -> Asked:
        if self._random.random() < 0.5:  # noqa: PLR2004
            return replace(asked, content_type=self._random.choice(self._valid).content_type)
        at = self._random.randint(0, len(asked.content_type))
        return replace(
            asked, content_type=asked.content_type[:at] + self._random.choice(["", ";", '"', "=", "\xff", ","])
        )

    def _path(self, asked: Asked) -> Asked:
        match self._random.randrange(3):
            case 0:
                return replace(asked, path=self._random.choice(self._valid).path)
            case 1:
                return replace(asked, method=self._random.choice(["GET", "PUT", "HEAD", "OPTIONS", "DELETE", "TRACE"]))
            case _:
                return replace(asked, path=asked.path + self._random.choice(["/", "%00", "/..", "%2f", "//", "?", "#"]))
