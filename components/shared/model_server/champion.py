"""The champion that is served: a new one is loaded aside, and then takes the place of the old one at once.

A request keeps the program that it came for, so each is answered wholly by one version.
"""

import asyncio

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.model_server.metrics import Metrics
from components.shared.model_server.program import Served, open_version
from components.shared.registry.registry import RegisteredModel, champion_of


class Current:
    """The program that new requests get, which never changes for a version or a folder."""

    def __init__(self, served: Served) -> None:
        self.served = served

    async def follow(self, metrics: Metrics, seconds: float) -> None:
        """Do nothing, for ever."""
        await asyncio.Event().wait()


class Champion(Current):
    """The champion of a model, looked for in its registry document, which is read only if its ETag has changed."""

    def __init__(self, model: RegisteredModel, threads: int) -> None:
        """Open the champion. Raises UserError if there is none, or it cannot be opened."""
        self._model, self._threads, self._told = model, threads, ""
        self._etag = model.etag()
        champion = champion_of(model, f"give --model {model.name}/VERSION, or promote one")
        super().__init__(open_version(model, champion, threads))

    async def follow(self, metrics: Metrics, seconds: float) -> None:
        """Look for a new champion every `seconds`, for ever; one that cannot be opened leaves the old one serving."""
        while True:
            await asyncio.sleep(seconds)
            try:
                found = await asyncio.to_thread(self._find)
            except UserError as error:
                metrics.failed_switches.inc()
                self._tell(f"version {self.served.version} serves on: {error}")
                continue
            self._told = ""
            if found:
                self._tell(f"version {found.version} is the champion now, and replaces version {self.served.version}")
                self.served = found
                metrics.serves(found)

    def _find(self) -> Served | None:
        """Return the champion if it is another one than before."""
        etag = self._model.etag()
        if etag == self._etag:
            return None
        champion = self._model.read().champion
        found = None
        if champion is not None and str(champion) != self.served.version:
            found = open_version(self._model, champion, self._threads)
        self._etag = etag  # last: what failed is tried again
        return found

    def _tell(self, line: str) -> None:
        """Log a line, unless it was the last one."""
        if line != self._told:
            log.info(line)
        self._told = line
