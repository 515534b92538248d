"""mosec as its users set it up: two processes decode, one predicts batches of up to 64 after at most 3 ms.

Run in an environment of its own, with mosec, TensorFlow, Pillow and tokenizers in it; it knows nothing of Sightread.
What it needs to know lies as JSON in the file SPEC: `kind`, `folder` of the SavedModel, `input`, `labels`, and of
pictures `size`, of texts `tokenizer` and `length`.
"""

import json
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from mosec import Server, Worker
from PIL import Image
from tokenizers import Tokenizer

SPEC = json.loads(Path(os.environ["SPEC"]).read_text())
DECODERS, BATCH, MILLISECONDS = 2, 64, 3


class Prepare(Worker):  # type: ignore[misc] # mosec is not here where types are checked
    """A body → what the model takes."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = Tokenizer.from_str(SPEC["tokenizer"]) if SPEC["kind"] == "text" else None

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> Any:
        if self.tokenizer is not None:
            return self.tokenizer.encode(json.loads(data)["text"]).ids[: SPEC["length"]]
        picture = Image.open(BytesIO(data))
        # the scale at which the gateway decodes: at a smaller one the answers would be others
        width, height = SPEC["size"]
        picture.draft("RGB", (2 * width, 2 * height))
        return np.asarray(picture.convert("RGB").resize((width, height)))


class Predict(Worker):  # type: ignore[misc] # as above
    """Batches of what the model takes → answers."""

    def __init__(self) -> None:
        super().__init__()
        import tensorflow as tf  # noqa: PLC0415  # only this process needs it

        self.signature = tf.saved_model.load(SPEC["folder"]).signatures["serving_default"]
        self.constant = tf.constant

    def forward(self, data: list[Any]) -> list[dict[str, Any]]:
        if SPEC["kind"] == "text":
            batch = np.zeros((len(data), max(map(len, data))), np.int32)
            for row, ids in zip(batch, data, strict=True):
                row[: len(ids)] = ids
        else:
            batch = np.stack(data)
        answers = self.signature(**{SPEC["input"]: self.constant(batch)})["probabilities"].numpy()
        best = answers.argmax(axis=1)
        return [{"label": SPEC["labels"][b], "score": float(row[b])} for b, row in zip(best, answers, strict=True)]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Prepare, num=DECODERS)
    server.append_worker(Predict, max_batch_size=BATCH, max_wait_time=MILLISECONDS)
    server.run()
