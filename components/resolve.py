"""Step resolve: a run's parameters -> the version of its data. It is never cached, and all caching hangs on it.

It runs first and in a second: what the user can mend is refused here, before anything is downloaded.
"""

from typing import Any

from components.shared.parameters import check
from components.shared.progress import say
from components.shared.source import find_source, version_of

STEP = "resolve"


def resolve(*, data: str, **parameters: Any) -> str:
    """The version of what the URI `data` holds now: equal versions hold equal data.

    UserError where any parameter of the run is out of its range, or `data` is unknown or out of reach.
    """
    check(data=data, **parameters)
    version = version_of(find_source(data))
    say(STEP, f"{data} is at {version}")
    return version
