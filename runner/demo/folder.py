"""The folder of the demo: a page that any web server can serve, and all that it loads."""

import html
import shutil
import string
from pathlib import Path

from components.shared.core.errors import UserError
from runner.demo.onnxruntime_web import PACKAGE, VERSION, fetch_runtime
from runner.demo.versions import Offer, PageDocument
from runner.verbs.options import make_folder

PAGE = Path(__file__).parent / "page"
DIGITS = [str(digit) for digit in range(10)]
MANIFEST, INDEX = "demo.json", "index.html"
RUNTIME = "onnxruntime"  # its folder
# Scripts, styles and data from the page's own server alone, and the compilation of WebAssembly.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)


def check_target(folder: Path) -> None:
    """Raise UserError if nothing can be written there, or what is there is not an earlier demo, which is replaced."""
    is_demo = (folder / MANIFEST).is_file() and (folder / INDEX).is_file()
    if folder.exists() and not is_demo and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not a demo", "give --output a folder that is empty or new")
    make_folder(folder.parent, "give another --output")


def write_page(folder: Path, name: str, offer: Offer) -> PageDocument:
    """Write the page, ONNX Runtime and the manifest beside the versions in `folder`; return the manifest.

    Raises TransientError if ONNX Runtime is neither in the download cache nor to be had.
    """
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    index = string.Template((PAGE / INDEX).read_text())
    first = next((one for one in offer.versions if one.is_champion), offer.versions[0])
    title = "Draw a digit" if first.classes == DIGITS else f"Draw for {name}"
    texts = {"policy": POLICY, "title": title, "model": first.file}
    (folder / INDEX).write_text(index.substitute({key: html.escape(text) for key, text in texts.items()}))
    (folder / RUNTIME).mkdir()
    for file, path in fetch_runtime().items():  # as .js, which each web server knows for a script
        shutil.copyfile(path, folder / RUNTIME / file.replace(".mjs", ".js"))
    document = PageDocument(name=name, runtime=f"{PACKAGE} {VERSION}", versions=offer.versions)
    document.write(folder / MANIFEST)
    return document
