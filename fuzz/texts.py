"""`python -m fuzz.texts`: whatever the text is, it becomes ids of the vocabulary or a Problem."""

import atheris
import numpy as np

with atheris.instrument_imports(include=["serving.preprocessing"]):
    from serving.contract import TextInput
    from serving.preprocessing import TextPreprocessor

from fuzz.coverage import Finding, fuzz
from fuzz.seeds import TEXTS
from serving.problems import Problem
from training.tokenizer import train_tokenizer

VOCABULARY = 60
SPEC = TextInput(name="tokens", max_length=50, pad_id=0, tokenizer=train_tokenizer(TEXTS, vocabulary=VOCABULARY))
PREPROCESSOR = TextPreprocessor(SPEC, max_characters=2000)


def prepare(encoded: bytes) -> None:
    """Raises what is a finding."""
    # lone surrogates, as JSON may bring them, get through; not always, or nothing else would
    text = encoded.decode("utf-8", "surrogateescape" if encoded.startswith(b"\xff") else "replace")
    try:
        ids = PREPROCESSOR.prepare(text)
    except Problem as problem:
        if problem.status >= 500:  # noqa: PLR2004
            raise
        problem.json()
        return
    # id 0 is padding: a text never has it
    if ids.dtype != np.int32 or not 1 <= len(ids) <= SPEC.max_length or not 0 < ids.min() <= ids.max() < VOCABULARY:
        raise Finding(f"{ids.dtype} {ids}")


if __name__ == "__main__":
    words = sorted({word.encode() for text in TEXTS for word in [*text, *text.split()]})
    fuzz("texts", [text.encode() for text in TEXTS], prepare, words)
