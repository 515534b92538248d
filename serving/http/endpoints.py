"""The two endpoints that classify: how their requests are read, who answers, and how that is written down."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Scope

from serving.batching import Stages
from serving.classification import Classification, Classifier, Wanted
from serving.http.headers import header
from serving.http.requests import (
    Deadline,
    Items,
    is_picture,
    is_text,
    kind_of,
    read_images,
    read_texts,
    texts_in,
)
from serving.http.schemas import ImageOptions, Options
from serving.problems import Problem

IMAGE_PATH, TEXT_PATH = "/classify-image", "/classify-text"


@dataclass(frozen=True, eq=False)
class Endpoint:
    """One of them.

    Attributes:
        path: where it is.
        classifier: answers.
        options: what its query may say.
        read: a request → its items, whatever the body's type.
        takes: whether a body of this Content-Type is one that `items_in` can take apart.
        items_in: Content-Type and whole body → its items.
        is_list: a body that `items_in` takes apart, as far as it has come → whether it holds many items.
    """

    path: str
    classifier: Classifier
    options: type[Options]
    read: Callable[..., Awaitable[Items[Any]]]
    takes: Callable[[str], bool]
    items_in: Callable[..., Items[Any]]
    is_list: Callable[[bytes], bool]

    async def answer(self, scope: Scope, asked: Options, items: Items[Any], deadline: Deadline) -> Response:
        """Classify the items of a request, whose body has come.

        Args:
            scope: the request's; its `state` is told the version that answered.
            asked: what the query says.
            items: what is to be classified.
            deadline: of the answer.

        Raises:
            Problem: what concerns all items alike, or the only one.
        """
        classification = await self.classifier.classify(
            items.raw,
            deadline=deadline.at,
            wanted=Wanted(asked.top_k, asked.explain, overlay=isinstance(asked, ImageOptions) and asked.overlay),
            version=asked.version,
            label=asked.version_label,
            session=header(scope, b"x-session-id") or None,
        )
        scope["state"]["version"] = classification.version.number
        stages = deadline.stages(classification.stages)
        with self.classifier.encoding():
            body = to_json(_document(self.classifier.model.name, classification, many=items.many))
            return Answer(body, server_timing(stages))


def image_endpoint(classifier: Classifier) -> Endpoint:
    """`/classify-image`."""

    def takes(content_type: str) -> bool:
        return is_picture(kind_of(content_type))

    def items_in(_: str, body: bytes, *, max_items: int) -> Items[bytes]:
        del max_items  # there is one
        return Items([body], many=False)

    def is_list(_: bytes) -> bool:
        return False

    return Endpoint(IMAGE_PATH, classifier, ImageOptions, read_images, takes, items_in, is_list)


def text_endpoint(classifier: Classifier) -> Endpoint:
    """`/classify-text`."""

    def items_in(content_type: str, body: bytes, *, max_items: int) -> Items[str]:
        return texts_in(kind_of(content_type), body, max_items=max_items)

    def is_list(body: bytes) -> bool:
        return b'"texts"' in body

    return Endpoint(TEXT_PATH, classifier, Options, read_texts, is_text, items_in, is_list)


class Answer(Response):
    """A JSON document. Starlette's own initialisation can do much more, and takes thrice as long."""

    def __init__(self, body: bytes, timing: str) -> None:
        self.status_code = 200
        self.body = body
        self.background = None
        self.raw_headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
            (b"server-timing", timing.encode()),
        ]


def server_timing(stages: Stages) -> str:
    """Seconds → the header's milliseconds (W3C Server Timing): browsers' tools draw them."""
    return ", ".join([f"{stage};dur={1000 * seconds:.2f}" for stage, seconds in stages.items()])


def _document(model: str, classification: Classification, *, many: bool) -> dict[str, Any]:
    answered_by = {"name": model, "version": classification.version.number}
    if many:
        results = [
            {"problem": outcome.document()} if isinstance(outcome, Problem) else outcome
            for outcome in classification.outcomes
        ]
        return {"results": results, "model": answered_by}
    (outcome,) = classification.outcomes
    if isinstance(outcome, Problem):
        raise outcome
    return {**outcome, "model": answered_by}
