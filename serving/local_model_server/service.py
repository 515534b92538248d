"""The RPCs: TensorFlow Serving's status codes and texts.

Source of the texts: answers recorded from TensorFlow Serving, `tests/serving/tensorflow_serving/`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, GetModelStatusResponse
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from . import tensor
from .repository import Repository
from .servable import Servable, Signature

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
        """Runs a signature of a version. Raises `tf.errors.OpError`."""
        with self._servable(request) as (version, servable):
            name = request.model_spec.signature_name or "serving_default"
            signature = servable.signature(name)
            arrays = _inputs(signature, request)
            _check_outputs(signature, request.output_filter)
            rows = max((array.shape[0] for array in arrays if array.ndim), default=0)
            if self._max_batch_size and rows > self._max_batch_size:
                raise _invalid(f"Task size {rows} is larger than maximum input batch size {self._max_batch_size}")
            outputs = signature.run(arrays, request.output_filter)
        response = PredictResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        response.model_spec.signature_name = name
        for alias, dtype, value in outputs:
            tensor.write(value, dtype, response.outputs[alias])
        return response

    def model_metadata(self, request: Any) -> Any:
        """The signatures of a version. Raises `tf.errors.OpError`."""
        if not request.HasField("model_spec"):
            raise _invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise _invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise _invalid(f"Metadata field {field} is not supported")
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
        """The states of one version or of all versions of a model. Raises `tf.errors.OpError`."""
        if not request.HasField("model_spec"):
            raise _invalid("Missing ModelSpec")
        spec = request.model_spec
        states = self._repository.states(spec.name)
        if spec.HasField("version"):
            version = spec.version.value
            if version not in states:
                raise tf.errors.NotFoundError(None, None, f"Could not find version {version} of model {spec.name}")
            states = {version: states[version]}
        if not states:
            raise tf.errors.NotFoundError(None, None, f"Could not find any versions of model {spec.name}")
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
            raise _invalid("Missing ModelSpec")
        spec = request.model_spec
        if not spec.name:
            raise _invalid("ModelSpec has no name specified.")
        match spec.WhichOneof("version_choice"):
            case "version":
                return self._repository.servable(spec.name, version=spec.version.value)
            case "version_label":
                return self._repository.servable(spec.name, label=spec.version_label)
            case _:
                return self._repository.servable(spec.name)


def _inputs(signature: Signature, request: Any) -> list[np.ndarray[Any, Any]]:
    """The arrays of a request, in the order in which the signature takes them."""
    sent, defaults = set(request.inputs), signature.definition.defaults
    needed = set(signature.inputs)
    if len(sent) > len(needed) or (len(sent) < len(needed) and not defaults):
        raise _invalid(
            f"input size does not match signature: {len(sent)}!={len(needed)} len({_braced(sent)}) != "
            f"len({_braced(needed)}). Sent extra: {_braced(sent - needed)}. "
            f"Missing but required: {_braced(needed - sent)}."
        )
    arrays = []
    for alias in signature.inputs:
        if alias not in sent and alias not in defaults:
            raise _invalid(
                f"Signature input alias: {alias}(feed name: {signature.definition.inputs[alias].name}) not found in "
                f"request and no default value provided. Inputs expected to be in the request {_braced(sent)}, "
                f"or default input alias set: {','.join(sorted(defaults))}"
            )
        try:
            arrays.append(tensor.read((request.inputs if alias in sent else defaults)[alias]))
        except (ValueError, MemoryError) as error:
            raise _invalid(f"tensor parsing error: {alias}") from error
    return arrays


def _check_outputs(signature: Signature, wanted: Any) -> None:
    seen: set[str] = set()
    for alias in wanted:
        if alias not in signature.outputs:
            raise _invalid(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {_braced(set(signature.outputs))}."
            )
        if alias in seen:
            raise _invalid(f"duplicate output tensor alias: {alias}")
        seen.add(alias)


def _braced(names: set[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _invalid(text: str) -> tf.errors.InvalidArgumentError:
    return tf.errors.InvalidArgumentError(None, None, text)


def _with_status(behaviour: Callable[[Any], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
    """A handler that answers with the status that TensorFlow's errors stand for: the codes are gRPC's own."""

    def handle(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return behaviour(request)
        except tf.errors.OpError as error:
            context.abort(_CODES[error.error_code], error.message)

    return handle
