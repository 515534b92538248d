"""The RPCs: TensorFlow Serving's status codes and texts.

Source of the texts: answers recorded from TensorFlow Serving, `tests/serving/tensorflow_serving/`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc
from tensorflow.python.framework import errors
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, GetModelStatusResponse
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from . import tensor
from .prediction import invalid, predict, signature_name
from .repository import Repository
from .servable import Servable

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class Service:
    """`PredictionService` and `ModelService` over a model repository.

    Args:
        repository: where the servables come from.
        max_batch_size: rows that one request may have; 0: any number.
    """

    def __init__(self, repository: Repository, max_batch_size: int = 0) -> None:
        self._repository = repository
        self._max_batch_size = max_batch_size

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a gRPC server needs; it answers UNIMPLEMENTED itself for every other method."""
        services: dict[str, dict[str, tuple[Callable[[Any], Any], Any, Any]]] = {
            "PredictionService": {
                "Predict": (self.predict, PredictRequest, PredictResponse),
                "GetModelMetadata": (self.model_metadata, GetModelMetadataRequest, GetModelMetadataResponse),
            },
            "ModelService": {"GetModelStatus": (self.model_status, GetModelStatusRequest, GetModelStatusResponse)},
        }
        return [
            grpc.method_handlers_generic_handler(
                f"tensorflow.serving.{service}",
                {
                    method: grpc.unary_unary_rpc_method_handler(
                        _with_status(behaviour), request.FromString, response.SerializeToString
                    )
                    for method, (behaviour, request, response) in methods.items()
                },
            )
            for service, methods in services.items()
        ]

    def predict(self, request: Any) -> Any:
        """Runs a signature of a version. Raises `errors.OpError`."""
        with self._servable(request) as (version, servable):
            outputs = predict(servable, request, self._max_batch_size)
        response = PredictResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        response.model_spec.signature_name = signature_name(request)
        for alias, dtype, value in outputs:
            tensor.write(value, dtype, response.outputs[alias])
        return response

    def model_metadata(self, request: Any) -> Any:
        """The signatures of a version. Raises `errors.OpError`."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        definitions = SignatureDefMap()
        response = GetModelMetadataResponse()
        with self._servable(request) as (version, servable):
            for name, signature in servable.signatures.items():
                definitions.signature_def[name].CopyFrom(signature.definition)
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        response.metadata["signature_def"].Pack(definitions)
        return response

    def model_status(self, request: Any) -> Any:
        """The states of one version or of all versions of a model. Raises `errors.OpError`."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        states = self._repository.states(spec.name)
        if spec.HasField("version"):
            version = spec.version.value
            if version not in states:
                raise errors.NotFoundError(None, None, f"Could not find version {version} of model {spec.name}")
            states = {version: states[version]}
        if not states:
            raise errors.NotFoundError(None, None, f"Could not find any versions of model {spec.name}")
        response = GetModelStatusResponse()
        for version, (state, error) in states.items():
            status = response.model_version_status.add(version=version, state=state)
            status.status.SetInParent()
            if error is not None:
                status.status.error_code = error.error_code
                status.status.error_message = error.message
        return response

    def _servable(self, request: Any) -> AbstractContextManager[tuple[int, Servable]]:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        match spec.WhichOneof("version_choice"):
            case "version":
                return self._repository.servable(spec.name, version=spec.version.value)
            case "version_label":
                return self._repository.servable(spec.name, label=spec.version_label)
            case _:
                return self._repository.servable(spec.name)


def _with_status(behaviour: Callable[[Any], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
    """A handler that answers with the status that TensorFlow's errors stand for: the codes are gRPC's own."""

    def handle(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return behaviour(request)
        except errors.OpError as error:
            context.abort(_CODES[error.error_code], error.message)

    return handle
