"""Check where KFP's launcher and the steps store their objects, and with whose credentials."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from components.shared.storage.endpoint import AWS
from runner.cluster.artifacts.location import (
    ACCESS,
    ENDPOINT,
    SECRET,
    Launcher,
    Location,
    artifact_location,
    read_launcher,
    steps_environment,
)
from runner.doctor.cluster import Cluster
from runner.doctor.finding import Finding, ok, problem, unknown, warning
from runner.doctor.preflight import Preflight

ROLE = "eks.amazonaws.com/role-arn"  # the annotation that gives a service account's pods an AWS role
STEPS = "the steps"  # the user of the store


def locations(cluster: Cluster, preflight: Preflight) -> Iterator[Location]:
    """Yield the locations of the launcher and, if there is a store, of the steps, with the credentials of each."""
    own = steps_environment(cluster, preflight.parameters)
    artifacts = artifact_location(cluster, preflight.parameters)
    if artifacts:
        yield artifacts
    if preflight.parameters["store"]:
        yield Location(STEPS, preflight.parameters["store"], own)


def endpoints(cluster: Cluster, preflight: Preflight) -> set[str]:
    """Return the addresses of the S3 servers that launcher and steps connect to, without reading a Secret."""
    own = (cluster.config_map(preflight.parameters["s3_config"]) or {}).get(ENDPOINT) or AWS
    return {own, read_launcher(cluster).endpoint or own}


def check_launcher(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check that the launcher has credentials, and that they belong to the same account as those of the steps."""
    launcher, own = read_launcher(cluster), steps_environment(cluster, preflight.parameters)
    name, config = preflight.parameters["s3_secret"], preflight.parameters["s3_config"]
    if not launcher.is_s3:
        yield unknown(f"artifacts go to {launcher.root}, which is not S3", "make sure that pods may write there")
        return
    if not launcher.path_style and launcher.endpoint and "amazonaws" not in launcher.endpoint:
        yield warning(
            f"kfp-launcher has forcePathStyle false: it will look up {urlsplit(launcher.uri).netloc} in DNS",
            "set forcePathStyle: true in kfp-launcher, unless the S3 server serves buckets by host name",
        )
    if launcher.secret:
        yield from _by_secret(cluster, launcher, own, name)
    elif own.get(ACCESS) or has_role(cluster):
        yield ok(f"launcher and steps share the steps' credentials; artifacts go to {launcher.root}")
    else:
        yield problem(
            f"artifacts go to {launcher.root} with the steps' credentials, and there are none",
            f"create Secret {name} with {ACCESS} and {SECRET}, or give "
            f"service account {cluster.service_account} a role",
        )
    if launcher.endpoint and own.get(ENDPOINT) and _host(launcher.endpoint) != _host(own[ENDPOINT]):
        yield warning(
            f"artifacts go to {launcher.endpoint}, but ConfigMap {config} sends the steps to {own[ENDPOINT]}",
            "set both to one S3 server, unless two are intended",
        )


def has_role(cluster: Cluster) -> bool:
    """Return whether the pods' service account has an AWS role, so that no keys are needed."""
    return ROLE in ((cluster.account and cluster.account.metadata.annotations) or {})


def _by_secret(cluster: Cluster, launcher: Launcher, own: dict[str, str], steps_secret: str) -> Iterator[Finding]:
    """Check the Secret that the launcher's settings name."""
    name, access_key = launcher.secret["secretName"], launcher.secret["accessKeyKey"]
    values = cluster.secret(name)
    if values is None:
        creator = "KFP's manifests create it" if cluster.is_standalone else "KFP's Profile controller creates it"
        yield problem(
            f"the launcher's Secret {name} does not exist",
            f"create it ({creator}), or correct secretRef in ConfigMap kfp-launcher",
        )
        return
    lacking = [key for key in (access_key, launcher.secret["secretKeyKey"]) if key not in values]
    if lacking:
        yield problem(
            f"the launcher's Secret {name} lacks {', '.join(lacking)}",
            "add what is missing, or correct secretRef in ConfigMap kfp-launcher",
        )
    elif own.get(ACCESS, values[access_key]) != values[access_key]:
        yield warning(
            f"the launcher uses Secret {name}, the steps use {steps_secret} with another access key",
            f"put the same keys into {steps_secret}, unless both accounts have the access they need",
        )
    else:
        yield ok(f"artifacts go to {launcher.root} with Secret {name}")


def _host(endpoint: str) -> str:
    """Return host and port, with a Service's long names shortened."""
    parts = urlsplit(endpoint)
    host = (parts.hostname or "").removesuffix(".svc.cluster.local").removesuffix(".svc")
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
