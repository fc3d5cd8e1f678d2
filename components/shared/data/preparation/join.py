"""Join the rows of all units: find the copies that leak between splits, in bounded memory, by DuckDB on disk.

An image stays in the last of train, val and test that has it. Copies within one split stay, too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.shared.core.errors import UserError
from components.shared.data.dataset import SPLITS
from components.shared.data.preparation.rows import Rows, read_rows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY_MIB = 512
_BATCH_ROWS = 65_536

_DROPPED = """
select unit, split, row
from (select unit, split, row, max(split) over (partition by digest) as last from read_parquet($files))
where split < last order by all
"""
_REPEATED = """
select count(*) filter (found > 1), count(*) filter (lowest <> highest)
from (select count(*) as found, min(label) as lowest, max(label) as highest from read_parquet($files) group by digest)
"""
_WITHIN = """
select last, sum(found - 1)
from (select max(split) as last, max_by(found, split) as found
      from (select digest, split, count(*) as found from read_parquet($files) group by digest, split) group by digest)
group by last
"""


class Join:
    """The rows of the units of a dataset, each in a Parquet file, in the order of their names."""

    def __init__(self, connection: "DuckDBPyConnection", folder: Path) -> None:
        """Use `joined`, which closes the connection."""
        self._connection, self._folder = connection, folder

    def rows(self) -> Iterator[Rows]:
        """Yield the rows of each unit, with the column `dropped`."""
        dropped = self._dropped()
        pending = next(dropped, np.zeros((0, 3), np.int64))
        for path in sorted(self._folder.glob("*.parquet")):
            rows = read_rows(path)
            unit = rows["unit"][0] if len(rows) else -1  # none of its pictures could be used
            while len(pending) and pending[-1, 0] <= unit and (more := next(dropped, None)) is not None:
                pending = np.concatenate([pending, more])
            own = pending[:, 0] == unit
            rows["dropped"] = np.isin(_places(rows["split"], rows["row"]), _places(*pending[own, 1:].T))
            pending = pending[~own]
            yield rows
        assert not len(pending), "a dropped image is in no unit"

    def repeated(self) -> tuple[int, int]:
        """Return the number of images that are there several times, and of those with several labels."""
        ((repeated, conflicting),) = self._run(_REPEATED).fetchall()
        return repeated, conflicting

    def within_split(self) -> dict[str, int]:
        """Return the number of further copies that stay, in each split."""
        found = dict(self._run(_WITHIN).fetchall())
        return {name: int(found.get(split, 0)) for split, name in enumerate(SPLITS)}

    def _dropped(self) -> Iterator[NDArray[np.int64]]:
        """Yield the unit, split and place (N x 3) of the images to drop, in order."""
        for batch in self._run(_DROPPED).to_arrow_reader(_BATCH_ROWS):
            yield np.stack([column.to_numpy().astype(np.int64) for column in batch.columns], axis=1)

    def _run(self, query: str) -> Any:
        return self._connection.sql(query, params={"files": f"{escape(str(self._folder))}/*.parquet"})


@contextmanager
def joined(folder: Path) -> Iterator[Join]:
    """Yield the join of the rows in a folder; what does not fit into MEMORY_MIB is written there, too.

    Raises UserError if the disk has no space for that.
    """
    import duckdb  # takes 0.2 s

    settings: dict[str, Any] = {
        "memory_limit": f"{MEMORY_MIB}MiB",
        "temp_directory": str(folder / "spill"),
        "threads": 2,
    }
    with duckdb.connect(config=settings) as connection:
        try:
            yield Join(connection, folder)
        except duckdb.OutOfMemoryException as error:
            if "failed to offload" not in str(error):
                raise
            message = f"finding the copies among the images takes more space than is free in {folder}"
            raise UserError(message, "free some space there") from None


def _places(splits: NDArray[Any], rows: NDArray[Any]) -> NDArray[np.int64]:
    places: NDArray[np.int64] = splits.astype(np.int64) << 32 | rows
    return places
