"""TensorFlow Serving's messages and stubs, without TensorFlow.

The modules of `tensorflow-serving-api` import `tensorflow.core.…_pb2`, and that would run TensorFlow's own
`__init__`: 600 MB resident for a few message classes. While they load, a bare `tensorflow` module stands in whose
`__path__` is the installed package's folder; afterwards it goes again, so that a process may still import the real
one. It works as well where only the `_pb2` files of the two wheels are installed, as in the gateway's image.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from serving.bare_package import stand_in


@contextmanager
def bare_tensorflow() -> Iterator[None]:
    if "tensorflow" in sys.modules:
        yield
        return
    stand_in("tensorflow")
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name == "tensorflow" or name.startswith("tensorflow.")]:
            del sys.modules[name]


with bare_tensorflow():
    from tensorflow.core.framework.tensor_pb2 import TensorProto
    from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
    from tensorflow.core.framework.types_pb2 import DT_FLOAT, DT_INT32, DT_INT64, DT_STRING, DT_UINT8
    from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, GetModelMetadataResponse
    from tensorflow_serving.apis.get_model_status_pb2 import (
        GetModelStatusRequest,
        GetModelStatusResponse,
        ModelVersionStatus,
    )
    from tensorflow_serving.apis.model_pb2 import ModelSpec
    from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
    from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

__all__ = [
    "DT_FLOAT",
    "DT_INT32",
    "DT_INT64",
    "DT_STRING",
    "DT_UINT8",
    "GetModelMetadataRequest",
    "GetModelMetadataResponse",
    "GetModelStatusRequest",
    "GetModelStatusResponse",
    "ModelServiceStub",
    "ModelSpec",
    "ModelVersionStatus",
    "PredictRequest",
    "PredictResponse",
    "PredictionServiceStub",
    "TensorProto",
    "TensorShapeProto",
]
