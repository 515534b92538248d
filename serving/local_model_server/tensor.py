"""TensorProto to NumPy and back, as TensorFlow Serving reads and writes it."""

import math
from typing import Any

import numpy as np
from tensorflow.python.framework import dtypes, tensor_util

# The field that holds the values of a dtype, and what they are seen as where the field's type is another one.
_FIELDS: dict[Any, tuple[str, type | None]] = {
    dtypes.float32: ("float_val", None),
    dtypes.float64: ("double_val", None),
    dtypes.float16: ("half_val", np.uint16),
    dtypes.bfloat16: ("half_val", np.uint16),
    dtypes.int8: ("int_val", None),
    dtypes.int16: ("int_val", None),
    dtypes.int32: ("int_val", None),
    dtypes.uint8: ("int_val", None),
    dtypes.uint16: ("int_val", None),
    dtypes.int64: ("int64_val", None),
    dtypes.uint32: ("uint32_val", None),
    dtypes.uint64: ("uint64_val", None),
    dtypes.bool: ("bool_val", None),
    dtypes.string: ("string_val", None),
    dtypes.complex64: ("scomplex_val", np.float32),
    dtypes.complex128: ("dcomplex_val", np.float64),
}

_MOST_ELEMENTS = 2**26
"""A few bytes can name a shape that no machine has the memory for: values left out are filled in."""


def read(proto: Any) -> np.ndarray[Any, Any]:
    """A TensorProto's array: read-only, and a view of its `tensor_content` where it has one.

    Fewer values than elements: the last one is repeated; none: zeros (or empty strings).

    Raises:
        ValueError: it is of an unknown dtype or rank, or its values do not fill its shape.
    """
    try:
        dtype = dtypes.as_dtype(proto.dtype)
        field, _ = _FIELDS[dtype]
    except (TypeError, KeyError) as error:
        raise ValueError(f"dtype {proto.dtype} is not read") from error
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise ValueError("the shape is not known")
    if math.prod(shape) > _MOST_ELEMENTS:
        raise ValueError(f"the shape {shape} has more than {_MOST_ELEMENTS:,} elements")
    if proto.tensor_content:
        return np.frombuffer(proto.tensor_content, dtype.as_numpy_dtype).reshape(shape)
    if not getattr(proto, field):
        return np.full(shape, b"" if dtype == dtypes.string else 0, dtype.as_numpy_dtype)
    try:
        array: np.ndarray[Any, Any] = tensor_util.MakeNdarray(proto)
    except (OverflowError, TypeError) as error:
        raise ValueError(f"a value is not one of {dtype.name}") from error
    return array


def write(array: Any, dtype: int, proto: Any) -> None:
    """Fills an empty TensorProto from what a session returned for one output.

    TensorFlow Serving answers with the values one by one (`float_val`, …), not with `tensor_content`.

    Args:
        array: an array, or for a scalar a NumPy number or bytes.
        dtype: the output's `DataType`.
        proto: the TensorProto.
    """
    proto.dtype = dtype
    field, seen_as = _FIELDS[dtypes.as_dtype(dtype)]
    # Bytes as an array of dtype S would lose their trailing zeros.
    array = np.asarray(array, object if field == "string_val" else None)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    values = np.ascontiguousarray(array).ravel()
    getattr(proto, field).extend((values if seen_as is None else values.view(seen_as)).tolist())
