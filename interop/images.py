"""The test images that come with the models, and what the models say about them."""

import json

import numpy
from PIL import Image

from cluster import MODEL, ROOT

MODELS = ROOT / "models"


def load():
    """All images as [(file name, pixels, class that MODEL predicts)]; pixels are FP32 of shape [1, 28, 28], 0 to 255."""
    expected = json.loads((MODELS / "expected.json").read_text())
    return [(i["file"], pixels(i["file"]), i["predictions"][MODEL]) for i in expected["images"]]


def pixels(file):
    with Image.open(MODELS / "images" / file) as image:
        return numpy.asarray(image.convert("L"), dtype=numpy.float32)[numpy.newaxis]
