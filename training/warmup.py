"""Warm-up requests: what a version answers before it takes traffic, so that its first user does not wait.

TensorFlow optimizes a signature's graph when it is first called, which takes a thousand times as long as a call. A
model server that finds requests in the version's `assets.extra` sends them before the version is AVAILABLE, and does
not serve a version that fails at one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from serving.contract import REQUEST, SIGNATURE, Contract
from serving.preprocessing import preprocessor_for

REQUESTS = Path("assets.extra", "tf_serving_warmup_requests")
BATCHES = (1, 2, 4, 8)
"""Rows: every contract has so many golden examples, and every model server takes so many."""
MOST_BYTES = 2**18
"""Larger batches of large pictures are left out: the file travels with the version."""

Array = NDArray[Any]


def write_warmup(folder: Path, contract: Contract, *, name: str, signature: str) -> None:
    """Write a SavedModel's warm-up requests: its golden examples, as the gateway would send them.

    Args:
        folder: of the SavedModel.
        contract: what it says of itself.
        name: of the model.
        signature: that answers `contract.output`.

    Raises:
        OSError: the file's folder cannot be made.
        tf.errors.OpError: the file cannot be written.
    """
    path = folder / REQUESTS
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as file:
        for request in requests(contract, name=name, signature=signature):
            log = PredictionLog()
            log.predict_log.request.CopyFrom(request)
            file.write(log.SerializeToString())


def read_warmup(folder: Path) -> Iterator[PredictRequest]:
    """A SavedModel's warm-up requests."""
    for record in tf.data.TFRecordDataset(str(folder / REQUESTS)).as_numpy_iterator():
        yield PredictionLog.FromString(record).predict_log.request


def requests(contract: Contract, *, name: str, signature: str) -> Iterator[PredictRequest]:
    """The contract, batches of golden examples, and where answers can be explained that of one."""
    yield _request(name, SIGNATURE, REQUEST, np.array([b""], dtype=object))
    preprocessor = preprocessor_for(contract.input)
    rows = sorted((preprocessor.prepare(example.raw) for example in contract.golden.examples), key=len)
    for number, size in enumerate(BATCHES):
        # short texts first, long ones last
        start = number * (len(rows) - size) // (len(BATCHES) - 1)
        batch = preprocessor.collate(rows[start : start + size])
        if size == 1 or batch.nbytes <= MOST_BYTES:
            yield _request(name, signature, contract.input.name, batch)
    if contract.explain is not None:
        yield _request(name, contract.explain, contract.input.name, preprocessor.collate([rows[len(rows) // 2]]))


def _request(name: str, signature: str, key: str, value: Array) -> PredictRequest:
    request = PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return request
