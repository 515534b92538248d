"""The client for asyncio."""

import asyncio
import ssl
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

PARTS_AT_ONCE = 4
"""Of one list."""


class AsyncClient:
    """Asks a Sightread service. Every method raises SightreadError; several tasks may share one client.

    Args:
        url: where the service is.
        api_key: the key that opens it, where it wants one.
        timeout: seconds for one request with all its attempts; the service is told. A long list is several requests.
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
        self._http = httpx.AsyncClient(**self._connection.options())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def classify_image(self, picture: Picture, **options: Unpack[ImageOptions]) -> ImageAnswer:
        """What a picture shows. Raises OSError, too, where it cannot be read."""
        return await self._ask(ask_image(await asyncio.to_thread(read_picture, picture), options))

    async def classify_images(
        self, pictures: Iterable[Picture], **options: Unpack[ImageOptions]
    ) -> list[ImageAnswer | ProblemOfItem]:
        """What many pictures show, in their order. Raises OSError, too, where one cannot be read."""
        return await self._ask_parts(parts_of_pictures(pictures, options))

    async def classify_text(self, text: str, **options: Unpack[Options]) -> TextAnswer:
        """What a text says."""
        return await self._ask(ask_text(text, options))

    async def classify_texts(
        self, texts: Iterable[str], **options: Unpack[Options]
    ) -> list[TextAnswer | ProblemOfItem]:
        """What many texts say, in their order."""
        return await self._ask_parts(parts_of_texts(texts, options))

    async def models(self) -> list[ModelState]:
        """The service's models, their versions and whether those take traffic."""
        return await self._ask(ask_models())

    async def model(self, name: str, *, version: int | None = None) -> ModelCard:
        """What a version of a model says of itself; of the one that answers unless told otherwise."""
        return await self._ask(ask_model(name, version))

    async def is_ready(self) -> bool:
        """Whether every model has a version that takes traffic. Asked once; no answer is a no."""
        try:
            return (await self._http.get("readyz", timeout=self._connection.timeout)).status_code == HTTPStatus.OK
        except httpx.TransportError:
            return False

    async def _ask_parts(self, parts: Iterator[Part[Raw, Found]]) -> list[Found | ProblemOfItem]:
        gate = asyncio.Semaphore(PARTS_AT_ONCE)
        answered: dict[int, Found | ProblemOfItem] = {}

        async def ask(part: Part[Raw, Found], start: int) -> None:
            try:
                answered.update(enumerate(await self._ask_part(part), start))
            finally:
                gate.release()

        count = 0
        try:
            async with asyncio.TaskGroup() as group:
                # a part is read, in a thread for it may be a file, when it can be sent
                while await gate.acquire() and (part := await asyncio.to_thread(next, parts, None)):
                    group.create_task(ask(part, count))
                    count += len(part.items)
        except ExceptionGroup as errors:
            error = errors.exceptions[0]
            if isinstance(error, SightreadError):
                error.answered = dict(sorted(answered.items()))
            raise error from None
        return [answered[place] for place in range(count)]

    async def _ask_part(self, part: Part[Raw, Found]) -> list[Found | ProblemOfItem]:
        try:
            return await self._ask(part.ask())
        except SightreadError as error:
            after = part.after(error)
            if isinstance(after, ProblemOfItem):
                return [after]
            return [result for half in after for result in await self._ask_part(half)]

    async def _ask(self, ask: Ask[Read]) -> Read:
        attempts = self._connection.attempts()
        while True:
            outcome = await self._send(ask, attempts)
            if isinstance(outcome, httpx.Response) and outcome.is_success:
                return ask.understand(outcome)
            await asyncio.sleep(attempts.pause_after(outcome))

    async def _send(self, ask: Ask[Any], attempts: Attempts) -> httpx.Response | Exception:
        try:
            async with asyncio.timeout(attempts.seconds_left):
                return await self._http.request(**request_options(ask, attempts.seconds_left))
        except (httpx.RequestError, TimeoutError) as error:
            return error
