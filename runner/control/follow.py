"""The lines that the steps of a run print, as they come: from its pods, also the nodes of a distributed training.

Without rights on pods they are read from KFP, which shows neither a training's other nodes nor times.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from kfp.dsl.base_component import BaseComponent

from components.step_table import STEP_LABEL
from runner.cluster import run_state
from runner.cluster.logs import read_log
from runner.cluster.rest import ApiError
from runner.cluster.run_facts import has_ended
from runner.cluster.watch.nodes import STEP as DISTRIBUTED
from runner.cluster.watch.nodes import Nodes
from runner.cluster.watch.view import View
from runner.control.log_lines import LogLine, LogReader, of_first_node

POLL_SECONDS = 2.0
MARGIN = 10  # seconds that are read again, for clocks differ


class Source(NamedTuple):
    """A container whose lines are followed."""

    pod: str
    container: str
    step: str
    rank: int | None = None


@dataclass
class Position:
    """How far a log has been read."""

    reader: LogReader
    last: str = ""  # the time of the last line, as Kubernetes writes it
    looked: float | None = None  # when it was read, by this machine's clock
    count: int = 0  # of the lines that were read from KFP


@dataclass
class Follower:
    """Yields the new lines of the steps of one run until it has ended."""

    view: View
    pipeline: BaseComponent
    steps: list[str]
    takes_all: bool
    times: bool
    positions: dict[str, Position] = field(default_factory=dict)  # by pod, or by step if KFP is read

    @cached_property
    def nodes(self) -> Nodes:
        """The nodes of a distributed training."""
        return Nodes(self.view)

    def lines(self, run: Any) -> Iterator[tuple[str, LogLine]]:
        """Yield step and line. Raises ApiError if KFP refuses to tell of the run."""
        while True:
            is_last = has_ended(run)  # before the logs are read, so that the last lines are among them
            yield from self._new_lines(run)
            if is_last:
                return
            time.sleep(POLL_SECONDS)
            try:
                run = self.view.connection.client.get_run(run.run_id)
            except ApiError as error:
                if not self.view.connection.may_pass(error):
                    raise

    def _new_lines(self, run: Any) -> Iterator[tuple[str, LogLine]]:
        sources = list(self._sources())
        for source in sources:
            yield from ((source.step, line) for line in self._of_pod(source))
        if "pods" in self.view.refused or "pods/log" in self.view.refused:
            for step in self.steps:
                yield from ((step, line) for line in self._of_kfp(run, step))

    def _sources(self) -> Iterator[Source]:
        for pod in self.view.pods():
            step = (pod.metadata.labels or {}).get(STEP_LABEL)
            if step in self.steps and pod.status.phase != "Pending":
                yield Source(pod.metadata.name, "main", step)
        if DISTRIBUTED in self.steps:
            yield from self._of_nodes()

    def _of_nodes(self) -> Iterator[Source]:
        """Yield the nodes of the run's TrainJobs; what the first prints, the step repeats."""
        for rank, pod in self.nodes.find():
            if rank and pod.status.phase != "Pending":
                yield Source(pod.metadata.name, pod.spec.containers[0].name, DISTRIBUTED, rank)

    def _of_pod(self, source: Source) -> Iterator[LogLine]:
        position = self._position(source.pod, timed=True)
        now = time.monotonic()
        since = None if position.looked is None else int(now - position.looked) + MARGIN
        log = self.view.log(source.pod, container=source.container, timestamps=True, since_seconds=since)
        if log is None:
            return
        position.looked = now
        fresh = [line for line in log.splitlines() if line.partition(" ")[0] > position.last]
        if fresh:
            position.last = fresh[-1].partition(" ")[0]
        for line in position.reader.read(fresh, source.rank):
            shown = line.model_copy(update={} if self.times else {"time": None})
            yield of_first_node(shown) if source.step == DISTRIBUTED and source.rank is None else shown

    def _of_kfp(self, run: Any, step: str) -> Iterator[LogLine]:
        """Yield the lines of a step's whole log that were not there before."""
        if not any(task.display_name == step for task in run_state.tasks(run)):
            return
        position = self._position(step, timed=False)
        lines = (read_log(self.view.connection, run, step) or "").splitlines()
        yield from position.reader.read(lines[position.count :])
        position.count = max(position.count, len(lines))

    def _position(self, name: str, timed: bool) -> Position:
        return self.positions.setdefault(name, Position(LogReader(self.takes_all, timed)))
