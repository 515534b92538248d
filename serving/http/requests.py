"""What clients send: bodies read within their limits and turned into items, headers into values."""

import asyncio
import json
import math
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from types import TracebackType
from typing import Any, Generic, NoReturn, Self, TypeVar

from pydantic import ValidationError
from starlette.datastructures import FormData, QueryParams, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from serving.http.alarms import alarms_of
from serving.http.headers import announced_length, header, header_values
from serving.http.schemas import Options, Texts
from serving.problems import (
    BadRequest,
    DeadlineExceeded,
    Problem,
    RequestTimeout,
    TooLarge,
    Unprocessable,
    UnsupportedMediaType,
)

JSON_TYPES = {"", "application/json", "application/x-www-form-urlencoded"}
"""The last is what `curl -d` says of whatever it sends."""
TEXT_TYPE = "text/plain"
UTF_8 = {"utf-8", "utf8", "us-ascii", "ascii"}
CHARSET = re.compile(r';\s*charset\s*=\s*"?([^";\s]*)', re.IGNORECASE)

MAX_JSON_VALUES = 500_000
"""What a JSON body may hold besides text. Thirty-two megabytes of brackets are a gigabyte of lists; the largest list of
the longest texts has fewer commas than this."""

ONE_TEXT = re.compile(rb'[ \t\n\r]*\{[ \t\n\r]*"text"[ \t\n\r]*:[ \t\n\r]*"([^"\\\x00-\x1f]*)"[ \t\n\r]*\}[ \t\n\r]*')
"""A JSON body (RFC 8259) with one text, in which nothing is escaped, as nearly all are."""
PLAIN_BODY = 64 * 1024
"""Bytes of one that can hold no more values than any request needs."""

LARGE_PICTURE = 512 * 1024
"""Bytes of one that is decoded in a thread, whatever its format."""

REMEMBERED = 256
"""Queries and media types: the same few come again and again, and to read one takes longer than to find it. Headers'
limit bounds each."""

LONGEST_NAME = 80
"""Characters of what a client sent that an error shows."""

Raw = TypeVar("Raw", bytes, str)
OneOfOptions = TypeVar("OneOfOptions", bound=Options)


@dataclass(frozen=True)
class Items(Generic[Raw]):
    """What is to be classified. `many` tells how the answer is shaped: one item may have come as a list."""

    raw: Sequence[Raw]
    many: bool


def shown(sent: str) -> str:
    """What a client sent as an error shows it: quoted, in one line, of a bounded length."""
    return repr(sent if len(sent) <= LONGEST_NAME else sent[:LONGEST_NAME] + "…")


def media_type(request: Request) -> str:
    """The body's media type in lower case, without parameters; empty when the client named none.

    Raises:
        BadRequest: two headers name one each.
    """
    return kind_of(_only(request, b"content-type") or "")


@lru_cache(maxsize=REMEMBERED)
def kind_of(content_type: str) -> str:
    """The media type that the header Content-Type names, in lower case, without parameters."""
    return content_type.partition(";")[0].strip().lower()


def request_timeout(request: Request, default: float) -> float:
    """Seconds that the request may take: X-Request-Timeout may shorten the default.

    Raises:
        BadRequest: the header is not one positive number.
    """
    return timeout_of(_only(request, b"x-request-timeout"), default)


def timeout_of(sent: str | None, default: float) -> float:
    """What the header X-Request-Timeout says, or does not, in seconds.

    Raises:
        BadRequest: it is no positive number.
    """
    if sent is None:
        return default
    try:
        seconds = float(sent)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:  # a NaN is not, either
        raise BadRequest(f"X-Request-Timeout is {shown(sent)}; it takes a positive number of seconds.")
    return min(seconds, default)


