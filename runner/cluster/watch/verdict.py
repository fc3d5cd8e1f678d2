"""The verdict on a run's model, as its steps reached it: nobody else reaches one.

It stands in what `evaluate` and `register` left in the store of KFP's artifacts; their logs tell it too. A prediction
has none: what stands there is how many pictures `collect` found predicted.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from kfp.dsl.base_component import BaseComponent

from components.shared.core.document import Document
from components.shared.core.errors import UserError
from components.shared.core.log import read_event
from components.shared.evaluation.document import EvaluationDocument
from components.shared.prediction.document import PredictionsDocument
from components.shared.registry.document import RegistrationDocument
from runner.cluster import run_state
from runner.cluster.artifacts.left import Left
from runner.cluster.logs import read_log
from runner.cluster.run_state import Verdict
from runner.cluster.watch.origin import get_run, origin_id
from runner.cluster.watch.view import View
from runner.summary import Predicted, Registered, predicted_by, registered_by

Read = TypeVar("Read", bound=Document)
Told = dict[str, Any]  # accuracy, accepted and reasons


def find_verdict(view: View, run: Any, pipeline: BaseComponent) -> Verdict:
    """Return the verdict as far as it is known: from the store, else from the steps' logs."""
    return _Search(view, run, pipeline).verdict()


@dataclass
class _Search:
    """Looks for the verdict of one run."""

    view: View
    run: Any
    pipeline: BaseComponent
    why_unseen: str | None = None  # what the steps left

    def verdict(self) -> Verdict:
        if "collect" in self.steps:
            return Verdict(predicted=self._predicted())
        told, origin = self._evaluated()
        registration = self._read(RegistrationDocument, self.run.run_id, "register") if self._ran("register") else None
        told = told or self._by_register(registration)
        if "accepted" not in told and self.why_unseen:
            self.view.refuse("artifacts", self.why_unseen)
        return Verdict(
            accuracy=told.get("accuracy"),
            accepted=told.get("accepted"),
            reasons=told.get("reasons"),
            registered=registered_by(registration) if registration else self._registered(),
            from_run=origin,
        )

    def _predicted(self) -> Predicted | None:
        """Return what `collect`, which is never cached, has joined."""
        if not self._ran("collect"):
            return None
        if document := self._read(PredictionsDocument, self.run.run_id, "collect"):
            return predicted_by(document)
        event = _last(read_log(self.view.connection, self.run, "collect"), "predicted")
        if not event and self.why_unseen:
            self.view.refuse("artifacts", self.why_unseen)
        return Predicted(**{name: event[name] for name in Predicted.model_fields}) if event else None

    def _evaluated(self) -> tuple[Told, str | None]:
        """Return what `evaluate` found, and in which run, if it is another one."""
        if self._ran("evaluate") and (told := self._of_run(self.run.run_id, self.run)):
            return told, None
        if self.steps["evaluate"].state not in ("cached", run_state.UNKNOWN):
            return {}, None
        origin = origin_id(self.view, self.run, self.pipeline, "evaluate")
        told = self._of_run(origin, None) if origin else {}
        return told, origin if told else None

    def _of_run(self, run_id: str, run: Any) -> Told:
        document = self._read(EvaluationDocument, run_id, "evaluate")
        if document:
            return {"accuracy": document.accuracy, "accepted": document.accepted, "reasons": document.reasons}
        run = run or get_run(self.view, run_id)
        return _last(read_log(self.view.connection, run, "evaluate"), "verdict") if run else {}

    def _by_register(self, registration: RegistrationDocument | None) -> Told:
        """Return what `register`, which is never cached, repeats of the verdict."""
        if told := _last(self._register_log, "verdict"):
            return told
        return {"accepted": registration.package_digest is not None} if registration else {}

    def _registered(self) -> Registered | None:
        event = _last(self._register_log, "registered")
        return Registered(**{name: event[name] for name in Registered.model_fields}) if event else None

    @cached_property
    def steps(self) -> dict[str, Any]:
        return run_state.steps(self.run, self.pipeline)

    def _ran(self, step: str) -> bool:
        return self.steps[step].state in ("done", "failed", run_state.UNKNOWN)

    @cached_property
    def _register_log(self) -> str | None:
        return read_log(self.view.connection, self.run, "register") if self._ran("register") else None

    @cached_property
    def _left(self) -> Left:
        return Left(self.view.connection, self.pipeline, self.run)

    def _read(self, kind: type[Read], run_id: str, step: str) -> Read | None:
        """Return the document of a step's artifact, which has its name; None if there is none, or it cannot be seen."""
        if self.why_unseen:
            return None
        name = kind.FORMAT.rpartition("/")[2]
        try:
            content = self._left.newest(run_id, step, f"{name}/{name}.json", kind.MAX_BYTES)
            return None if content is None else kind.parse(content, f"{name}.json of run {run_id}")
        except UserError as error:
            self.why_unseen = str(error)
            return None


def _last(log: str | None, kind: str) -> dict[str, Any]:
    """Return the last event of a kind in a log; empty if there is none."""
    events = [event for line in (log or "").splitlines() if (event := read_event(line)) and event.get("event") == kind]
    return events[-1] if events else {}
