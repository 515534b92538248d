"""The messages load without TensorFlow, and leave room for the real one. Each in a process of its own."""

import subprocess
import sys


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_gateway_never_imports_tensorflow() -> None:
    loaded = run(
        "import sys, serving.app, serving.__main__\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('tensorflow', 'keras')])"
    )
    assert loaded.strip() == "[]"


def test_the_real_tensorflow_can_be_imported_afterwards_and_shares_the_messages() -> None:
    program = (
        "from serving.tensorflow_serving_protocol import PredictRequest, TensorProto\n"
        "import tensorflow as tf\n"
        "from tensorflow_serving.apis import predict_pb2\n"
        "assert predict_pb2.PredictRequest is PredictRequest\n"
        "request = PredictRequest()\n"
        "request.inputs['x'].CopyFrom(tf.make_tensor_proto([1.0, 2.0]))\n"
        "print(tf.make_ndarray(request.inputs['x']).sum(), isinstance(tf.make_tensor_proto(1), TensorProto))\n"
    )
    assert run(program).split() == ["3.0", "True"]


def test_the_messages_can_be_imported_after_the_real_tensorflow() -> None:
    program = (
        "import tensorflow\n"
        "from serving.tensorflow_serving_protocol import ModelSpec\n"
        "print(ModelSpec(name='m').name)\n"
    )
    assert run(program) == "m\n"
