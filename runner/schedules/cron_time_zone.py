"""The time zone in which KFP reads crontabs: as an option gives it, as the cluster is configured, or UTC."""

import argparse
from datetime import tzinfo
from zoneinfo import ZoneInfo

from components.shared.core.errors import UserError
from runner.cluster.connection import Connection
from runner.cluster.kube import kube_errors
from runner.cluster.rest import ApiError

CONFIG_MAP, KEY = "pipeline-install-config", "cronScheduleTimezone"  # in KFP's namespace


def find_cron_time_zone(connection: Connection, arguments: argparse.Namespace) -> tzinfo:
    """Return the time zone in which KFP reads crontabs: the option's, else the cluster's if it may be read, else UTC.

    Raises UserError if this machine does not know the time zone.
    """
    name = arguments.time_zone or _time_zone_of_cluster(connection) or "UTC"
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise UserError(f"{name} is not a known time zone", "give --time-zone NAME such as Europe/Berlin") from None


def _time_zone_of_cluster(connection: Connection) -> str | None:
    if not connection.kube:
        return None
    namespace = connection.kfp_namespace
    try:
        with kube_errors(f"read ConfigMap {CONFIG_MAP} in namespace {namespace}"):
            found = connection.kube.read_namespaced_config_map(CONFIG_MAP, namespace, _request_timeout=30)
    except ApiError as error:
        if error.status not in (403, 404):
            raise
        return None
    return (found.data or {}).get(KEY)
