"""A PredictRequest, run on a servable: the checks of TensorFlow Serving and their texts."""

from typing import Any

import numpy as np
from tensorflow.python.framework import errors

from . import tensor
from .servable import Servable, Signature


def predict(servable: Servable, request: Any, max_batch_size: int = 0) -> list[tuple[str, int, Any]]:
    """Runs the signature that the request names.

    Args:
        servable: the version; the request's own words on model and version are not looked at.
        request: a `PredictRequest`.
        max_batch_size: rows that it may have; 0: any number.

    Returns:
        Name, `DataType` and value of each output.

    Raises:
        errors.OpError: with TensorFlow Serving's status and text.
    """
    signature = servable.signature(signature_name(request))
    arrays = _inputs(signature, request)
    _check_outputs(signature, request.output_filter)
    rows = max((array.shape[0] for array in arrays if array.ndim), default=0)
    if max_batch_size and rows > max_batch_size:
        raise invalid(f"Task size {rows} is larger than maximum input batch size {max_batch_size}")
    return signature.run(arrays, request.output_filter)


def signature_name(request: Any) -> str:
    """The signature that a request asks for."""
    return request.model_spec.signature_name or "serving_default"


def invalid(text: str) -> errors.InvalidArgumentError:
    """INVALID_ARGUMENT, with that text."""
    return errors.InvalidArgumentError(None, None, text)


def _inputs(signature: Signature, request: Any) -> list[np.ndarray[Any, Any]]:
    """The arrays of a request, in the order in which the signature takes them."""
    sent, defaults = set(request.inputs), signature.definition.defaults
    needed = set(signature.inputs)
    if len(sent) > len(needed) or (len(sent) < len(needed) and not defaults):
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(needed)} len({_braced(sent)}) != "
            f"len({_braced(needed)}). Sent extra: {_braced(sent - needed)}. "
            f"Missing but required: {_braced(needed - sent)}."
        )
    arrays = []
    for alias in signature.inputs:
        if alias not in sent and alias not in defaults:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {signature.definition.inputs[alias].name}) not found in "
                f"request and no default value provided. Inputs expected to be in the request {_braced(sent)}, "
                f"or default input alias set: {','.join(sorted(defaults))}"
            )
        try:
            arrays.append(tensor.read((request.inputs if alias in sent else defaults)[alias]))
        except (ValueError, MemoryError) as error:
            raise invalid(f"tensor parsing error: {alias}") from error
    return arrays


def _check_outputs(signature: Signature, wanted: Any) -> None:
    seen: set[str] = set()
    for alias in wanted:
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {_braced(set(signature.outputs))}."
            )
        if alias in seen:
            raise invalid(f"duplicate output tensor alias: {alias}")
        seen.add(alias)


def _braced(names: set[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
