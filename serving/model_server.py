"""The model server as the gateway sees it: TensorFlow Serving's gRPC, and what its statuses mean for a client."""

import asyncio
import logging
import math
import random
import re
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import numpy as np
from numpy.typing import NDArray

from serving import contract
from serving.certificates import Certificates, Held, credentials
from serving.explanation import Explanation
from serving.metrics import Metrics
from serving.problems import DeadlineExceeded, Overloaded, Problem, Unavailable, UnknownVersion
from serving.tensorflow_serving_protocol import (
    DT_FLOAT,
    DT_INT32,
    DT_INT64,
    DT_STRING,
    DT_UINT8,
    GetModelMetadataRequest,
    GetModelStatusRequest,
    ModelServiceStub,
    ModelSpec,
    ModelVersionStatus,
    PredictionServiceStub,
    PredictRequest,
    PredictResponse,
    TensorProto,
)

logger = logging.getLogger("sightread.model_server")

GRACE_SECONDS = 60.0
LOOK_SECONDS = 2.0
"""For which a new channel looks for the model server: it asks for its address at once, and again after a second."""
CHANNEL_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # a model server that came back is found within a second: at its address …
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # … or at another one, while others go on; where none does, see `follow_address`
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    # a connection whose other end is gone without a word is given up, and its calls go elsewhere; the last of the three
    # is what later versions of gRPC take for the second
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
)
WIRE_DTYPES = {np.dtype(np.uint8): DT_UINT8, np.dtype(np.int32): DT_INT32}
VALUES: dict[int, tuple[np.dtype[Any], str]] = {
    DT_FLOAT: (np.dtype("<f4"), "float_val"),
    DT_INT64: (np.dtype("<i8"), "int64_val"),
}
"""Of the outputs: their dtype, and the field in which they come where they do not come as `tensor_content`."""
QUEUE_FULL = re.compile(r"queue .*\bfull\b")
"""In the text of UNAVAILABLE when TensorFlow Serving's batching queue is full; a dead channel's text lacks it."""
GONE = re.compile(r"Servable not found|Could not find any versions|Could not find version")
"""In the text of NOT_FOUND when it speaks of a version; a kernel's own NOT_FOUND speaks of something else."""
MERGED = "padding is turned off"
"""In the text of FAILED_PRECONDITION when server-side batching merged two calls of texts of different lengths."""
ATTEMPTS = 3
MOMENT = 0.02
"""Seconds in which a channel learns that a connection of its has broken: asked at once, it may take the same again."""
STATUS_SECONDS = 5.0
"""For which a question about versions may go unanswered."""


class Refused(Exception):
    """The model server understood the call and refused it: the version is not what the gateway takes it for."""


@dataclass(frozen=True)
class VersionStatus:
    """What the model server says of a version."""

    version: int
    state: str
    error: str

    @property
    def available(self) -> bool:
        """Whether the server answers Predict for it."""
        return self.state == "AVAILABLE"


