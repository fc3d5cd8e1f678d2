"""Real pictures that need no download, as files in folders, for the benches that run the steps on a few of them."""

from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits


def write_pictures(folder: Path, count: int) -> None:
    """Write the first `count` of scikit-learn's digits, gray and of 8 x 8 pixels, into a folder for each class."""
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images[:count], digits.target, strict=False)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9375).astype("uint8")).save(folder / str(label) / f"{number}.png")
