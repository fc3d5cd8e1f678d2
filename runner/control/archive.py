"""The log of a step as KFP's launcher left it in the store of its artifacts: it stays when the pods are gone."""

from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.core.errors import UserError
from components.shared.parameters.pods import Pods
from components.shared.storage.client import Store, open_store
from runner.cluster.kube import kube_errors
from runner.cluster.run_facts import parameters_of
from runner.cluster.store import connection_to
from runner.cluster.watch.view import View
from runner.doctor.cluster import Cluster
from runner.doctor.launcher import artifact_location

NAME = "executor-logs"  # of the object, in a folder of the step's artifacts


def read_archived(view: View, run: Any, pipeline: BaseComponent, step: str) -> str | None:
    """Return the logs that the step's passes left; None if there are none, or they cannot be reached from here."""
    if not view.connection.kube or "archive" in view.refused:
        return None
    try:
        store = _artifacts(view, run)
        entries = list(store.list(f"{pipeline.name}/{run.run_id}/{step}")) if store else []
        names = [entry.name for entry in entries if entry.name.endswith(f"/{NAME}")]
        logs = [store.get_bytes(name)[0].decode(errors="replace") for name in names] if store else []
        return "\n".join(log.rstrip() for log in logs) if logs else None
    except UserError as error:
        view.refused.add("archive")
        view.say(f"logs that pods have left in KFP's store are not seen from here: {error}")
        return None


def _artifacts(view: View, run: Any) -> Store | None:
    """Open the store of KFP's artifacts; None if it is not S3."""
    connection, kube = view.connection, view.connection.kube
    assert kube
    cluster = Cluster(kube.api_client, connection.namespace, connection.kfp_namespace)
    defaults = {name: Pods.model_fields[name].default for name in ("s3_secret", "s3_config")}
    with kube_errors("read where KFP keeps artifacts"):
        location = artifact_location(cluster, {**defaults, **parameters_of(run)})
    if not location:
        return None
    through = connection_to(kube, connection.namespace, location.endpoint)
    return open_store(location.uri, location.environment, attempts=2, connection=through)