class Deadline:
    """When a request must be answered.

    Around what reads the body and answers, as a context, it raises RequestTimeout or DeadlineExceeded. It does what
    `asyncio.timeout` does, but for a timer of its own.

    Args:
        task: works on the request.
        seconds: that it may take, from now on.
        most: seconds that any request may take; the client asked for less where `seconds` are fewer.
    """

    def __init__(self, task: "asyncio.Task[Any]", seconds: float, most: float) -> None:
        self._seconds = seconds
        self._is_of_client = seconds < most
        self._has_come: float | None = None
        self._start = perf_counter()
        loop = asyncio.get_running_loop()
        self._alarms = alarms_of(loop)
        self.at = loop.time() + self._seconds
        """When the deadline is, by the event loop's clock."""
        self._task = task
        self._is_over = False

    def body_has_come(self) -> None:
        """From now on the answer is waited for, and no more the body."""
        self._has_come = perf_counter()

    def stages(self, others: Mapping[str, float]) -> dict[str, float]:
        """Seconds of all stages until now: `read`, the others, and the `total`."""
        now = perf_counter()
        return {"read": (self._has_come or now) - self._start, **others, "total": now - self._start}

    def __enter__(self) -> Self:
        self._cancelling = self._task.cancelling()
        self._alarms.set(self._end, self.at)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._alarms.call_off(self._end)
        # whoever else wants the task to end, such as a stop, gets its way
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._problem() from None

    def _end(self) -> None:
        self._is_over = True
        self._task.cancel()

    def _problem(self) -> Problem:
        if self._has_come is not None:
            return DeadlineExceeded(f"There was no answer within {self._seconds:g} seconds.")
        late = f"The body took longer than {self._seconds:g} seconds to come."
        # a deadline of the client's own is no fault of its sending
        return DeadlineExceeded(late) if self._is_of_client else RequestTimeout(late)


def deadline_of(request: Request, most: float) -> Deadline:
    """So many seconds from now, or fewer, as X-Request-Timeout says.

    Raises:
        BadRequest: the header is not one positive number.
    """
    return Deadline(request.scope["state"]["task"], request_timeout(request, most), most)


def query(request: Request, options: type[OneOfOptions]) -> OneOfOptions:
    """The query as the endpoint's options.

    Raises:
        BadRequest: it is not valid, or says one thing twice.
    """
    parsed: OneOfOptions = parse_query(request.scope["query_string"], options)
    return parsed


@lru_cache(maxsize=REMEMBERED)
def parse_query(sent: bytes, options: type[OneOfOptions]) -> OneOfOptions:
    """As `query`, of the query itself."""
    members = QueryParams(sent).multi_items()
    check_query(members)
    try:
        return options.model_validate(dict(members))
    except ValidationError as error:
        raise bad_query(error.errors(include_url=False, include_input=False, include_context=False)) from error


def bad_query(faults: Sequence[Mapping[str, Any]]) -> BadRequest:
    """Pydantic's findings in one line, without what the client sent."""
    told = [
        f"{'.'.join(str(where)[:LONGEST_NAME] for where in fault['loc']) or 'query'}: "
        + fault["msg"].removeprefix("Value error, ")
        for fault in faults[:3]
    ]
    return BadRequest(f"The query is not valid: {'; '.join(told)}.")


def check_query(members: Sequence[tuple[str, str]]) -> None:
    """Refuse a query that says one thing twice: whichever of the two were taken, the client may have meant the other.

    Raises:
        BadRequest: it does.
    """
    names = [name for name, _ in members]
    if len(set(names)) < len(names):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise BadRequest(f"The query is not valid: {shown(twice)} is given more than once.")


async def read_images(request: Request, *, max_items: int) -> Items[bytes]:
    """Encoded pictures: the body itself, or the `file` parts of a form.

    Raises:
        UnsupportedMediaType: the body is neither, or compressed.
        BadRequest: a form that cannot be parsed, or without a file.
        TooLarge: too many files.
    """
    _refuse_compressed(request)
    kind = media_type(request)
    if kind == "multipart/form-data":
        return await _read_form(request, max_items)
    if is_picture(kind):
        return Items([await read_body(request)], many=False)
    raise UnsupportedMediaType(
        f"A body of type {shown(kind)} is not taken. Send the picture's bytes as image/* (curl --data-binary "
        "@photo.jpg -H 'Content-Type: image/jpeg') or application/octet-stream, or multipart/form-data with `file` "
        "parts."
    )


def is_picture(kind: str) -> bool:
    """Whether a body of this media type is a picture; whoever names none can mean nothing else."""
    return kind.startswith("image/") or kind in {"", "application/octet-stream"}


def announces_large_picture(request: Request) -> bool:
    """As `is_large_picture`, of what a request's headers say.

    Raises:
        BadRequest: two headers of a large one name one media type each.
    """
    length = announced_length(request.scope)
    return length >= LARGE_PICTURE and is_large_picture(media_type(request), length)


