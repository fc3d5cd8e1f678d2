"""Check Kubeflow Pipelines itself: its version, this user's access to the runs of a namespace, and the token for it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from runner.cluster.connection import Connection
from runner.cluster.token import expired_since, expiry, span
from runner.doctor.cluster import parse_version
from runner.doctor.finding import Finding, ok, problem, warning

OLDEST = (2, 17)  # the first KFP whose exit handler sees the state of nested groups
SOON = timedelta(hours=1)


def check_kfp(connection: Connection) -> Iterator[Finding]:
    """Check the version and, if there are many users, the access. Raises UserError if access is refused."""
    yield _check_version(connection)
    if connection.multi_user:  # which then tells its version to everybody
        connection.client.list_runs(page_size=1, namespace=connection.namespace)
        yield ok(f"this user may list the runs of namespace {connection.namespace}")


def check_token(name: str, token: str | None, remedy: str, is_renewed: bool = False) -> Iterator[Finding]:
    """Report when a token expires; nothing if there is none, it does not say, or it is renewed in time."""
    end = expiry(token or "")
    if not end or not token:
        return
    since = expired_since(token)
    left = end - datetime.now(UTC)
    if since:
        yield problem(f"{name} expired {since} ago", remedy)
    elif left < SOON and not is_renewed:
        yield warning(f"{name} expires in {span(left)}", f"{remedy} before then")
    else:
        yield ok(f"{name} expires in {span(left)}{', and is renewed before' if is_renewed else ''}")


def _check_version(connection: Connection) -> Finding:
    """Check KFP's version, which its server sends in a field that the client's model does not have."""
    answer = connection.client.healthzs.healthz_service_get_healthz(_preload_content=False)
    tag = str(json.loads(answer.data).get("tag_name", ""))
    version = parse_version(tag)
    oldest = ".".join(map(str, OLDEST))
    if not version:
        return warning(
            f"KFP answers but does not show its version ({tag or 'none'})", f"check that it is {oldest} or newer"
        )
    if version < OLDEST:
        return problem(f"KFP is {tag}, older than {oldest}: failed steps may not reach the exit handler", "upgrade KFP")
    return ok(f"KFP {tag} answers, {'multi-user' if connection.multi_user else 'standalone'}")
