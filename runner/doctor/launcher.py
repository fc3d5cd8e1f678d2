"""Check where KFP's launcher and the steps store their objects, and with whose credentials."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from components.shared.core.errors import UserError
from components.shared.storage.endpoint import AWS
from runner.doctor.cluster import Cluster, parse_yaml
from runner.doctor.finding import Finding, ok, problem, unknown, warning
from runner.doctor.preflight import Preflight

ROOT = "minio://mlpipeline/v2/artifacts"  # KFP's default
SEAWEEDFS = "http://seaweedfs.kubeflow:9000"
SEAWEEDFS_KEYS = {"secretName": "mlpipeline-minio-artifact", "accessKeyKey": "accesskey", "secretKeyKey": "secretkey"}
ACCESS, SECRET, TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
ENDPOINT, REGION = "AWS_ENDPOINT_URL_S3", "AWS_REGION"
ROLE = "eks.amazonaws.com/role-arn"  # the annotation that gives a service account's pods an AWS role


class Location(NamedTuple):
    """A location in S3, and the environment of who uses it."""

    user: str
    uri: str
    environment: dict[str, str]

    @property
    def endpoint(self) -> str:
        """Return the address of the S3 server."""
        return self.environment.get(ENDPOINT) or AWS


class Launcher(NamedTuple):
    """The settings of KFP's launcher in ConfigMap kfp-launcher."""

    root: str
    endpoint: str
    region: str
    path_style: bool
    secret: dict[str, str]  # secretName, accessKeyKey, secretKeyKey; empty if the step's environment counts

    @property
    def is_s3(self) -> bool:
        """Return whether artifacts go to S3, not to Google Cloud Storage."""
        return not self.root.startswith("gs://")

    @property
    def uri(self) -> str:
        """Return the root as s3://bucket/prefix."""
        parts = urlsplit(self.root)
        return f"s3://{parts.netloc}{parts.path}"


def read_launcher(cluster: Cluster) -> Launcher:
    """Return the launcher's settings by the rules of KFP's backend. Raises UserError if KFP would refuse them."""
    data = cluster.config_map("kfp-launcher") or {}
    root = data.get("defaultPipelineRoot") or ROOT
    parts = urlsplit(root)
    if parts.scheme not in ("minio", "s3", "gs"):
        raise UserError(f"kfp-launcher has defaultPipelineRoot {root}", "begin it with s3://, minio:// or gs://")
    provider = parse_yaml(data, "providers", "kfp-launcher").get(parts.scheme)
    if parts.query or parts.scheme == "gs" or (not provider and parts.scheme == "s3"):
        return Launcher(root, "", "", True, {})
    if not provider:
        return Launcher(root, SEAWEEDFS, "", True, SEAWEEDFS_KEYS)
    settings = _settings(provider, parts.netloc, parts.path.strip("/"))
    secret = _secret_of(settings.get("credentials") or {}, parts.scheme)
    return Launcher(root, _url(settings), settings.get("region") or "", settings.get("forcePathStyle", True), secret)


def locations(cluster: Cluster, preflight: Preflight) -> Iterator[Location]:
    """Yield the locations of the launcher and, if there is a store, of the steps, with the credentials of each."""
    own = steps_environment(cluster, preflight.parameters)
    artifacts = artifact_location(cluster, preflight.parameters)
    if artifacts:
        yield artifacts
    if preflight.parameters["store"]:
        yield Location("the steps", preflight.parameters["store"], own)


def artifact_location(cluster: Cluster, parameters: Mapping[str, Any]) -> Location | None:
    """Return where the launcher puts artifacts and logs, by a run's s3_secret and s3_config; None if not into S3."""
    launcher, own = read_launcher(cluster), steps_environment(cluster, parameters)
    return Location("KFP's launcher", launcher.uri, _environment(cluster, launcher, own)) if launcher.is_s3 else None


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


def steps_environment(cluster: Cluster, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the AWS variables that every step's pod gets from its Secret and its ConfigMap."""
    secret = cluster.secret(parameters["s3_secret"]) or {}
    config = cluster.config_map(parameters["s3_config"]) or {}
    chosen = {name: secret.get(name) for name in (ACCESS, SECRET, TOKEN)}
    chosen |= {name: config.get(name) for name in (ENDPOINT, REGION)}
    return {name: value for name, value in chosen.items() if value}


def has_role(cluster: Cluster) -> bool:
    """Return whether the pods' service account has an AWS role, so that no keys are needed."""
    return ROLE in ((cluster.account and cluster.account.metadata.annotations) or {})


def is_internal(endpoint: str) -> bool:
    """Return whether an address is that of a Service, which only pods can reach."""
    host = urlsplit(endpoint).hostname or ""
    return host != "localhost" and (".svc" in host or host.count(".") < 2)


def _settings(provider: dict[str, Any], bucket: str, prefix: str) -> dict[str, Any]:
    """Return the default with the override for a bucket and prefix."""
    default = provider.get("default") or {}
    for override in provider.get("overrides") or []:
        if override.get("bucketName") == bucket and prefix.startswith((override.get("keyPrefix") or "").strip("/")):
            return {**default, **override}
    return dict(default)


def _secret_of(credentials: dict[str, Any], scheme: str) -> dict[str, str]:
    """Return the reference to a Secret, empty if the environment counts. Raises UserError if there is neither."""
    if credentials.get("fromEnv"):
        return {}
    secret = credentials.get("secretRef")
    if not secret:
        raise UserError(f"kfp-launcher has no credentials for {scheme}://", "add secretRef or fromEnv: true")
    lacking = [key for key in SEAWEEDFS_KEYS if not secret.get(key)]
    if lacking:
        raise UserError(f"kfp-launcher has a secretRef without {', '.join(lacking)}", "add what is missing")
    return dict(secret)


def _url(settings: dict[str, Any]) -> str:
    endpoint = str(settings.get("endpoint") or "")
    if not endpoint or "://" in endpoint:
        return endpoint
    return f"{'http' if settings.get('disableSSL') else 'https'}://{endpoint}"


def _environment(cluster: Cluster, launcher: Launcher, own: dict[str, str]) -> dict[str, str]:
    """Return the launcher's settings as variables of the AWS tools."""
    if launcher.secret:
        values = cluster.secret(launcher.secret["secretName"]) or {}
        keys = {
            ACCESS: values.get(launcher.secret["accessKeyKey"]),
            SECRET: values.get(launcher.secret["secretKeyKey"]),
        }
    else:
        keys = {name: own.get(name) for name in (ACCESS, SECRET, TOKEN)}
    keys[ENDPOINT] = launcher.endpoint or (own.get(ENDPOINT) if not launcher.secret else "")
    keys[REGION] = launcher.region or own.get(REGION)
    return {name: value for name, value in keys.items() if value}


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
