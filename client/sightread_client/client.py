"""The client that waits for each answer."""

import ssl
import time
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from sightread_client.answers import ImageAnswer, ModelCard, ModelState, ProblemOfItem, TextAnswer
from sightread_client.asking import (
    Ask,
    Found,
    ImageOptions,
    Options,
    Part,
    Picture,
    Raw,
    ask_image,
    ask_model,
    ask_models,
    ask_text,
    parts_of_pictures,
    parts_of_texts,
    read_picture,
)
from sightread_client.connecting import Connection, request_options
from sightread_client.errors import SightreadError
from sightread_client.retrying import Attempts

Read = TypeVar("Read")


class Client:
    """Asks a Sightread service. Every method raises SightreadError; several threads may share one client.

    Args:
        url: where the service is.
        api_key: the key that opens it, where it wants one.
        timeout: seconds for one request with all its attempts; the service is told. A long list is several requests.
            It may wait that long again for each piece that it sends or gets; AsyncClient does not.
        retries: how often a request may be sent again: after 429 and 503, and where the connection failed.
        verify: how the service's certificate is checked, as httpx takes it.

    Raises:
        ValueError: the address, the key or the timeout is none.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._connection = Connection(url, api_key, timeout, retries, verify)
        self._http = httpx.Client(**self._connection.options())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def classify_image(self, picture: Picture, **options: Unpack[ImageOptions]) -> ImageAnswer:
        """What a picture shows. Raises OSError, too, where it cannot be read."""
        return self._ask(ask_image(read_picture(picture), options))

    def classify_images(
        self, pictures: Iterable[Picture], **options: Unpack[ImageOptions]
    ) -> list[ImageAnswer | ProblemOfItem]:
        """What many pictures show, in their order. Raises OSError, too, where one cannot be read."""
        return self._ask_parts(parts_of_pictures(pictures, options))

    def classify_text(self, text: str, **options: Unpack[Options]) -> TextAnswer:
        """What a text says."""
        return self._ask(ask_text(text, options))

    def classify_texts(self, texts: Iterable[str], **options: Unpack[Options]) -> list[TextAnswer | ProblemOfItem]:
        """What many texts say, in their order."""
        return self._ask_parts(parts_of_texts(texts, options))

    def models(self) -> list[ModelState]:
        """The service's models, their versions and whether those take traffic."""
        return self._ask(ask_models())

    def model(self, name: str, *, version: int | None = None) -> ModelCard:
        """What a version of a model says of itself; of the one that answers unless told otherwise."""
        return self._ask(ask_model(name, version))

    def is_ready(self) -> bool:
        """Whether every model has a version that takes traffic. Asked once; no answer is a no."""
        try:
            return self._http.get("readyz", timeout=self._connection.timeout).status_code == HTTPStatus.OK
        except httpx.TransportError:
            return False

    def _ask_parts(self, parts: Iterator[Part[Raw, Found]]) -> list[Found | ProblemOfItem]:
        answered: dict[int, Found | ProblemOfItem] = {}
        try:
            for part in parts:
                answered.update(enumerate(self._ask_part(part), start=len(answered)))
        except SightreadError as error:
            error.answered = answered
            raise
        return list(answered.values())

    def _ask_part(self, part: Part[Raw, Found]) -> Iterator[Found | ProblemOfItem]:
        try:
            yield from self._ask(part.ask())
        except SightreadError as error:
            after = part.after(error)
            if isinstance(after, ProblemOfItem):
                yield after
                return
            for half in after:
                yield from self._ask_part(half)

    def _ask(self, ask: Ask[Read]) -> Read:
        attempts = self._connection.attempts()
        while True:
            outcome = self._send(ask, attempts)
            if isinstance(outcome, httpx.Response) and outcome.is_success:
                return ask.understand(outcome)
            time.sleep(attempts.pause_after(outcome))

    def _send(self, ask: Ask[Any], attempts: Attempts) -> httpx.Response | Exception:
        try:
            with self._http.stream(**request_options(ask, attempts.seconds_left)) as response:
                pieces = []
                for piece in response.iter_raw():
                    pieces.append(piece)
                    # httpx's timeout is for each piece, the deadline for all of them
                    if attempts.seconds_left <= 0:
                        return TimeoutError()
                return httpx.Response(
                    response.status_code, headers=response.headers, content=b"".join(pieces), request=response.request
                )
        except httpx.RequestError as error:
            return error
