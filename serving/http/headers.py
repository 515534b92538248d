"""A request's headers, straight from the ASGI scope: Starlette's mapping decodes all of them for every look."""

from collections.abc import Iterable

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


def by_name(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    """Names (in lower case) and values → the values of each name, in their order."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    return values


def _by_name(scope: Scope) -> dict[bytes, list[bytes]]:
    found = scope[BY_NAME] = by_name(scope["headers"])
    return found


def announced_length(scope: Scope) -> int:
    """Bytes that the body has, as its header says; 0 when it does not."""
    announced = header(scope, b"content-length")
    return int(announced) if announced.isdigit() else 0
