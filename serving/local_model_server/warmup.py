"""Warm-up: a version answers the requests that it brings along before anybody else's.

Source of behaviour and texts: TensorFlow Serving, `servables/tensorflow/saved_model_warmup_util.cc`.
"""

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorflow.python.framework import errors
from tensorflow.python.lib.io.tf_record import tf_record_iterator
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from .prediction import invalid, predict
from .servable import Servable

REQUESTS = Path("assets.extra", "tf_serving_warmup_requests")
MOST_RECORDS = 1000


def warm_up(servable: Servable, folder: Path, max_batch_size: int = 0) -> int:
    """Runs a version's warm-up requests, one after the other.

    Args:
        servable: the version, loaded.
        folder: where it lies; it may bring no requests.
        max_batch_size: rows that one request may have; 0: any number.

    Returns:
        How many requests there were.

    Raises:
        errors.OpError: the file cannot be read, or a request fails: such a version is not to be served.
    """
    path = folder / REQUESTS
    number = 0
    for record in _records(path) if path.exists() else ():
        try:
            log = PredictionLog.FromString(record)
        except DecodeError as error:
            text = record.decode(errors="replace")
            raise invalid(f"Failed to parse warmup record: {text} from {path}") from error
        match log.WhichOneof("log_type"):
            case "predict_log":
                predict(servable, log.predict_log.request, max_batch_size)
            case None:
                pass
            case kind:  # TensorFlow Serving runs Classify, Regress and MultiInference too; here nobody answers them
                field = PredictionLog.DESCRIPTOR.fields_by_name[kind]
                raise errors.UnimplementedError(None, None, f"Unsupported log_type for warmup: {field.number}")
        number += 1
        if number > MOST_RECORDS:
            raise invalid(f"Number of warmup records exceeds the maximum ({MOST_RECORDS}) at {path}")
    return number


def _records(path: Path) -> Iterator[bytes]:
    try:
        yield from tf_record_iterator(str(path))
    except errors.DataLossError as error:
        raise errors.DataLossError(
            None, None, f"{error.message}. Please verify your warmup data is in TFRecord format."
        ) from error
