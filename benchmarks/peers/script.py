"""What tutorials show: a FastAPI script that prepares each request by itself and sends it alone to the model server."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
import uvicorn
from fastapi import FastAPI, Request
from PIL import Image
from pydantic import BaseModel
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from tokenizers import Tokenizer


class Body(BaseModel):
    """Of a request for a text."""

    text: str


def application(model_server: str, image: dict[str, Any], text: dict[str, Any]) -> FastAPI:
    """The script.

    Args:
        model_server: its address.
        image: `input`, `labels` and `size`, [width, height], of the pictures' model.
        text: `input`, `labels`, `tokenizer` (its JSON) and `length` of the texts' model.
    """
    app = FastAPI()
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(model_server))
    tokenizer = Tokenizer.from_str(text["tokenizer"])

    def predict(model: str, name: str, batch: Any, labels: list[str]) -> dict[str, Any]:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        request.model_spec.version.value = 1
        request.inputs[name].CopyFrom(tf.make_tensor_proto(batch))
        probabilities = tf.make_ndarray(stub.Predict(request, timeout=30).outputs["probabilities"])[0]
        best = int(probabilities.argmax())
        return {"label": labels[best], "score": float(probabilities[best])}

    @app.post("/classify-image")
    async def classify_image(request: Request) -> dict[str, Any]:
        picture = Image.open(BytesIO(await request.body())).convert("RGB").resize(image["size"])
        return predict("cnn", image["input"], np.asarray(picture)[None], image["labels"])

    @app.post("/classify-text")
    def classify_text(body: Body) -> dict[str, Any]:
        ids = tokenizer.encode(body.text).ids[: text["length"]]
        return predict("lstm", text["input"], np.array([ids], np.int32), text["labels"])

    return app


def main(port: int, model_server: str, image: str, text: str) -> None:
    """Serve until a signal; what is told of the models lies in two files."""
    told = [json.loads(Path(path).read_text()) for path in (image, text)]
    uvicorn.run(application(model_server, *told), port=port, log_level="warning", access_log=False)
