"""A process of a training that finds too little memory to load a split whole: see test_streamed_training.py."""

import sys
from pathlib import Path

from components.entrypoints.local_worker import main
from components.shared.core import log
from components.shared.training import batches

vars(batches)["free_memory"] = int  # 0

if __name__ == "__main__":
    with log.named("train"):
        main(Path(sys.argv[1]))
