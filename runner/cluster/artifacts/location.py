"""Where KFP's launcher puts the artifacts and logs of steps, and with whose credentials: by ConfigMap kfp-launcher."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import yaml

from components.shared.core.errors import UserError
from components.shared.storage.endpoint import AWS

ROOT = "minio://mlpipeline/v2/artifacts"  # KFP's default
SEAWEEDFS = "http://seaweedfs.kubeflow:9000"
SEAWEEDFS_KEYS = {"secretName": "mlpipeline-minio-artifact", "accessKeyKey": "accesskey", "secretKeyKey": "secretkey"}
ACCESS, SECRET, TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
ENDPOINT, REGION = "AWS_ENDPOINT_URL_S3", "AWS_REGION"


class Namespace(Protocol):
    """The namespace of the runs: what its Secrets and ConfigMaps hold."""

    def secret(self, name: str) -> dict[str, str] | None:
        """Return the values of a Secret as text, or None if it does not exist."""

    def config_map(self, name: str) -> dict[str, str] | None:
        """Return the values of a ConfigMap, or None if it does not exist."""


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


def read_launcher(namespace: Namespace, root: str | None = None) -> Launcher:
    """Return the launcher's settings by the rules of KFP's backend; a run may have a `root` of its own.

    Raises UserError if KFP would refuse them.
    """
    data = namespace.config_map("kfp-launcher") or {}
    root = root or data.get("defaultPipelineRoot") or ROOT
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


def artifact_location(namespace: Namespace, parameters: Mapping[str, Any], root: str | None = None) -> Location | None:
    """Return where the launcher puts artifacts and logs, by a run's s3_secret and s3_config; None if not into S3.

    A run may have a `root` of its own.
    """
    launcher, own = read_launcher(namespace, root), steps_environment(namespace, parameters)
    return Location("KFP's launcher", launcher.uri, _environment(namespace, launcher, own)) if launcher.is_s3 else None


def steps_environment(namespace: Namespace, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the AWS variables that every step's pod gets from its Secret and its ConfigMap."""
    secret = namespace.secret(parameters["s3_secret"]) or {}
    config = namespace.config_map(parameters["s3_config"]) or {}
    chosen = {name: secret.get(name) for name in (ACCESS, SECRET, TOKEN)}
    chosen |= {name: config.get(name) for name in (ENDPOINT, REGION)}
    return {name: value for name, value in chosen.items() if value}


def parse_yaml(data: Mapping[str, str], key: str, name: str) -> dict[str, Any]:
    """Return the mapping under a key of ConfigMap `name`, empty if the key is absent.

    Raises UserError if the value is not a mapping.
    """
    try:
        found = yaml.safe_load(data.get(key, "")) or {}
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"ConfigMap {name} has no YAML mapping under its key {key}", "correct it")
    return found


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


def _environment(namespace: Namespace, launcher: Launcher, own: dict[str, str]) -> dict[str, str]:
    """Return the launcher's settings as variables of the AWS tools."""
    if launcher.secret:
        values = namespace.secret(launcher.secret["secretName"]) or {}
        keys = {
            ACCESS: values.get(launcher.secret["accessKeyKey"]),
            SECRET: values.get(launcher.secret["secretKeyKey"]),
        }
    else:
        keys = {name: own.get(name) for name in (ACCESS, SECRET, TOKEN)}
    keys[ENDPOINT] = launcher.endpoint or (own.get(ENDPOINT) if not launcher.secret else "")
    keys[REGION] = launcher.region or own.get(REGION)
    return {name: value for name, value in keys.items() if value}
