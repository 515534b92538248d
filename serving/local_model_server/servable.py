"""One loaded version of a model, and its signatures."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.core.protobuf.config_pb2 import CallableOptions, ConfigProto, GPUOptions
from tensorflow.python.client.session import Session
from tensorflow.python.framework import dtypes, errors
from tensorflow.python.framework.ops import Graph
from tensorflow.python.platform.tf_logging import get_logger
from tensorflow.python.saved_model import loader

# It calls the session loader deprecated; TensorFlow Serving has no other.
get_logger().setLevel(logging.ERROR)

# C++ names, which TensorFlow Serving's texts use, where they differ from Python's.
_TYPE_NAMES = {"float16": "half", "float32": "float", "float64": "double"}


class Signature:
    """One way to call a servable.

    Attributes:
        definition: the `SignatureDef`.
        inputs: the names of the inputs, in the order in which `run` takes them.
        outputs: the names of the outputs.
    """

    def __init__(self, session: Any, definition: Any) -> None:
        self.definition = definition
        self.inputs = sorted(definition.inputs)
        self.outputs = sorted(definition.outputs)
        self._session = session
        self._dtypes = [dtypes.as_dtype(definition.inputs[name].dtype).as_numpy_dtype for name in self.inputs]
        self._callables: dict[tuple[str, ...], Any] = {}

    def run(self, arrays: Sequence[np.ndarray[Any, Any]], outputs: Sequence[str] = ()) -> list[tuple[str, int, Any]]:
        """Runs the signature.

        Args:
            arrays: one array an input, in the order of `inputs`.
            outputs: names of the outputs to compute; empty: all.

        Returns:
            Name, `DataType` and value of each output, in alphabetical order of the names.

        Raises:
            errors.OpError: an array has the wrong dtype or shape, or a kernel failed.
        """
        for position, (dtype, array) in enumerate(zip(self._dtypes, arrays, strict=True)):
            if array.dtype != dtype:
                expected, provided = (dtypes.as_dtype(numpy_dtype).name for numpy_dtype in (dtype, array.dtype))
                raise errors.InvalidArgumentError(
                    None,
                    None,
                    f"Expects arg[{position}] to be {_TYPE_NAMES.get(expected, expected)} "
                    f"but {_TYPE_NAMES.get(provided, provided)} is provided",
                )
        names = tuple(sorted(outputs)) or tuple(self.outputs)
        if names not in self._callables:
            options = CallableOptions(
                feed=[self.definition.inputs[name].name for name in self.inputs],
                fetch=[self.definition.outputs[name].name for name in names],
            )
            # Session.make_callable with feeds is Session.run, which spends twice as long in Python as the small model
            # that it runs, and checks shapes before the kernels do: the texts would not be TensorFlow Serving's.
            self._callables[names] = self._session._make_callable_from_options(options)  # noqa: SLF001
        values = self._callables[names](*arrays)
        return [(name, self.definition.outputs[name].dtype, value) for name, value in zip(names, values, strict=True)]


class Servable:
    """A SavedModel in a graph and a session of its own, loaded as TensorFlow Serving loads it.

    `tf.saved_model.load` is more forgiving: it runs SavedModels that TensorFlow Serving refuses.

    Attributes:
        signatures: by name; the definitions hold also those that only the loader calls (`__saved_model_init_op`).

    Raises:
        errors.OpError: the folder is no SavedModel that can be served, with TensorFlow Serving's code for that.
    """

    def __init__(self, folder: Path) -> None:
        config = ConfigProto(
            # Versions live side by side, and beside other programs of the same laptop: none takes a whole GPU.
            gpu_options=GPUOptions(allow_growth=True),
            # In the caller's thread: an LSTM is thousands of operations so small that handing them on costs more.
            inter_op_parallelism_threads=-1,
            # The gateway has two calls in flight, and they share the machine.
            intra_op_parallelism_threads=max(1, (os.cpu_count() or 1) // 2),
        )
        self._session = Session(graph=Graph(), config=config)
        try:
            meta_graph = loader.load(self._session, ["serve"], str(folder))
            self.signatures = {
                name: Signature(self._session, definition) for name, definition in meta_graph.signature_def.items()
            }
        except Exception as error:
            self._session.close()
            raise _load_error(error, folder) from error

    def signature(self, name: str) -> Signature:
        """The signature of that name.

        Raises:
            errors.FailedPreconditionError: there is none.
        """
        if name not in self.signatures:
            raise errors.FailedPreconditionError(None, None, f'Serving signature key "{name}" not found.')
        return self.signatures[name]

    def close(self) -> None:
        """Frees what the version holds; nothing may be running."""
        self._session.close()


def _load_error(error: Exception, folder: Path) -> errors.OpError:
    """The status that TensorFlow Serving's loader, which is written in C++, gives where Python's raises `error`."""
    match error:
        case errors.OpError():
            return type(error)(None, None, error.message.removeprefix("Graph execution error:\n\n"))
        case OSError() if (folder / "saved_model.pb").is_file():  # it is there, and does not parse
            return errors.OutOfRangeError(None, None, "Read less bytes than requested")
        case OSError():
            return errors.NotFoundError(
                None, None, f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {folder}"
            )
        case RuntimeError() | ValueError():  # no graph tagged "serve", no variables, an unknown kind of operation
            return errors.NotFoundError(None, None, str(error))
        case _:
            return errors.UnknownError(None, None, f"{type(error).__name__}: {error}")
