"""The ceiling: Sightread's own web server reads the body and answers a constant. No server of this kind is faster."""

from typing import Any

import uvicorn

ANSWER = b'{"label":"cat","score":0.93,"predictions":[{"label":"cat","score":0.93}],"model":{"name":"cnn","version":1}}'


async def app(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


def main(port: int) -> None:
    """Serve until a signal."""
    uvicorn.run(app, port=port, log_level="warning", access_log=False, lifespan="off")
