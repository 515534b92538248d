"""A server that answers what it was told to, one thing after the other: what a real gateway cannot be made to do."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

Answer = Callable[["Handler"], None]
"""Answers one request."""


@dataclass
class Server:
    """Where it is, and the headers of the requests that it got."""

    url: str
    got: list[dict[str, str]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    script: Iterator[Answer]
    server_: Server
    body: bytes

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server_.got.append(dict(self.headers))
        next(self.script)(self)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def scripted(*answers: Answer) -> Iterator[Server]:
    """A server with a script; a request beyond its end gets no answer."""
    kind = type("Scripted", (Handler,), {"script": iter(answers)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that went away are the point
    kind.server_ = told = Server(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answers(status: int, body: object = None, **headers: str) -> Answer:
    """JSON, or a text as it is."""

    def answer(handler: Handler) -> None:
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def hangs_up(handler: Handler) -> None:
    handler.close_connection = True


def drips_its_head(handler: Handler) -> None:
    """An answer whose head takes a second to come."""
    handler.send_response(200)
    handler.flush_headers()
    for byte in b"X-Slow: 2345678901\r\n":
        time.sleep(0.05)
        handler.wfile.write(bytes([byte]))
    handler.end_headers()
    handler.wfile.write(b"{}")


def drips(handler: Handler) -> None:
    """An answer that never ends, and never pauses for long."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