def is_large_picture(kind: str, length: int) -> bool:
    """Whether a body of this media type and of so many bytes is one picture that a thread will surely decode."""
    return length >= LARGE_PICTURE and (kind.startswith("image/") or kind == "application/octet-stream")


async def read_body(request: Request) -> bytes:
    """The whole body. Most come in one piece, which Starlette's own way makes a generator and a list of.

    Raises:
        ClientDisconnect: the client went away before.
    """
    pieces: list[bytes] = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            return b"".join([*pieces, piece]) if pieces else piece
        pieces.append(piece)


class _Form(MultiPartParser):
    """Starlette's parser by itself takes a form that was cut off for one of fewer parts."""

    has_ended = False

    def on_end(self) -> None:
        self.has_ended = True


async def _read_form(request: Request, max_items: int) -> Items[bytes]:
    async def body() -> AsyncGenerator[bytes, None]:
        async for chunk in request.stream():
            yield chunk
        if not form.has_ended:
            raise MultiPartException("It ends before its closing boundary.")

    try:
        form = _Form(request.headers, body(), max_files=max_items + 1, max_fields=max_items + 1)
        parts = await form.parse()
    except MultiPartException as error:
        if "Too many files" in error.message or "Too many fields" in error.message:
            check_count(max_items + 1, max_items)
        raise BadRequest(f"The form cannot be parsed: {error.message}") from error
    except UnicodeError as error:
        # Python has codecs, such as punycode, that a charset can name and that take offence at bytes
        raise BadRequest("The form cannot be parsed: it is not in the charset that its Content-Type names.") from error
    try:
        return await _files(parts, max_items)
    finally:
        await parts.close()


async def _files(form: FormData, max_items: int) -> Items[bytes]:
    parts = form.multi_items()
    for name, part in parts:
        if name != "file" or not isinstance(part, UploadFile):
            raise BadRequest(
                f"The form has a part {shown(name)} that is not a file named `file`: send every picture as "
                "curl -F file=@photo.jpg does."
            )
    check_count(len(parts), max_items)
    files = [await part.read() for _, part in parts if isinstance(part, UploadFile)]
    if not files:
        raise BadRequest("The form has no part named `file`.")
    return Items(files, many=len(files) > 1)


def json_or(other: str, request: Request, wanted: str) -> str:
    """The media type of a body that may be JSON or one other type.

    Raises:
        UnsupportedMediaType: it is neither, compressed, or not in UTF-8; says what is `wanted`.
        BadRequest: two headers name one type each.
    """
    _refuse_compressed(request)
    kind = media_type(request)
    if kind != other and kind not in JSON_TYPES:
        raise UnsupportedMediaType(f"A body of type {shown(kind)} is not taken. Send {wanted}.")
    charset = _foreign_charset(header(request.scope, b"content-type"))
    if charset is not None:
        raise UnsupportedMediaType(f"Text in {shown(charset)} is not taken: send UTF-8.")
    return kind


def is_text(content_type: str) -> bool:
    """Whether a body of this Content-Type holds a text, or texts, that can be read."""
    kind = kind_of(content_type)
    return (kind == TEXT_TYPE or kind in JSON_TYPES) and _foreign_charset(content_type) is None


@lru_cache(maxsize=REMEMBERED)
def _foreign_charset(content_type: str) -> str | None:
    """The charset that the header Content-Type names, where it is not UTF-8."""
    named = CHARSET.search(content_type)
    return named[1] if named and named[1].lower() not in UTF_8 else None


async def read_texts(request: Request, *, max_items: int) -> Items[str]:
    """Texts: JSON with `text` or `texts`, or the body itself as text/plain.

    Raises:
        UnsupportedMediaType: the body is neither, compressed, or not in UTF-8.
        BadRequest: JSON that is malformed or has another shape.
        Unprocessable: a list without a text, a body that is not valid UTF-8.
        TooLarge: too many texts.
    """
    kind = json_or(
        TEXT_TYPE, request, 'application/json such as {"text": "…"} or {"texts": ["…", "…"]}, or text/plain in UTF-8'
    )
    return texts_in(kind, await read_body(request), max_items=max_items)


