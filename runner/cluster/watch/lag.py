"""KFP tells of a run's tasks some seconds after Argo, which looks at it every 10 s: late is not yet stale."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kfp.dsl.base_component import BaseComponent

from runner.cluster import run_state
from runner.cluster.watch.pods import may_be_stale
from runner.cluster.watch.view import LIVE, View

LAG_SECONDS = 30.0  # in which KFP has caught up, or its tasks are stale
POLL_SECONDS = 5.0


@dataclass
class Lag:
    """For how long KFP's tasks have contradicted what else is known of a run."""

    since: float | None = None

    def may_end(self, is_wrong: bool) -> bool:
        """Return whether tasks that are wrong now may soon be right by themselves."""
        if not is_wrong:
            self.since = None
            return False
        self.since = time.monotonic() if self.since is None else self.since
        return time.monotonic() - self.since < LAG_SECONDS


def settled(view: View, run: Any, pipeline: BaseComponent) -> tuple[Any, list[Any]]:
    """Return a run, read again while its tasks may only be late, and its pods that have not ended."""
    lag = Lag()
    while True:
        pods = [] if run.state in run_state.FINAL else view.pods(LIVE)
        is_wrong = may_be_stale(run, pipeline, pods)
        may_end = lag.may_end(is_wrong) and not _ended_long_ago(run)
        if not is_wrong or view.correct(run, quietly=may_end) or not may_end:
            return run, pods
        time.sleep(POLL_SECONDS)
        run = view.connection.client.get_run(run.run_id)


def _ended_long_ago(run: Any) -> bool:
    has_ended = run.state in run_state.FINAL and run.finished_at
    return bool(has_ended and abs((datetime.now(UTC) - run.finished_at).total_seconds()) > LAG_SECONDS)
