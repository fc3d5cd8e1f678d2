"""Step resolve: a run's parameters -> the version of its data. It is never cached, and all caching hangs on it.

It runs first and in a second: what the user can mend is refused here, before anything is downloaded.
"""

import os
from typing import Any

from components.shared.core import log
from components.shared.core.step import step
from components.shared.data.sources.schemes import find_source, version_of
from components.shared.parameters import check
from components.shared.storage.client import open_store


@step
def resolve(*, data: str, store: str, **parameters: Any) -> str:
    """The version of what the URI `data` holds now: equal versions hold equal data.

    UserError where any parameter of the run is out of its range, or `data` is unknown or out of reach,
    or the `store` is not there for us.
    """
    check(data=data, store=store, **parameters)  # and so that the graph takes so many nodes
    if store:
        next(open_store(store, os.environ).list("runs"), None)  # the answer to a HEAD would tell of no missing bucket
    version = version_of(find_source(data))
    log.info(f"{data} is at {version}")
    return version
