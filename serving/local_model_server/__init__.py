"""A model server for a laptop, a test or a demo: TensorFlow Serving's gRPC, answered by the `tensorflow` package.

It answers as TensorFlow Serving does, down to states, status codes and texts, so that the gateway cannot tell the two
apart. It is not for production: there, run TensorFlow Serving.

This package is the only place in `serving` that imports TensorFlow.
"""
