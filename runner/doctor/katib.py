"""Check the version of Katib, which manifests/katib needs and no graph does."""

from collections.abc import Iterator

from runner.doctor.cluster import Cluster, parse_version
from runner.doctor.finding import Finding, ok, warning
from runner.doctor.preflight import Preflight

CONTROLLER = "katib-controller"  # Katib's deployment
OLDEST = (0, 16)


def check_katib(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check Katib's version, by the tag of its controller's image."""
    deployment = cluster.deployment(CONTROLLER)
    if deployment is None:
        yield ok(f"no Katib in namespace {cluster.kfp_namespace}; only manifests/katib needs it")
        return
    image = str(deployment.spec.template.spec.containers[0].image)
    version = parse_version(image.partition("@")[0].rpartition(":")[2])
    if version and version < OLDEST:
        yield warning(f"Katib is {image}; manifests/katib needs {'.'.join(map(str, OLDEST))} or newer", "upgrade Katib")
    else:
        yield ok(f"Katib is {image}")