class ModelServer:
    """A model server at a gRPC target.

    Every call raises Unavailable (nobody answers), Overloaded (it answers that it is full), DeadlineExceeded,
    UnknownVersion (it has no such version) or Refused.
    """

    def __init__(
        self, target: str, certificates: Certificates | None = None, *, metrics: Metrics | None = None
    ) -> None:
        self.target = target
        self._metrics = metrics
        self._certificates = certificates
        self._held: Held | None = None
        self._is_lost = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Calls can be made for as long as the context lasts. Nothing is sent before the first one.

        Raises:
            OSError: a certificate cannot be read.
        """
        self._held = self._certificates.read() if self._certificates else None
        self._use(self._channel_to_target())
        try:
            yield
        finally:
            await self._channel.close()

    async def follow_certificates(self, poll_seconds: float) -> NoReturn:
        """When the certificates' files change, go on over a new channel, for ever; calls on the old one finish."""
        while True:
            await asyncio.sleep(poll_seconds)
            if self._certificates is None:
                continue
            try:
                held = self._certificates.read()
            except OSError as error:
                logger.error("the certificates stay as they were: %s", error)  # noqa: TRY400  # it says it all
                continue
            if held == self._held:
                continue
            self._held = held
            self._replace(self._channel_to_target())
            logger.info("certificates read anew")

    async def follow_address(self) -> NoReturn:
        """When nobody answers, look for the model server over new channels, for ever.

        A channel whose target has no address, as the name of a headless Service while none of its pods is ready, asks
        for it ever more seldom, up to two minutes apart.
        """
        while True:
            await self._is_lost.wait()
            self._is_lost.clear()
            try:
                await self._find_again(self._channel)
            except Exception:
                logger.exception("looking for the model server failed; going on")

    async def _find_again(self, lost: grpc.aio.Channel) -> None:
        while self._channel is lost and not _is_ready(lost):
            new = self._channel_to_target()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await new.channel_ready()
            if self._channel is lost and _is_ready(new):
                self._replace(new)
            else:
                await new.close()

    def _channel_to_target(self) -> grpc.aio.Channel:
        if self._held is None:
            return grpc.aio.insecure_channel(self.target, options=CHANNEL_OPTIONS)
        return grpc.aio.secure_channel(self.target, credentials(self._held), options=CHANNEL_OPTIONS)

    def _replace(self, channel: grpc.aio.Channel) -> None:
        """Go on over another channel; calls on the old one finish."""
        closing = asyncio.create_task(self._channel.close(grace=GRACE_SECONDS))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._use(channel)

    def _use(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._prediction = PredictionServiceStub(channel)
        self._model = ModelServiceStub(channel)

    async def versions(self, model: str, *, timeout: float) -> list[VersionStatus]:  # noqa: ASYNC109  # gRPC's own deadline
        """All versions of a model that the server knows of, ended ones too."""
        request = GetModelStatusRequest(model_spec=ModelSpec(name=model))
        response = await self._answer(self._model.GetModelStatus(request, timeout=timeout))
        return [
            VersionStatus(status.version, ModelVersionStatus.State.Name(status.state), status.status.error_message)
            for status in response.model_version_status
        ]

    async def labelled(self, model: str, label: str, *, timeout: float) -> int:  # noqa: ASYNC109
        """The version that carries a label."""
        request = GetModelMetadataRequest(
            model_spec=ModelSpec(name=model, version_label=label), metadata_field=["signature_def"]
        )
        response = await self._answer(self._prediction.GetModelMetadata(request, timeout=timeout))
        return int(response.model_spec.version.value)

    async def contract(self, model: str, version: int, *, timeout: float) -> bytes:  # noqa: ASYNC109
        """The contract's JSON, as a version tells it."""
        request = PredictRequest(model_spec=_spec(model, version, contract.SIGNATURE))
        request.inputs[contract.REQUEST].CopyFrom(_tensor(DT_STRING, (1,)))
        request.inputs[contract.REQUEST].string_val.append(b"")
        response = await self._predict(request, timeout)
        values = response.outputs[contract.CONTRACT].string_val
        if len(values) != 1:
            raise Refused(f"its signature {contract.SIGNATURE!r} answered {len(values)} values to one request")
        return bytes(values[0])

    async def predict(
        self,
        model: str,
        version: int,
        batch: NDArray[np.uint8] | NDArray[np.int32],
        *,
        input_name: str,
        output_name: str,
        timeout: float,  # noqa: ASYNC109
        traceparent: str | None = None,
    ) -> list[list[float]]:
        """A batch [n, …] through one version → its output, float32 [n, labels], as numbers."""
        request = PredictRequest(model_spec=_spec(model, version), output_filter=[output_name])
        request.inputs[input_name].CopyFrom(tensor_of(batch))
        response = await self._predict_again(request, timeout, traceparent)
        return _rows(response.outputs[output_name], len(batch))

    async def explain(
        self,
        model: str,
        version: int,
        batch: NDArray[np.uint8] | NDArray[np.int32],
        *,
        signature: str,
        input_name: str,
        timeout: float,  # noqa: ASYNC109
        traceparent: str | None = None,
    ) -> list[Explanation]:
        """A batch [n, height, width, channels] or [n, length] through one version's explain signature."""
        request = PredictRequest(model_spec=_spec(model, version, signature))
        request.inputs[input_name].CopyFrom(tensor_of(batch))
        outputs = (await self._predict_again(request, timeout, traceparent)).outputs
        attributions = _array(outputs[contract.ATTRIBUTION], DT_FLOAT, batch.shape[:3])
        labels = _array(outputs[contract.LABEL], DT_INT64, batch.shape[:1])
        scores = _array(outputs[contract.SCORE], DT_FLOAT, batch.shape[:1])
        return [
            Explanation(attribution, int(label), float(score))
            for attribution, label, score in zip(attributions, labels, scores, strict=True)
        ]

    async def _predict_again(self, request: PredictRequest, timeout: float, traceparent: str | None) -> PredictResponse:  # noqa: ASYNC109
        """Once more where that can help: a prediction changes nothing. Never where the server said that it is full."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._predict(request, deadline - loop.time(), traceparent)
            except Unavailable:
                if attempt > 1:  # two servers of many may be gone, or the only one
                    raise
                await asyncio.sleep(MOMENT)
            except Refused as refused:
                if MERGED not in str(refused) or attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(random.uniform(0, MOMENT))  # noqa: S311  # so as not to meet the same call again
            if self._metrics is not None:
                self._metrics.retries(request.model_spec.name).inc()
        raise AssertionError("the last attempt returns or raises")

    async def _predict(
        self,
        request: PredictRequest,
        timeout: float,  # noqa: ASYNC109
        traceparent: str | None = None,
    ) -> PredictResponse:
        metadata = (("traceparent", traceparent),) if traceparent else None
        call = self._prediction.Predict(request, timeout=timeout, metadata=metadata)
        response: PredictResponse = await self._answer(call)
        served = response.model_spec.version.value
        if served != request.model_spec.version.value:
            raise Refused(f"version {request.model_spec.version.value} was asked and version {served} answered")
        return response

    async def _answer(self, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise self._problem(error) from error

    def _problem(self, error: grpc.aio.AioRpcError) -> Problem | Refused:
        details = error.details() or ""
        match error.code():
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return DeadlineExceeded("The model server did not answer within the deadline.")
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                return Overloaded("The model server is full.", retry_after=1)
            case grpc.StatusCode.UNAVAILABLE if QUEUE_FULL.search(details):
                return Overloaded("The model server's queue is full.", retry_after=1)
            case (
                grpc.StatusCode.UNAVAILABLE
                | grpc.StatusCode.CANCELLED
                | grpc.StatusCode.INTERNAL
                | grpc.StatusCode.UNKNOWN
                | grpc.StatusCode.ABORTED
            ):
                # all of these are how a connection that breaks in the middle of a call looks from here
                self._is_lost.set()
                return Unavailable(f"The model server at {self.target} cannot be reached.", retry_after=1)
            case grpc.StatusCode.NOT_FOUND if GONE.search(details):
                return UnknownVersion(f"The model server answers: {details}.")
            case code:
                return Refused(f"the model server answers {code.name}: {details}")


def _is_ready(channel: grpc.aio.Channel) -> bool:
    return channel.get_state() is grpc.ChannelConnectivity.READY


def _spec(model: str, version: int, signature: str = "serving_default") -> ModelSpec:
    spec = ModelSpec(name=model, signature_name=signature)
    spec.version.value = version
    return spec


def _tensor(dtype: int, shape: Sequence[int]) -> TensorProto:
    tensor = TensorProto(dtype=dtype)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def tensor_of(batch: NDArray[np.uint8] | NDArray[np.int32]) -> TensorProto:
    """A batch as it goes over the wire."""
    tensor = _tensor(WIRE_DTYPES[batch.dtype], batch.shape)
    tensor.tensor_content = batch.tobytes()
    return tensor


def _rows(tensor: TensorProto, count: int) -> list[list[float]]:
    """An output of so many rows, float32 [rows, labels], as numbers: for a few of them an array would be a detour."""
    shape = _shape(tensor, DT_FLOAT)
    content = tensor.tensor_content
    values = np.frombuffer(content, VALUES[DT_FLOAT][0]).tolist() if content else list(tensor.float_val)
    match shape:
        case [rows, labels] if rows == count and len(values) == rows * labels:
            return [values[row * labels : (row + 1) * labels] for row in range(rows)]
    raise _misfit(shape, count)


def _array(tensor: TensorProto, dtype: int, expected: Sequence[int]) -> NDArray[Any]:
    """An output as an array."""
    kind, values = VALUES[dtype]
    shape = _shape(tensor, dtype)
    array: NDArray[Any] = (
        np.frombuffer(tensor.tensor_content, dtype=kind)
        if tensor.tensor_content
        else np.array(getattr(tensor, values), dtype=kind)
    )
    if shape != list(expected) or array.size != math.prod(shape):
        raise _misfit(shape, expected[0])
    return array.reshape(shape)


def _shape(tensor: TensorProto, dtype: int) -> list[int]:
    if tensor.dtype != dtype:
        raise Refused(f"its output is not {VALUES[dtype][0].name}")
    return [dim.size for dim in tensor.tensor_shape.dim]


def _misfit(shape: list[int], rows: int) -> Refused:
    return Refused(f"its output has shape {shape} for {rows} rows")
