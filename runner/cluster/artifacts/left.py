"""Files that the steps of a run left in the store of KFP's artifacts: they stay when the pods and their logs are gone.

KFP's launcher puts an artifact to <root>/<pipeline>/<run>/<step>/<an id of the execution>/<artifact>, and the log of
the step beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.core.errors import UserError
from components.shared.storage.client import Entry, Store, open_store
from runner.cluster.artifacts.location import artifact_location
from runner.cluster.connection import Connection
from runner.cluster.run_facts import objects_of
from runner.cluster.store import Objects, connection_to

ATTEMPTS = 2  # of a request: what is left can also be told by other means


@dataclass
class Left:
    """What the steps left, of a run and of those that its cached results are from."""

    connection: Connection
    pipeline: BaseComponent
    run: Any

    def newest(self, run_id: str, step: str, file: str, limit: int) -> bytes | None:
        """Return the newest file of that name that a step left; None if there is none, or if KFP's store is not S3.

        Raises UserError if the store cannot be reached or has a file of more bytes than `limit`.
        """
        found = max(self._entries(run_id, step, file), key=lambda entry: str(entry.modified), default=None)
        return self._store.get_bytes(found.name, limit)[0] if found and self._store else None

    def all(self, run_id: str, step: str, file: str) -> list[bytes]:
        """Return the files of that name that the passes of a step left. Raises UserError as `newest` does."""
        entries = list(self._entries(run_id, step, file))
        return [self._store.get_bytes(entry.name)[0] for entry in entries] if self._store else []

    def _entries(self, run_id: str, step: str, file: str) -> Iterator[Entry]:
        found = self._store.list(f"{self.pipeline.name}/{run_id}/{step}") if self._store else ()
        return (entry for entry in found if entry.name.endswith(f"/{file}"))

    @cached_property
    def _store(self) -> Store | None:
        kube, namespace = self.connection.kube, self.connection.namespace
        if not kube:
            raise UserError("only KFP's API was reached", "give --context too")
        secret, config = objects_of(self.run)
        root = self.run.runtime_config and self.run.runtime_config.pipeline_root
        location = artifact_location(Objects(kube, namespace), {"s3_secret": secret, "s3_config": config}, root)
        if not location:
            return None
        through = connection_to(kube, namespace, location.endpoint)
        return open_store(location.uri, location.environment, attempts=ATTEMPTS, connection=through)
