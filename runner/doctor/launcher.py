"""Where a run's artifacts go, and with whose credentials: KFP's launcher and the steps beside each other."""

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from components.shared.core.errors import UserError
from components.shared.storage.endpoint import AWS
from runner.doctor.cluster import Cluster, parse_yaml
from runner.doctor.finding import Finding, ok, problem, unknown, warning
from runner.doctor.plan import Run

ROOT = "minio://mlpipeline/v2/artifacts"  # of a launcher that is told nothing
SEAWEEDFS = "http://seaweedfs.kubeflow:9000"
SEAWEEDFS_KEYS = {"secretName": "mlpipeline-minio-artifact", "accessKeyKey": "accesskey", "secretKeyKey": "secretkey"}
ACCESS, SECRET, TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
ENDPOINT, REGION = "AWS_ENDPOINT_URL_S3", "AWS_REGION"
ROLE = "eks.amazonaws.com/role-arn"  # the annotation that gives a service account's pods a role of AWS


class Place(NamedTuple):
    """A place in S3: its address and the environment of who uses it."""

    user: str
    uri: str
    environment: dict[str, str]

    @property
    def endpoint(self) -> str:
        return self.environment.get(ENDPOINT) or AWS


class Launcher(NamedTuple):
    """What KFP's launcher is told in ConfigMap kfp-launcher."""

    root: str
    endpoint: str
    region: str
    path_style: bool
    secret: dict[str, str]  # secretName, accessKeyKey, secretKeyKey; empty where the step's environment counts

    @property
    def is_s3(self) -> bool:
        """Whether artifacts go to S3 at all, and not to Google's store."""
        return not self.root.startswith("gs://")

    @property
    def uri(self) -> str:
        """The root as s3://bucket/prefix."""
        parts = urlsplit(self.root)
        return f"s3://{parts.netloc}{parts.path}"


def read_launcher(cluster: Cluster) -> Launcher:
    """The launcher's settings, by the rules of KFP's backend; UserError where it would refuse them."""
    data = cluster.config("kfp-launcher") or {}
    root = data.get("defaultPipelineRoot") or ROOT
    parts = urlsplit(root)
    if parts.scheme not in ("minio", "s3", "gs"):
        raise UserError(f"kfp-launcher has defaultPipelineRoot {root}; begin it with s3://, minio:// or gs://")
    provider = parse_yaml(data, "providers", "kfp-launcher").get(parts.scheme)
    if parts.query or parts.scheme == "gs" or (not provider and parts.scheme == "s3"):
        return Launcher(root, "", "", True, {})
    if not provider:
        return Launcher(root, SEAWEEDFS, "", True, SEAWEEDFS_KEYS)
    settings = _settings(provider, parts.netloc, parts.path.strip("/"))
    secret = _secret_of(settings.get("credentials") or {}, parts.scheme)
    return Launcher(root, _url(settings), settings.get("region") or "", settings.get("forcePathStyle", True), secret)


def places(cluster: Cluster, run: Run) -> Iterator[Place]:
    """Where the launcher and, with a store, the steps go, with the credentials of each."""
    launcher, own = read_launcher(cluster), steps_environment(cluster, run)
    if launcher.is_s3:
        yield Place("KFP's launcher", launcher.uri, _environment(cluster, launcher, own))
    if run.parameters["store"]:
        yield Place("the steps", run.parameters["store"], own)


def endpoints(cluster: Cluster, run: Run) -> set[str]:
    """The addresses of the S3 servers that launcher and steps speak to; no Secret is read for them."""
    own = (cluster.config(run.parameters["s3_config"]) or {}).get(ENDPOINT) or AWS
    return {own, read_launcher(cluster).endpoint or own}


