"""Step resolve: a run's parameters -> the version of its data. It is never cached, and all later caching relies on it.

It runs first and takes a second: what the user can fix is refused here, before anything is downloaded.
"""

import os
from typing import Any

from components.shared.core import log
from components.shared.core.step import step
from components.shared.data.sources.schemes import open_source
from components.shared.parameters import check
from components.shared.storage.client import open_store

READS = ("components.shared.data.sources.*",)  # modules that open_source imports by name


@step
def resolve(*, data: str, store: str, **parameters: Any) -> str:
    """Return the version of the data at the URI `data` now: equal versions hold equal data.

    Raises UserError if any parameter of the run is out of its range, `data` is unknown or out of reach, or there is no
    access to the `store`.
    """
    check(data=data, store=store, **parameters)
    if store:
        open_store(store, os.environ).check_access()
    version = open_source(data).version()
    log.info(f"{data} is at {version}")
    return version
