"""Run a step of graph `bigdata` for bench/bigdata.py, or decode and resize alone; print what only the process knows.

python bench/bigdata_step.py partition|prepare|settle < arguments.json
python bench/bigdata_step.py decode < arguments.json

That is the CPU seconds that it takes to start, with the digest of the code, and the requests to stores by method.
"""

import io
import json
import os
import sys
import time
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> None:
    """Run what is named first on the command line."""
    name, arguments = sys.argv[1], json.load(sys.stdin)
    if name == "decode":
        found: dict[str, Any] = {"startup": _decode(**arguments)}
    else:
        found = _step(name, arguments)
    print("\n" + json.dumps(found))


def _step(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    step = getattr(import_module(f"components.bigdata.{name}"), name)
    from components.shared.core.code_digest import code_digest
    from components.shared.data.parts.stored_units import PREPARE
    from components.shared.storage.transport import Transport

    if name == "partition":
        from components.shared.data.sources.schemes import open_source
        from components.shared.parameters.preparation import ReadingRecipe

        arguments = {
            **arguments,
            "version": open_source(arguments["data"]).version(),
            "reading": ReadingRecipe().text(),
        }
    code_digest(PREPARE)  # kept for the step
    requests, send = Counter[str](), Transport._send

    def counted(self: Transport, method: str, url: str, **options: Any) -> Any:
        requests[method] += 1
        return send(self, method, url, **options)

    Transport._send = counted  # type: ignore[method-assign]
    startup = time.process_time()
    step(**arguments)
    return {"startup": startup, "requests": dict(requests)}


def _decode(source: str, size: int, count: int) -> float:
    """Read, decode and resize pictures one after the other, by Pillow and NumPy alone."""
    import numpy as np
    from PIL import Image

    places = np.load(f"{source}.npy")[:count].tolist()
    startup = time.process_time()
    with open(source, "rb") as file:
        for offset, length in places:
            content = os.pread(file.fileno(), length, offset)
            with Image.open(io.BytesIO(content)) as image:
                image.draft(None, (2 * size, 2 * size))
                np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=2.0))
    return startup


if __name__ == "__main__":
    main()
