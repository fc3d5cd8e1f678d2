"""Small pictures inside a page."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

THUMBNAIL = 96  # pixels of the longer side, at most


def data_uri(image: NDArray[np.uint8]) -> str:
    """Return an image (uint8, C x H x W) as a PNG in an address, of a thumbnail's size at most."""
    picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
