"""Train ResNet-18 on Fashion-MNIST on the CPU: `python bench/fashion.py`.

The images have their original 28 pixels, and the stem of the network preserves their resolution. Writes
`bench/results/fashion.json`.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from measure import ROOT, write_result
from mnist import prepare
from training import measure_ours

TARGET = 0.935
SETTINGS: dict[str, Any] = {  # changes of the defaults, besides the size
    "network": "resnet18",
    "epochs": 4,
    "weight_decay": 0.1,
    "flip": True,
}


def main() -> None:
    """Train, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=SETTINGS["epochs"])
    settings = {**SETTINGS, "epochs": parser.parse_args().epochs}
    with tempfile.TemporaryDirectory() as scratch:
        data = prepare(Path(scratch), "fashion-mnist", image_size=28)
        run = measure_ours(data, Path(scratch), 0, settings)
    print(write_result("fashion", {"target": TARGET, "settings": settings, **run}).relative_to(ROOT), run)


if __name__ == "__main__":
    main()
