"""The pods of a run while it runs: why one waits, and how a training goes on."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.training.distributed.trainjob.backend import WAITING
from components.step_table import STEP_LABEL
from runner.cluster import run_state
from runner.cluster.watch.nodes import STEP as DISTRIBUTED
from runner.cluster.watch.nodes import Node, Nodes
from runner.cluster.watch.reasons import (
    LIVE_PHASE,
    OWN,
    TRAINING,
    Reason,
    is_creating,
    is_driver,
    step_named,
    step_of,
    why_refused,
    why_waiting,
)
from runner.cluster.watch.view import View
from runner.summary import StepState
from runner.terminal import BAR, LINE, Terminal

ACTIVE = ("starting", "running")
TRIAL = re.compile(r"trial (\d+)\b")  # the start of what step trial says of a trial itself


def is_behind(run: Any, pipeline: BaseComponent, pods: list[Any]) -> bool:
    """Return whether KFP does not list a step as active that has one of these pods: its tasks may be stale for good."""
    steps = run_state.steps(run, pipeline)
    alive = {step_of(pod) for pod in pods} & steps.keys()
    return bool(alive) and not any(steps[name].state in ACTIVE for name in alive)


def correct_by_pods(steps: dict[str, StepState], pods: list[Any]) -> None:
    """Say of active steps what these pods of theirs do: KFP does not tell which of two side by side still waits."""
    for name, step in steps.items():
        phases = {pod.status.phase for pod in pods if step_of(pod) == name and not is_driver(pod)}
        if step.state in ACTIVE and phases & {LIVE_PHASE, "Pending"}:
            step.state = "running" if LIVE_PHASE in phases else "starting"


def may_be_stale(run: Any, pipeline: BaseComponent, pods: list[Any]) -> bool:
    """Return whether KFP's tasks contradict the run's own state or these pods: they are stale, or only late."""
    return run_state.is_stale(run) or is_behind(run, pipeline, pods)


def container_seconds(pods: list[Any]) -> float | None:
    """Return how long a step's containers ran by Kubernetes; None if it does not tell of all of these pods."""
    statuses = [one for pod in pods for one in pod.status.container_statuses or [] if one.name == "main" and one.state]
    ended = [one.state.terminated for one in statuses if one.state.terminated]
    spans = [(one.finished_at - one.started_at).total_seconds() for one in ended if one.started_at and one.finished_at]
    return sum(spans) if spans and len(spans) == len(pods) else None


def measure(steps: dict[str, StepState], pods: list[Any]) -> None:
    """Give steps that have ended the seconds of their containers, as far as these pods of the run tell them."""
    for name, step in steps.items():
        own = container_seconds([pod for pod in pods if (pod.metadata.labels or {}).get(STEP_LABEL) == name])
        if own is not None and step.state in ("done", "failed"):
            step.seconds = own


def reasons_of(nodes: Nodes, pods: list[Any], found: list[Node]) -> dict[str, Reason]:
    """Return why steps of the run wait, by step; one that runs may wait for the nodes that were found."""
    waiting = nodes.waiting(found)
    return ({DISTRIBUTED: waiting} if waiting else {}) | dict(_reasons(nodes.view, pods))


def refusals(view: View, steps: Iterable[str]) -> dict[str, Reason]:
    """Return why Kubernetes takes no pod of these active steps, which have none; nothing if it is not known."""
    if "pods" in view.refused or not (wanted := set(steps)):
        return {}
    found = {}
    for node, message in view.pending().items():
        step = step_named(node)
        reason = why_refused(message, is_training=OWN in node and step in TRAINING)
        if reason and step in wanted:
            found[step] = reason
    return found


def without_pods(steps: dict[str, StepState], pods: list[Any]) -> set[str]:
    """Return the active steps of which none of these pods is."""
    return {name for name, step in steps.items() if step.state in ACTIVE} - {step_of(pod) for pod in pods}


def _reasons(view: View, pods: list[Any]) -> Iterator[tuple[str, Reason]]:
    for pod in pods:
        reason = why_waiting(pod, view.events(pod) if is_creating(pod) else [])
        if reason:
            yield step_of(pod), reason


@dataclass
class Pods:
    """Shows why pods wait, once and again where it changes, and on a terminal the training's own lines."""

    view: View
    terminal: Terminal
    reasons: dict[str, Reason] = field(default_factory=dict)  # step -> the reason last shown
    bare: set[str] = field(default_factory=set)  # the steps that had no pod at the last call
    printed: set[str] = field(default_factory=set)  # a training's lines that were shown
    trials: dict[str, str] = field(default_factory=dict)  # pod of a sweep -> the trial that it does

    @cached_property
    def nodes(self) -> Nodes:
        """The nodes of a distributed training, which are pods besides those of the run."""
        return Nodes(self.view)

    def show(self, pods: list[Any], steps: dict[str, StepState]) -> None:
        """Show what has changed since the last call."""
        nodes, bare = self.nodes.beside(pods), without_pods(steps, pods)
        # Between two steps Argo needs some seconds to make a pod.
        reasons = reasons_of(self.nodes, pods, nodes) | refusals(self.view, bare & self.bare)
        self.bare = bare
        for step, reason in reasons.items():
            if self.reasons.get(step) != reason:
                self.terminal.show(f"[{step}] waits: {reason}")
        self.reasons = reasons
        self._show_killed(nodes)
        if self.terminal.live:
            self._show_training([pod for pod in pods if pod.status.phase == LIVE_PHASE and step_of(pod) in TRAINING])

    def _may_show(self, text: str) -> bool:
        """Return whether a training's line is new, and not what Kubernetes has told of its nodes."""
        if text.startswith(WAITING) and DISTRIBUTED in self.reasons:
            self.printed.add(text)
        return text not in self.printed

    def _show_killed(self, nodes: list[Node]) -> None:
        """Show what ended nodes, unless the step has printed the same."""
        for killed in self.nodes.newly_killed(nodes):
            if killed not in self.printed:
                self.printed.add(killed)
                self.terminal.show(f"[{DISTRIBUTED}] {killed}")

    def _show_training(self, pods: list[Any]) -> None:
        """Show the new lines of the trainings that run, and the progress of each in place."""
        bars, fresh = [], []
        for pod in pods:
            texts = list(self._texts(pod))
            bars += [text for text in texts if BAR.match(text)][-1:]
            fresh += [text for text in texts if not BAR.match(text) and self._may_show(text)]
        if bars or fresh:
            self.terminal.erase()
        for text in fresh:
            self.printed.add(text)
            self.terminal.show(f"[{step_of(pods[0])}] {text}")
        if bars:
            self.terminal.show_bars([f"[{step_of(pods[0])}] {text}" for text in bars])

    def _texts(self, pod: Any) -> Iterator[str]:
        """Yield the last lines of a training's own; those of a sweep, which run side by side, with the trial."""
        for line in filter(None, map(LINE.match, self.view.last_lines(pod))):
            if found := TRIAL.match(line["text"]):
                self.trials[pod.metadata.name] = found[1]
                yield line["text"]
            else:
                trial = self.trials.get(pod.metadata.name)
                yield f"trial {trial}, {line['text']}" if trial else line["text"]
