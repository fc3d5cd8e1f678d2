"""ONNX Runtime for browsers, from the npm package onnxruntime-web: the pinned version and the digests of its files.

To pin another version: `npm pack onnxruntime-web@VERSION`, unpack it, and write here the size and the SHA-256 of the
three files. `pytest tests/runner/demo` then shows whether the page still works with it.
"""

from pathlib import Path

from components.shared.data.sources.catalogue import File, Mirror
from components.shared.data.sources.mirrors import fetch_files

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
# Its API, the loader of its program, and the program: on the CPU, with SIMD; one thread of it needs no shared memory.
API = File("ort.wasm.min.mjs", 50126, "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b")
LOADER = File("ort-wasm-simd-threaded.mjs", 24381, "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b")
PROGRAM = File(
    "ort-wasm-simd-threaded.wasm", 14239897, "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
)
FILES = (API, LOADER, PROGRAM)
# npm downloads 33 MB, of which the files are 14; for whoever has no npm there is a mirror of its packages.
MIRRORS = (
    Mirror("npm", f"{PACKAGE}@{VERSION}", folder="package/dist/"),
    Mirror("web", f"https://cdn.jsdelivr.net/npm/{PACKAGE}@{VERSION}/dist/"),
)


def fetch_runtime() -> dict[str, Path]:
    """Return where the files are in the download cache, by name, after downloading what is missing.

    Raises TransientError if no mirror has them.
    """
    return fetch_files(f"{PACKAGE} {VERSION}", FILES, MIRRORS)
