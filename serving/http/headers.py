"""A request's headers, straight from the ASGI scope: Starlette's mapping decodes all of them for every look."""

from starlette.types import Scope

BY_NAME = "sightread.headers"
"""Where the scope keeps them by their names: a request's are looked at a dozen times."""


def header_values(scope: Scope, name: bytes) -> list[str]:
    """What all headers of that name (in lower case) say, in their order."""
    values = (scope.get(BY_NAME) or _by_name(scope)).get(name)
    return [value.decode("latin-1") for value in values] if values else []


def header(scope: Scope, name: bytes) -> str:
    """What the first header of that name (in lower case) says; empty when there is none."""
    values = (scope.get(BY_NAME) or _by_name(scope)).get(name)
    return values[0].decode("latin-1") if values else ""


def _by_name(scope: Scope) -> dict[bytes, list[bytes]]:
    by_name: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        by_name.setdefault(name, []).append(value)
    scope[BY_NAME] = by_name
    return by_name


def announced_length(scope: Scope) -> int:
    """Bytes that the body has, as its header says; 0 when it does not."""
    announced = header(scope, b"content-length")
    return int(announced) if announced.isdigit() else 0
