"""A request's headers, straight from the ASGI scope: Starlette's mapping decodes all of them for every look."""

from starlette.types import Scope


def header_values(scope: Scope, name: bytes) -> list[str]:
    """What all headers of that name (in lower case) say, in their order."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def header(scope: Scope, name: bytes) -> str:
    """What the first header of that name (in lower case) says; empty when there is none."""
    for key, value in scope["headers"]:
        if key == name:
            sent: bytes = value
            return sent.decode("latin-1")
    return ""


def announced_length(scope: Scope) -> int:
    """Bytes that the body has, as its header says; 0 when it does not."""
    announced = header(scope, b"content-length")
    return int(announced) if announced.isdigit() else 0
