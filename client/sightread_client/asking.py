"""What is sent, and how what comes back is read: everything but the sending, which is sync or async."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, BinaryIO, Generic, TypedDict, TypeVar
from urllib.parse import quote

import httpx

from sightread_client.answers import (
    ImageAnswer,
    ModelCard,
    ModelState,
    ProblemOfItem,
    TextAnswer,
    model_version,
)
from sightread_client.errors import ServiceFault, SightreadError

Picture = str | os.PathLike[str] | bytes | BinaryIO
"""A path, an encoded picture, or an open binary file that holds one."""

ITEMS_AT_ONCE = 32
"""Of one request: enough to fill a batch, and few enough for its deadline."""
EXPLAINED_AT_ONCE = 4
"""An explanation costs about as much as a hundred answers."""
BYTES_AT_ONCE = 8_000_000
"""Of one request, unless a single item is larger."""
OF_AN_ITEM = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
}
"""Statuses that speak of what a request with a single item holds."""

Raw = TypeVar("Raw", bytes, str)
Found = TypeVar("Found", ImageAnswer, TextAnswer)
Read = TypeVar("Read")


class Options(TypedDict, total=False):
    """What goes with any question."""

    top_k: int
    """How many labels an answer names (3)."""
    version: int | None
    """The version that must answer."""
    version_label: str | None
    """The version label that must answer, such as `stable`; not together with `version`."""
    explain: bool
    """Also say what the answer rests on; it costs about a hundred times as much, and not every version can."""


class ImageOptions(Options, total=False):
    """What goes with a question about pictures."""

    overlay: bool
    """With `explain`: also the attributions as a PNG to lay over the picture."""


@dataclass(frozen=True)
class Ask(Generic[Read]):
    """One request, and how its answer is read."""

    method: str
    path: str
    read: Callable[[httpx.Response], Read]
    query: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None
    media_type: str | None = None
    files: list[tuple[str, tuple[str, bytes]]] | None = None

    def understand(self, response: httpx.Response) -> Read:
        """What a response with status 200 says.

        Raises:
            ServiceFault: it is none of ours.
        """
        try:
            return self.read(response)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise ServiceFault(
                f"What {response.request.url} answered is no answer of a Sightread service: is this its address?",
                status=response.status_code,
            ) from error


@dataclass(frozen=True)
class Part(Generic[Raw, Found]):
    """As many items of a list as go into one request, and how that is made."""

    items: Sequence[Raw]
    make: Callable[[Sequence[Raw]], Ask[list[Found | ProblemOfItem]]]

    def ask(self) -> Ask[list[Found | ProblemOfItem]]:
        """The request."""
        return self.make(self.items)

    def after(self, error: SightreadError) -> "ProblemOfItem | tuple[Part[Raw, Found], Part[Raw, Found]]":
        """What follows from an error: the problem of a single item, or two halves of a part that was too large.

        Raises:
            SightreadError: neither; it concerns all items alike.
        """
        status = error.status
        if len(self.items) == 1 and status in OF_AN_ITEM:
            return ProblemOfItem(error.type, error.title, status, error.detail)
        if len(self.items) == 1 or status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise error
        middle = len(self.items) // 2
        return Part(self.items[:middle], self.make), Part(self.items[middle:], self.make)


def ask_image(picture: bytes, options: ImageOptions) -> Ask[ImageAnswer]:
    """One picture."""
    return _picture(picture, options, lambda response: _one(response, ImageAnswer))


def ask_text(text: str, options: Options) -> Ask[TextAnswer]:
    """One text."""
    return _texts({"text": text}, options, lambda response: _one(response, TextAnswer))


def ask_models() -> Ask[list[ModelState]]:
    """All models."""
    return Ask("GET", "models", lambda response: [ModelState.read(told) for told in response.json()["models"]])


def ask_model(name: str, version: int | None) -> Ask[ModelCard]:
    """One model's card."""
    query = {} if version is None else {"version": str(version)}
    return Ask("GET", f"models/{quote(name, safe='')}", lambda response: ModelCard.read(response.json()), query)


def parts_of_pictures(pictures: Iterable[Picture], options: ImageOptions) -> Iterator[Part[bytes, ImageAnswer]]:
    """A list of pictures in parts; each is read when its part is wanted.

    Raises:
        OSError: one cannot be read.
    """

    def make(items: Sequence[bytes]) -> Ask[list[ImageAnswer | ProblemOfItem]]:
        if len(items) == 1:  # a form with one file is answered as if it were no list
            return _picture(items[0], options, lambda response: [_one(response, ImageAnswer)])
        files = [("file", (str(number), picture)) for number, picture in enumerate(items)]
        return Ask("POST", "classify-image", _many(ImageAnswer, len(items)), _query(options), files=files)

    _refuse_single(pictures)
    return (Part(items, make) for items in _parts(map(read_picture, pictures), options))


def parts_of_texts(texts: Iterable[str], options: Options) -> Iterator[Part[str, TextAnswer]]:
    """A list of texts in parts."""

    def make(items: Sequence[str]) -> Ask[list[TextAnswer | ProblemOfItem]]:
        return _texts({"texts": items}, options, _many(TextAnswer, len(items)))

    _refuse_single(texts)
    return (Part(items, make) for items in _parts(texts, options))


def read_picture(picture: Picture) -> bytes:
    """The encoded picture.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(picture, str | os.PathLike):
        with open(picture, "rb") as file:  # noqa: PTH123  # a path of any kind
            return file.read()
    return picture if isinstance(picture, bytes) else picture.read()


def _refuse_single(items: object) -> None:
    if isinstance(items, str | bytes):
        raise TypeError("this takes a list; for a single item there is a method without the s")


def _parts(items: Iterable[Raw], options: Options) -> Iterator[list[Raw]]:
    most = EXPLAINED_AT_ONCE if options.get("explain") else ITEMS_AT_ONCE
    part: list[Raw] = []
    held = 0
    for item in items:
        if part and (len(part) == most or held + len(item) > BYTES_AT_ONCE):
            yield part
            part, held = [], 0
        part.append(item)
        held += len(item)
    if part:
        yield part


def _picture(picture: bytes, options: ImageOptions, read: Callable[[httpx.Response], Read]) -> Ask[Read]:
    return Ask("POST", "classify-image", read, _query(options), picture, "application/octet-stream")


def _texts(body: dict[str, Any], options: Options, read: Callable[[httpx.Response], Read]) -> Ask[Read]:
    # escaped, so that even a lone surrogate gets there, and gets its reason
    content = json.dumps(body).encode()
    return Ask("POST", "classify-text", read, _query(options), content, "application/json")


def _query(options: Options) -> dict[str, str]:
    values: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}


def _one(response: httpx.Response, kind: type[Found]) -> Found:
    told = response.json()
    return kind.read(told, model_version(told["model"]))


def _many(kind: type[Found], count: int) -> Callable[[httpx.Response], list[Found | ProblemOfItem]]:
    def read(response: httpx.Response) -> list[Found | ProblemOfItem]:
        told = response.json()
        model = model_version(told["model"])
        results: list[Found | ProblemOfItem] = [
            ProblemOfItem.read(result["problem"]) if "problem" in result else kind.read(result, model)
            for result in told["results"]
        ]
        if len(results) != count:
            raise ValueError(f"{len(results)} results for {count} items")
        return results

    return read
