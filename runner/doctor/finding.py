"""A finding of a check: its state, what was seen, and the remedy."""

import json
from typing import Literal, NamedTuple

from kubernetes.client.exceptions import ApiException

from runner.doctor.rights import Right, denied_right, roles

State = Literal["ok", "warning", "problem", "unknown"]


class Finding(NamedTuple):
    """One line of the doctor's table; only a problem keeps a run from succeeding."""

    state: State
    text: str
    remedy: str = ""
    right: Right | None = None  # that this user lacks


def ok(text: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding("ok", text)


def warning(text: str, remedy: str) -> Finding:
    """Return a finding about something that makes a run slower, less safe or less reliable."""
    return Finding("warning", text, remedy)


def problem(text: str, remedy: str) -> Finding:
    """Return a finding that would make the run fail."""
    return Finding("problem", text, remedy)


def unknown(text: str, remedy: str) -> Finding:
    """Return a finding about something that could not be checked."""
    return Finding("unknown", text, remedy)


def refused(error: ApiException) -> Finding:
    """Return what an error answer of the Kubernetes API means for the check that asked."""
    message = message_of(error)
    if error.status == 401:
        return problem("the Kubernetes API does not know this user (401)", "log in again, or choose another --context")
    right = denied_right(message) if error.status == 403 else None
    if right:
        return Finding("unknown", f"this user may not {right}", f"ask for the right: {roles([right])}", right)
    is_transient = error.status in (None, 429) or error.status >= 500
    remedy = "try again later" if is_transient else "ask the cluster's administrator"
    return unknown(f"the Kubernetes API answered {error.status}: {message}", remedy)


def message_of(error: ApiException) -> str:
    """Return the message of a `Status` answer, or the HTTP reason if the body is something else."""
    try:
        return " ".join(str(json.loads(error.body)["message"]).split())
    except (TypeError, ValueError, KeyError):
        return str(error.reason or "no reason")
