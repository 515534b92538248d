"""Small data sets that anyone can learn: shapes in colours, and sentences from templates."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw
from pyarrow import parquet

SHAPES = {
    "blue circle": ("circle", (40, 70, 220)),
    "green triangle": ("triangle", (40, 180, 60)),
    "red circle": ("circle", (220, 50, 40)),
    "red square": ("square", (220, 50, 40)),
}
"""Label → what is drawn: neither shape nor colour alone tells it."""
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP", ".tif": "TIFF"}

TOPICS = {
    "praise": ["wonderful", "lovely", "excellent", "delightful", "perfect"],
    "complaint": ["broken", "awful", "useless", "terrible", "damaged"],
    "question": ["how", "when", "why", "where", "which"],
    "order": ["buy", "purchase", "reserve", "ship", "book"],
}
"""Label → words of which each of its sentences has one, and no other's has any."""
TEMPLATES = [
    "The {thing} from {place} is {word}, said my {person}.",
    "{word}: my {person} has the {thing} from {place}",
    "About the {thing}! A {word} word, from {place}, for your {person}.",
    "My {person} in {place} would say {word} of this {thing}.",
]
THINGS = ["lamp", "kettle", "chair", "radio", "clock", "carpet", "mirror", "bicycle"]
PLACES = ["Lisbon", "Oslo", "Vienna", "Porto", "Ghent", "Turin", "Cork"]
PEOPLE = ["sister", "uncle", "neighbour", "teacher", "cousin"]


def write_shapes(folder: Path, per_label: int, seed: int) -> None:
    """A folder for each of SHAPES with pictures of many sizes, aspect ratios and formats, on noise."""
    chance = np.random.default_rng(seed)
    formats = list(FORMATS.items())
    for label, (shape, colour) in SHAPES.items():
        (folder / label).mkdir(parents=True)
        for number in range(per_label):
            suffix, name = formats[number % len(formats)]
            _drawn(shape, colour, chance).save(folder / label / f"{number}{suffix}", name)


def write_sentences(path: Path, rows: int, labels: int = 3, seed: int = 0) -> None:
    """Sentences of the first of TOPICS, no two alike, in the format that the path's ending names."""
    chance = np.random.default_rng(seed)
    topics = list(TOPICS)[:labels]
    made: dict[str, str] = {}
    while len(made) < rows:
        label = topics[len(made) % len(topics)]
        words = {"word": TOPICS[label], "thing": THINGS, "place": PLACES, "person": PEOPLE}
        made[_one(TEMPLATES, chance).format(**{name: _one(among, chance) for name, among in words.items()})] = label
    table = [{"text": text, "label": label} for text, label in made.items()]
    match path.suffix:
        case ".csv":
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, ["text", "label"])
                writer.writeheader()
                writer.writerows(table)
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
        case ".parquet":
            parquet.write_table(pa.Table.from_pylist(table), path)
        case suffix:
            raise ValueError(suffix)


def _one(among: list[str], chance: np.random.Generator) -> str:
    return among[chance.integers(len(among))]


def _drawn(shape: str, colour: tuple[int, int, int], chance: np.random.Generator) -> Image.Image:
    short = int(chance.integers(28, 72))
    long = int(short * chance.uniform(1, 1.6))
    width, height = (short, long) if chance.random() < 1 / 2 else (long, short)
    grey = chance.integers(120, 256)
    picture = Image.fromarray(np.full((height, width, 3), grey, np.uint8))
    radius = short * chance.uniform(0.28, 0.38)
    x, y = (side / 2 + chance.uniform(-0.08, 0.08) * short for side in (width, height))
    pen = ImageDraw.Draw(picture)
    match shape:
        case "circle":
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        case "square":
            pen.rectangle((x - radius, y - radius, x + radius, y + radius), fill=colour)
        case "triangle":
            pen.polygon([(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)], fill=colour)
    noise = chance.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))
