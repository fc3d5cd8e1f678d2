"""The store that a verb reads: that of `make run`, one that the environment describes, or one of the cluster."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager

from components.shared.core.errors import UserError
from components.shared.storage.client import Store
from runner.local import s3_server
from runner.terminal import note

# Each of them says where a store is, or who may use it.
TOLD = (
    *("AWS_ENDPOINT_URL_S3", "S3_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"),
    *("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
)


@contextmanager
def store_of(arguments: argparse.Namespace, uri: str | None = None) -> Iterator[Store]:
    """Open the store at `uri` or, without one, the one that --store names; without both, that of `make run`.

    If the environment does not say how to reach it, or an option names a cluster, the cluster does.
    """
    uri = uri or arguments.store
    is_named = bool(arguments.context or arguments.namespace)
    if is_named and not uri:
        raise UserError("--context and --namespace need a store", "give --store s3://BUCKET/PREFIX")
    if not uri or uri.rstrip("/") == s3_server.STORE or not (is_named or _is_untold()):
        with s3_server.store_of(uri, arguments.runs) as store:
            yield store
        return
    from runner.cluster.store import cluster_store  # 0.5 s, which a store elsewhere does not need

    namespace = arguments.namespace or os.environ.get("KFP_NAMESPACE") or arguments.kfp_namespace
    note(f"with the keys of Secret {arguments.s3_secret} in namespace {namespace}")
    with cluster_store(uri, arguments) as store:
        yield store


def _is_untold() -> bool:
    return not any(os.environ.get(name) for name in TOLD)
