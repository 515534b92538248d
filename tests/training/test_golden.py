from io import BytesIO

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.contract import Contract, ImageInput, TextInput
from serving.preprocessing import ImagePreprocessor, TextPreprocessor
from training.golden import choose, golden, lead, odd_pictures, odd_texts, png
from training.tokenizer import train_tokenizer

LENGTH = 12


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    """A ramp from left to right, another from top to bottom: a turn or a flip shows."""
    across, down = np.meshgrid(np.linspace(60, 250, 32), np.linspace(60, 250, 32))
    return np.stack([across, down, (across + down) / 2], axis=-1).astype(np.uint8)


@pytest.fixture
def preprocessor() -> ImagePreprocessor:
    return ImagePreprocessor(ImageInput(name="x", height=32, width=32, channels=3, fit="cover", filter="bicubic"))


def test_a_plain_example_reaches_the_model_unchanged(
    picture: NDArray[np.uint8], preprocessor: ImagePreprocessor
) -> None:
    assert np.array_equal(preprocessor.prepare(png(picture)), picture)


def test_the_odd_pictures_are_of_the_kinds_that_preprocessing_must_know(picture: NDArray[np.uint8]) -> None:
    opened = [Image.open(BytesIO(candidates[0])) for candidates in odd_pictures(picture[None])]
    assert [(image.format, image.mode) for image in opened] == [
        ("JPEG", "RGB"),
        ("JPEG", "RGB"),
        ("PNG", "RGBA"),
        ("PNG", "L"),
        ("GIF", "P"),
    ]
    photo = opened[1]
    assert photo.getexif()[0x0112] == 6
    assert photo.size == (64, 96)


def test_the_photo_on_its_side_comes_out_upright(picture: NDArray[np.uint8], preprocessor: ImagePreprocessor) -> None:
    pixels = preprocessor.prepare(odd_pictures(picture[None])[1][0]).astype(int)
    assert pixels[:, -4:, 0].mean() > pixels[:, :4, 0].mean() + 50
    assert pixels[-4:, :, 1].mean() > pixels[:4, :, 1].mean() + 50


def test_what_is_transparent_comes_out_light_though_it_is_black_below(
    picture: NDArray[np.uint8], preprocessor: ImagePreprocessor
) -> None:
    assert preprocessor.prepare(odd_pictures(picture[None])[2][0])[:, :8].min() == 255


def test_every_odd_text_would_come_out_otherwise_without_its_treatment() -> None:
    texts = ["a fine film", "a dull film"]
    tokenizer = train_tokenizer([*texts, "well, café, naïve: b br"], vocabulary=100)
    preprocessor = TextPreprocessor(TextInput(name="ids", max_length=LENGTH, pad_id=0, tokenizer=tokenizer))
    html, upper, unknown, emoji, accents, long = (
        candidates[0] for candidates in odd_texts(texts, LENGTH, preprocessor)
    )
    plain = preprocessor.prepare(texts[0]).tolist()
    assert preprocessor.prepare(html).tolist() == preprocessor.prepare("well, " + texts[0]).tolist()
    assert preprocessor.prepare(upper).tolist() == plain
    assert preprocessor.prepare(unknown).tolist() == [1, 1, *plain]
    assert 1 in preprocessor.prepare(emoji)
    assert "café" not in accents
    assert preprocessor.prepare(accents).tolist() == preprocessor.prepare("café, naïve: " + texts[0]).tolist()
    assert len(preprocessor.prepare(long)) == LENGTH
    assert len(long.split()) > LENGTH
    assert long.endswith(texts[1])


def test_a_text_without_spaces_is_not_repeated_as_if_it_were_one_word() -> None:
    texts = ["这部电影。很好看。我很喜欢。", "这部电影。很难看。我不喜欢。"]
    tokenizer = train_tokenizer(texts, vocabulary=100)
    preprocessor = TextPreprocessor(TextInput(name="ids", max_length=LENGTH, pad_id=0, tokenizer=tokenizer))
    long = odd_texts(texts, LENGTH, preprocessor)[-1][0]
    assert preprocessor.remarks(long, preprocessor.prepare(long)) == {"truncated": True}
    assert long.count(texts[0]) < LENGTH


def test_the_lead_is_between_the_best_two() -> None:
    assert lead(np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])) == pytest.approx([0.2, 1.0])


def test_labels_take_turns_with_sure_and_unsure_ones_and_no_toss_up_is_chosen() -> None:
    best = np.array([0.51, 0.6, 0.7, 0.99] * 2)
    probabilities = np.stack([best, 1 - best], axis=1)
    truth = np.array([0] * 4 + [1] * 4)
    chosen = choose(probabilities, truth, 4)
    assert [truth[position] for position in chosen] == [0, 1, 0, 1]
    assert sorted(best[chosen]) == [0.6, 0.6, 0.99, 0.99]


def test_where_there_are_few_examples_each_is_chosen_once() -> None:
    probabilities = np.array([[0.5, 0.5], [0.51, 0.49], [0.4, 0.6]])
    assert sorted(choose(probabilities, np.array([0, 0, 1]), 8)) == [0, 1, 2]


def test_the_least_sure_of_the_clear_candidates_is_taken_or_else_the_clearest(
    version: tuple[keras.Model, Contract],
) -> None:
    model, contract = version
    shades = [png(np.full((8, 8, 3), shade, np.uint8)) for shade in range(0, 256, 5)]
    plain = golden(model, contract.input, shades, []).examples
    leads = dict(zip(shades, lead(np.array([example.probabilities for example in plain])), strict=True))
    clear = [shade for shade in shades if leads[shade] >= 0.1]
    unclear = [shade for shade in shades if leads[shade] < 0.1]
    assert len(clear) > 1
    assert len(unclear) > 1
    made = golden(model, contract.input, shades[:8], [shades, unclear]).examples
    assert made[8].image == min(clear, key=lambda shade: leads[shade])
    assert made[9].image == max(unclear, key=lambda shade: leads[shade])


def test_the_probabilities_are_the_models_own(version: tuple[keras.Model, Contract]) -> None:
    model, contract = version
    preprocessor = ImagePreprocessor(contract.input) if isinstance(contract.input, ImageInput) else None
    assert preprocessor is not None
    for example in contract.golden.examples:
        assert isinstance(example.raw, bytes)
        row = np.asarray(model(preprocessor.prepare(example.raw)[None]))[0]
        assert example.probabilities == pytest.approx(row.tolist(), abs=1e-6)