def texts_in(kind: str, body: bytes, *, max_items: int) -> Items[str]:
    """The text, or texts, in a whole body of this media type, JSON or text/plain.

    Raises:
        BadRequest, Unprocessable, TooLarge: as `read_texts`.
    """
    if kind == TEXT_TYPE:
        try:
            return Items([body.decode("utf-8-sig")], many=False)
        except UnicodeDecodeError as error:
            raise Unprocessable(f"The text is not valid UTF-8: byte {error.start} fits nowhere.") from error
    if len(body) <= PLAIN_BODY and (one := ONE_TEXT.fullmatch(body)):
        with suppress(UnicodeDecodeError):  # that is told below
            return Items([one[1].decode()], many=False)
    texts = parse_texts(body)
    if texts.texts is None:
        assert texts.text is not None, "the body was validated"  # noqa: S101
        return Items([texts.text], many=False)
    if not texts.texts:
        raise Unprocessable('"texts" is empty.')
    check_count(len(texts.texts), max_items)
    return Items(texts.texts, many=True)


def parse_json(body: bytes) -> Any:
    """The body as JSON, within limits.

    Raises:
        BadRequest: it is malformed.
        TooLarge: it has more values than any request needs.
    """
    if sum(map(body.count, b",:[{")) > MAX_JSON_VALUES:
        raise TooLarge(f"The JSON has more than {MAX_JSON_VALUES:,} commas, colons and brackets. Send fewer at a time.")
    try:
        return JSON.decode(body.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadRequest(f"The body is not JSON in UTF-8: byte {error.start} fits nowhere.") from error
    except json.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error}.") from error
    except RecursionError as error:
        raise BadRequest("The body is not what this endpoint takes: its JSON is nested too deeply.") from error
    except ValueError as error:
        # a number of more digits than Python reads
        raise BadRequest("The body is not what this endpoint takes: it has a number in it that is too long.") from error


def parse_texts(body: bytes) -> Texts:
    """The JSON body of `/classify-text`.

    Raises:
        BadRequest: it is malformed or has another shape.
        TooLarge: it has more values than any request needs.
    """
    document = parse_json(body)
    if not isinstance(document, dict):
        raise BadRequest('The body is not what this endpoint takes: it is no object such as {"text": "…"}.')
    if strangers := document.keys() - Texts.model_fields.keys():
        raise BadRequest(
            f"The body is not what this endpoint takes: it has a member {shown(min(strangers))}, "
            'and only "text" or "texts" may be in it.'
        )
    try:
        return Texts.model_validate(document)
    except ValidationError as error:
        raise BadRequest(f"The body is not what this endpoint takes: {faults(error)}.") from error


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Duplicate names are refused: parsers differ in which one they take (RFC 8259, 4)."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise BadRequest("The body is not what this endpoint takes: a name stands in it twice.")
    return members


def _no_number(constant: str) -> NoReturn:
    raise BadRequest(f"The body is not JSON: {constant} is not a number in it.")


JSON = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_no_number)


def _refuse_compressed(request: Request) -> None:
    """Nothing is inflated here: a small body stays a small body."""
    codings = ", ".join(header_values(request.scope, b"content-encoding"))
    if codings and codings.strip(" ,").lower() not in {"", "identity"}:
        raise UnsupportedMediaType(
            f"A body with Content-Encoding {shown(codings)} is not taken. Send it uncompressed, without that header."
        )


def _only(request: Request, name: bytes) -> str | None:
    values = header_values(request.scope, name)
    if len(values) > 1 and len(set(values)) > 1:
        shown_name = name.decode().title()
        raise BadRequest(f"There are {len(values)} {shown_name} headers that contradict each other. Send one.")
    return values[0] if values else None


def check_count(count: int, most: int) -> None:
    """Raise TooLarge for more items than one request may have."""
    if count > most:
        raise TooLarge(f"The request has more than {most} items. Send fewer at a time.")


def faults(error: ValidationError) -> str:
    """Pydantic's findings in one line, without what the client sent."""
    return "; ".join(
        (f"at {'.'.join(map(str, fault['loc']))} " if fault["loc"] else "") + fault["msg"].removeprefix("Value error, ")
        for fault in error.errors(include_url=False, include_input=False, include_context=False)[:3]
    )