def check_launcher(cluster: Cluster, run: Run) -> Iterator[Finding]:
    """Whether the launcher has credentials, and whether they and those of the steps are of one account."""
    launcher, own = read_launcher(cluster), steps_environment(cluster, run)
    name, config = run.parameters["s3_secret"], run.parameters["s3_config"]
    if not launcher.is_s3:
        yield unknown(f"artifacts go to {launcher.root}, which is no S3", "see that pods may write there")
        return
    if not launcher.path_style and launcher.endpoint and "amazonaws" not in launcher.endpoint:
        yield warning(
            f"kfp-launcher has forcePathStyle false: it will look for {urlsplit(launcher.uri).netloc} in DNS",
            "set forcePathStyle: true in kfp-launcher, unless the S3 server serves buckets by host name",
        )
    if launcher.secret:
        yield from _by_secret(cluster, launcher, own, name)
    elif own.get(ACCESS) or has_role(cluster):
        yield ok(f"launcher and steps share the steps' credentials; artifacts go to {launcher.root}")
    else:
        yield problem(
            f"artifacts go to {launcher.root} with the steps' credentials, and there are none",
            f"make Secret {name} with {ACCESS} and {SECRET}, or give service account {cluster.service_account} a role",
        )
    if launcher.endpoint and own.get(ENDPOINT) and _host(launcher.endpoint) != _host(own[ENDPOINT]):
        yield warning(
            f"artifacts go to {launcher.endpoint}, but ConfigMap {config} sends the steps to {own[ENDPOINT]}",
            "set both to one S3 server, unless two are meant",
        )


def steps_environment(cluster: Cluster, run: Run) -> dict[str, str]:
    """The AWS variables that every step's pod gets from its Secret and its ConfigMap."""
    secret = cluster.secret(run.parameters["s3_secret"]) or {}
    config = cluster.config(run.parameters["s3_config"]) or {}
    chosen = {name: secret.get(name) for name in (ACCESS, SECRET, TOKEN)}
    chosen |= {name: config.get(name) for name in (ENDPOINT, REGION)}
    return {name: value for name, value in chosen.items() if value}


def has_role(cluster: Cluster) -> bool:
    """Whether the pods' service account is tied to a role of AWS, so that no keys are needed."""
    return ROLE in ((cluster.account and cluster.account.metadata.annotations) or {})


def is_internal(endpoint: str) -> bool:
    """Whether an address is a Service's, which only pods can reach."""
    host = urlsplit(endpoint).hostname or ""
    return host != "localhost" and (".svc" in host or host.count(".") < 2)


def _settings(provider: dict[str, Any], bucket: str, prefix: str) -> dict[str, Any]:
    """The override for a bucket and prefix on top of the default."""
    default = provider.get("default") or {}
    for override in provider.get("overrides") or []:
        if override.get("bucketName") == bucket and prefix.startswith((override.get("keyPrefix") or "").strip("/")):
            return {**default, **override}
    return dict(default)


def _secret_of(credentials: dict[str, Any], scheme: str) -> dict[str, str]:
    """The reference to a Secret; empty where the environment counts. UserError where there is neither."""
    if credentials.get("fromEnv"):
        return {}
    secret = credentials.get("secretRef")
    if not secret:
        raise UserError(f"kfp-launcher has no credentials for {scheme}://; add secretRef or fromEnv: true")
    lacking = [key for key in SEAWEEDFS_KEYS if not secret.get(key)]
    if lacking:
        raise UserError(f"kfp-launcher has a secretRef without {', '.join(lacking)}; add it")
    return dict(secret)


def _url(settings: dict[str, Any]) -> str:
    endpoint = str(settings.get("endpoint") or "")
    if not endpoint or "://" in endpoint:
        return endpoint
    return f"{'http' if settings.get('disableSSL') else 'https'}://{endpoint}"


def _environment(cluster: Cluster, launcher: Launcher, own: dict[str, str]) -> dict[str, str]:
    """What the launcher uses, as variables of the AWS tools."""
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
    name = launcher.secret["secretName"]
    values = cluster.secret(name)
    lacking = [
        key for key in (launcher.secret["accessKeyKey"], launcher.secret["secretKeyKey"]) if key not in (values or {})
    ]
    if values is None or lacking:
        text = f"the launcher's Secret {name} {'does not exist' if values is None else 'lacks ' + ', '.join(lacking)}"
        yield problem(text, "KFP's Profile controller makes it; else correct secretRef in ConfigMap kfp-launcher")
    elif own.get(ACCESS, values[launcher.secret["accessKeyKey"]]) != values[launcher.secret["accessKeyKey"]]:
        yield warning(
            f"the launcher uses Secret {name}, the steps use {steps_secret} with another access key",
            f"put the same keys into {steps_secret}, unless each account may use what it needs",
        )
    else:
        yield ok(f"artifacts go to {launcher.root} with Secret {name}")


def _host(endpoint: str) -> str:
    """Host and port; a Service's long and short names are one."""
    parts = urlsplit(endpoint)
    host = (parts.hostname or "").removesuffix(".svc.cluster.local").removesuffix(".svc")
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
