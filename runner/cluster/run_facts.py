"""What verbs tell of a run in their documents."""

from typing import Any

from components.shared.core.document import Part, Time
from components.shared.parameters.pods import Pods
from runner.cluster import run_state
from runner.cluster.connection import Connection
from runner.parameters import flat
from runner.summary import time_text


class RunFacts(Part):
    """A run in KFP."""

    run_id: str
    name: str
    state: str
    created: Time
    link: str | None  # to its page in KFP's UI, if an address of the UI is known


def facts(connection: Connection, run: Any) -> RunFacts:
    """Return what the documents of verbs tell of a run."""
    return RunFacts(
        run_id=run.run_id,
        name=run.display_name,
        state=run_state.state(run),
        created=time_text(run.created_at.timestamp()),
        link=connection.ui_link("run", run.run_id) if connection.ui else None,
    )


def parameters_of(run: Any) -> dict[str, Any]:
    """Return the parameters that a run was given, by the names that people use."""
    return flat((run.runtime_config and run.runtime_config.parameters) or {})


def objects_of(run: Any) -> tuple[str, str]:
    """Return the names of the Secret and the ConfigMap from which the steps of a run have keys and address of S3."""
    given = parameters_of(run)
    secret, config = (given.get(name, Pods.model_fields[name].default) for name in ("s3_secret", "s3_config"))
    return str(secret), str(config)


def has_ended(run: Any) -> bool:
    """Return whether nothing more happens in a run."""
    return run.state in run_state.FINAL
