"""What clients send: bodies read within their limits and turned into items, headers into values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from serving.problems import BadRequest, TooLarge, Unprocessable, UnsupportedMediaType
from serving.schemas import Texts

JSON_TYPES = {"", "application/json", "application/x-www-form-urlencoded"}
"""The second is what `curl -d` says of whatever it sends."""


Raw = TypeVar("Raw", bytes, str)


@dataclass(frozen=True)
class Items(Generic[Raw]):
    """What is to be classified. `many` tells how the answer is shaped: one item may have come as a list."""

    raw: Sequence[Raw]
    many: bool


def media_type(request: Request) -> str:
    """The body's media type in lower case, without parameters; empty when the client named none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def request_timeout(request: Request, default: float) -> float:
    """Seconds that the request may take: X-Request-Timeout may shorten the default.

    Raises:
        BadRequest: the header is not a positive number.
    """
    header = request.headers.get("x-request-timeout")
    if header is None:
        return default
    try:
        seconds = float(header)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:  # a NaN is not, either
        raise BadRequest(f"X-Request-Timeout is {header!r}; it takes a positive number of seconds.")
    return min(seconds, default)


async def read_images(request: Request, *, max_items: int) -> Items[bytes]:
    """Encoded pictures: the body itself, or the `file` parts of a form.

    Raises:
        UnsupportedMediaType: the body is neither.
        BadRequest: a form that cannot be parsed, or without a file.
        TooLarge: too many files.
    """
    kind = media_type(request)
    if kind == "multipart/form-data":
        return await _read_form(request, max_items)
    if kind.startswith("image/") or kind in {"", "application/octet-stream"}:
        return Items([await request.body()], many=False)
    raise UnsupportedMediaType(
        f"A body of type {kind} is not taken. Send the picture's bytes as image/* (curl --data-binary @photo.jpg "
        "-H 'Content-Type: image/jpeg') or application/octet-stream, or multipart/form-data with `file` parts."
    )


async def _read_form(request: Request, max_items: int) -> Items[bytes]:
    try:
        async with request.form(max_files=max_items + 1, max_fields=max_items + 1) as form:
            parts = form.multi_items()
            strangers = sorted({name for name, part in parts if name != "file" or not isinstance(part, UploadFile)})
            if strangers:
                raise BadRequest(
                    f"The form has a part {strangers[0]!r} that is not a file named `file`: send every picture as "
                    "curl -F file=@photo.jpg does."
                )
            _check_count(len(parts), max_items)
            files = [await part.read() for _, part in parts if isinstance(part, UploadFile)]
    except HTTPException as error:
        # Starlette's own parser says it so
        if "Too many files" in error.detail or "Too many fields" in error.detail:
            _check_count(max_items + 1, max_items)
        raise BadRequest(f"The form cannot be parsed: {error.detail}") from error
    if not files:
        raise BadRequest("The form has no part named `file`.")
    return Items(files, many=len(files) > 1)


async def read_texts(request: Request, *, max_items: int) -> Items[str]:
    """Texts: JSON with `text` or `texts`, or the body itself as text/plain.

    Raises:
        UnsupportedMediaType: the body is neither, or not in UTF-8.
        BadRequest: JSON that is malformed or has another shape.
        Unprocessable: a list without a text, a body that is not valid UTF-8.
        TooLarge: too many texts.
    """
    kind = media_type(request)
    if kind == "text/plain":
        return Items([_decode(request, await request.body())], many=False)
    if kind not in JSON_TYPES:
        raise UnsupportedMediaType(
            f"A body of type {kind} is not taken. Send application/json such as "
            '{"text": "…"} or {"texts": ["…", "…"]}, or text/plain in UTF-8.'
        )
    try:
        body = Texts.model_validate_json(await request.body())
    except ValidationError as error:
        raise BadRequest(f"The body is not what this endpoint takes: {_faults(error)}.") from error
    if body.texts is None:
        assert body.text is not None, "the body was validated"  # noqa: S101
        return Items([body.text], many=False)
    if not body.texts:
        raise Unprocessable('"texts" is empty.')
    _check_count(len(body.texts), max_items)
    return Items(body.texts, many=True)


def _decode(request: Request, body: bytes) -> str:
    charset = request.headers["content-type"].lower().partition("charset=")[2].split(";")[0].strip(' "') or "utf-8"
    if charset not in {"utf-8", "utf8", "us-ascii"}:
        raise UnsupportedMediaType(f"Text in {charset} is not taken: send UTF-8.")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unprocessable(f"The text is not valid UTF-8: byte {error.start} fits nowhere.") from error


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise TooLarge(f"The request has more than {most} items. Send fewer at a time.")


def _faults(error: ValidationError) -> str:
    """Pydantic's findings in one line, without what the client sent."""
    return "; ".join(
        " ".join([*(["at " + ".".join(map(str, fault["loc"]))] if fault["loc"] else []), fault["msg"]])
        for fault in error.errors(include_url=False, include_input=False, include_context=False)[:3]
    )
