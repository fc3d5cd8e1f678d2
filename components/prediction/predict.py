"""Step predict: raw data and a model -> the share of one pod of the table of predictions, in whole parts.

With a store, each part is there as soon as it is whole, and a pod that is started again goes on after the last one.
"""

import shutil
import tempfile
import time
from pathlib import Path

from components.shared.core import log
from components.shared.core.files import new_folder
from components.shared.core.resources import thread_count
from components.shared.core.step import step
from components.shared.prediction.inputs import Inputs
from components.shared.prediction.pods.chosen import PACKAGE, PROGRAM, ShareRecipe, fetch_package
from components.shared.prediction.pods.shares import DOCUMENT, Share, ShareDocument, share_of, write_pictures
from components.shared.prediction.pods.stored import StoredPredictions, key_of
from components.shared.prediction.rows import Program, Timed, open_program, write_parts
from components.shared.prediction.table import part_path, row_count
from components.shared.prediction.uncertain import least_certain, pictures_of


@step
def predict(*, raw: str | Path, planned: str, share: str | Path) -> None:
    """Predict the share of the pictures that step resolve-prediction has `planned` for this pod, to folder `share`.

    A picture that cannot be used is a row with its error. Raises UserError if the raw data or the package is damaged,
    or the store cannot be used.
    """
    recipe = ShareRecipe.read(planned)
    with new_folder(share) as folder, tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        fetch_package(recipe.chosen, recipe.store, scratch)
        threads = thread_count(recipe.threads)
        program = open_program(scratch / PROGRAM, scratch / PACKAGE, recipe.model, threads)
        shutil.copyfile(scratch / PACKAGE, folder / PACKAGE)
        inputs = Inputs(Path(raw), program.package)
        mine = share_of(inputs.count, inputs.size, recipe.pod, recipe.pods)
        stored = None
        if recipe.store:
            key = key_of(recipe.chosen, inputs.digest, mine.part_rows)
            stored = StoredPredictions(recipe.store, recipe.chosen, key)
        _predict(inputs, program, mine, stored, folder)


def _predict(inputs: Inputs, program: Program, mine: Share, stored: StoredPredictions | None, folder: Path) -> None:
    """Write the parts of a share to a folder, and its document."""
    started, timed = time.monotonic(), Timed(program.classify)
    resumed = _fetch_parts(stored, mine, folder) if stored else 0
    first, parts = mine.first + resumed, resumed
    for number in write_parts(inputs, program._replace(classify=timed), folder, first, mine.end, mine.part_rows):
        if stored:
            stored.keep_part(number, folder)
        parts += 1
    seconds = {"all": time.monotonic() - started, "program": timed.seconds}
    paths = [part_path(folder, number) for number in range(mine.first, mine.first + parts)]
    rows = [row_count(path) for path in paths]
    images = pictures_of(inputs, least_certain(paths, mine.part_rows))
    document = ShareDocument(
        model=program.model,
        data_digest=inputs.digest,
        part_rows=mine.part_rows,
        first=mine.first,
        parts=parts,
        is_last=mine.end is None,
        resumed=sum(rows[:resumed]),
        predicted=sum(rows[resumed:]),
        seconds=seconds,
        uncertain=write_pictures(folder, images, program.package),
    )
    document.write(folder / DOCUMENT)


def _fetch_parts(stored: StoredPredictions, mine: Share, folder: Path) -> int:
    """Copy the parts of a share that are in the store to a folder, up to the first that is not; return their number."""
    number = mine.first
    while (mine.end is None or number < mine.end) and stored.fetch_part(number, folder):
        number += 1
    if count := number - mine.first:
        log.info(f"goes on after {count} {'part' if count == 1 else 'parts'} that {stored.uri} has")
    return count
