"""The rollout of a version: a canary, its smoke test, the traffic in steps, and the promotion.

Whatever ends it before the promotion takes the canary back, and the old version serves on. A process that is killed
leaves the canary as it is: the next deploy of the same version goes on with it, `--rollback` takes it back.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import NamedTuple

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.serving import knative, standard
from components.shared.serving.inference_service import (
    RUNTIME,
    Object,
    Predictor,
    check_name,
    manifest,
    service_name,
)
from components.shared.serving.kserve import MODES, Kserve, Pods, Service, mode_of
from components.shared.serving.lease import DeployLease, hold
from components.shared.serving.open_inference import NotServed
from components.shared.serving.smoke_test import SmokeTest

POLL_SECONDS = 2.0

Test = Callable[[Pods], SmokeTest]


class Rules(NamedTuple):
    """How a version is rolled out."""

    shares: tuple[int, ...]  # percent of the traffic, one after the other, before all of it
    pause: float  # seconds at each
    timeout: float  # seconds for each wait
    hold: bool  # stay at the last share, instead of promoting
    runtime: str | None = None  # of a new InferenceService
    mode: str | None = None  # of a new InferenceService


class Failed(UserError):
    """A version that did not become ready, or did not pass the smoke test; what served before it serves still."""


class Rollout:
    """The rollout of one model in one namespace, while `lease` is held."""

    def __init__(self, kserve: Kserve, name: str, lease: DeployLease, rules: Rules) -> None:
        self._kserve, self._service, self._lease, self._rules = kserve, Service(kserve, name), lease, rules
        self._mode: ModuleType = standard

    def deploy(self, target: Predictor, test: Test | None) -> SmokeTest | None:
        """Let the InferenceService serve `target`, and return what its smoke test found. Raises Failed."""
        found = self._service.read()
        if found is None:
            return self._first(target, test)
        self._mode = MODES[self._known_mode(found)]
        stable, canary = self._mode.stable(found), self._mode.canary(found)
        self._check(found, stable, canary, target)
        if stable == target:
            is_ready = self._mode.is_stable_ready(found)
            log.info(f"{target} serves already" if is_ready else f"{target} was deployed before, and is not ready yet")
            self._wait_stable(target, f"{target} serves no longer")
            return self._test(target, test)
        return self._replace(found, canary, target, test)

    def _first(self, target: Predictor, test: Test | None) -> SmokeTest | None:
        """Make the InferenceService; if it fails, nothing served before, and nothing is left."""
        name = self._kserve.find_mode(self._rules.mode)
        self._mode = MODES[name]
        runtime = self._rules.runtime or RUNTIME
        self._kserve.check_runtime(runtime)
        body = manifest(self._service.name, target, runtime, self._mode.ANNOTATION)
        made = self._service.create(self._mode.named(body, target))
        log.info(f"{self._service.text} is new, in mode {name}: {target} gets all traffic")
        try:
            self._wait_stable(target, f"{target} is not ready")
            return self._test(target, test)
        except BaseException:
            try:
                self._service.delete(made["metadata"]["uid"])
                log.info(f"{self._service.text} was deleted again")
            except UserError as error:
                log.info(f"{self._service.text} is left as it is: {error}")
            raise

    def _replace(
        self, found: Object, canary: Predictor | None, target: Predictor, test: Test | None
    ) -> SmokeTest | None:
        self._kserve.check_runtime(found["spec"]["predictor"]["model"].get("runtime") or RUNTIME)
        if any(self._rules.shares) and self._mode is standard:
            self._service.weights()  # before anything is changed
        with self._taken_back(target):
            if canary is None:
                self._service.change(self._mode.add(found, target))
                log.info(f"{target} starts as a canary, without traffic")
            else:
                log.info(f"{target} is a canary already, which an earlier deploy has left")
            self._wait_canary(target)
            result = self._test(target, test)
            for percent in self._rules.shares:
                self._shift(target, percent)
            if self._rules.hold:
                log.info(f"{target} stays a canary; deploy it without --hold to promote it")
                return result
            self._service.change(self._mode.promote(self._read()))
        self._wait_stable(target, f"{target} was promoted, and is not ready")
        log.info(f"{target} gets all traffic")
        return result

    def roll_back(self) -> Predictor:
        """Take the canary away, and return it. Raises UserError if there is none."""
        found = self._service.read()
        if found is None:
            raise UserError(f"there is no {self._service.text}", "see --status, and --serving-namespace")
        self._mode = MODES[self._known_mode(found)]
        canary: Predictor | None = self._mode.canary(found)
        if canary is None:
            raise UserError(
                f"{self._service.text} has no canary to take back: {self._mode.stable(found)} gets all traffic",
                f"to go back to an earlier version, deploy it: {self._service.name}/VERSION",
            )
        self._service.change(self._mode.drop(found))
        log.info(f"{canary} gets no more traffic; {self._mode.stable(found)} gets all of it")
        return canary

    def _check(self, found: Object, stable: Predictor, canary: Predictor | None, target: Predictor) -> None:
        """Raise UserError if the InferenceService is not ours to change, or is being changed to something else."""
        if not stable.is_of(target):
            raise UserError(
                f"{self._service.text} serves {stable.storage_uri}, which is no version of this model in this store",
                "serve in another namespace (--serving-namespace), or delete that InferenceService",
            )
        if canary and canary != target:
            raise UserError(
                f"{self._service.text} has a canary already: {canary}",
                f"finish it with deploy {self._service.name}/{canary.version}, or take it back with --rollback",
            )
        if self._mode is standard and not stable.name:
            raise UserError(
                f"{self._service.text} has no predictor.name, so no canary can take its place",
                "delete it, and deploy again",
            )
        used, wanted = found["spec"]["predictor"]["model"].get("runtime"), self._rules.runtime
        if wanted not in (None, used):
            raise UserError(
                f"{self._service.text} has the runtime {used}, not {wanted}", "leave --runtime out, or change it there"
            )

    def _known_mode(self, found: Object) -> str:
        name = mode_of(found) or self._kserve.find_mode(self._rules.mode)
        if self._rules.mode not in (None, name):
            raise UserError(
                f"{self._service.text} has the mode {name}, which KServe does not change",
                "leave --mode out, or delete it and deploy again",
            )
        return name

    def _shift(self, target: Predictor, percent: int) -> None:
        """Give the canary a share of the traffic, and watch it for the pause."""
        found = self._service.change(self._mode.share(self._read(), percent))
        if percent:
            self._wait(lambda one: self._has_share(one, target, percent), lambda _: f"{target} has no {percent} %")
            log.info(f"{target} gets {percent} % of the traffic, for {self._rules.pause:g} s")
        end = time.monotonic() + self._rules.pause
        while time.monotonic() < end:
            found = self._read()
            if not self._mode.is_canary_ready(found):
                raise Failed(f"{target} is no longer ready", self._why(found, target) or "see its pods")
            self._sleep(min(POLL_SECONDS, max(0.0, end - time.monotonic())))

    def _has_share(self, found: Object, target: Predictor, percent: int) -> bool:
        """Return whether the share is what the routes say; true if they may not be read."""
        if self._mode is knative:
            return knative.shares(found).get(target.name) == percent
        weights = self._service.weights()
        return weights is None or weights.get(service_name(self._service.name, target.name)) == percent

    def _test(self, target: Predictor, test: Test | None) -> SmokeTest | None:
        if test is None:
            log.info("no smoke test, as asked")
            return None
        try:
            result = test(self._service.pods_of(self._mode, self._read(), target))
        except NotServed as error:
            raise Failed(f"{target} fails the smoke test: {error.message}", error.remedy) from None
        digest = "its package's digest matches" if result.package_digest else "its server tells no digest"
        log.info(
            f"{target} passes the smoke test: {result.images} images, largest difference of a probability "
            f"{result.largest_difference:.2g}; {digest}"
        )
        return result

    def _wait_canary(self, target: Predictor) -> None:
        self._wait(self._mode.is_canary_ready, lambda found: self._unready(found, target, f"{target} is not ready"))

    def _wait_stable(self, target: Predictor, message: str) -> None:
        self._wait(self._mode.is_stable_ready, lambda found: self._unready(found, target, message))

    def _unready(self, found: Object, target: Predictor, message: str) -> str:
        why = self._why(found, target)
        return f"{message}: {why}" if why else message

    def _why(self, found: Object, target: Predictor) -> str:
        told = "" if self._mode.canary(found) and self._mode is standard else self._mode.why_not(found)
        return self._service.why_pods_wait(self._mode, found, target) or str(told)

    def _wait(self, is_done: Callable[[Object], bool], describe: Callable[[Object], str]) -> None:
        """Wait until something is so, telling why it is not when that changes. Raises Failed after the timeout."""
        end, told = time.monotonic() + self._rules.timeout, ""
        while not is_done(found := self._read()):
            if (text := describe(found)) != told:
                log.info(text)
                told = text
            if time.monotonic() > end:
                raise Failed(f"{text} after {self._rules.timeout:g} s", "see its pods, or give a longer --timeout")
            self._sleep(POLL_SECONDS)

    def _read(self) -> Object:
        self._lease.renew()
        found = self._service.read()
        if found is None:
            raise UserError(f"there is no {self._service.text} any more", "deploy again if that is right")
        return found

    def _sleep(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    @contextmanager
    def _taken_back(self, target: Predictor) -> Iterator[None]:
        """Take the canary away if the block fails, unless the InferenceService is another's by now."""
        try:
            yield
        except BaseException:
            try:
                self._take_back(target)
            except UserError as error:
                log.info(f"{target} may be a canary still ({error}); take it back with --rollback")
            raise

    def _take_back(self, target: Predictor) -> None:
        found = self._service.read()
        if found and self._mode.canary(found) == target:
            self._service.change(self._mode.drop(found))
            log.info(f"{target} was taken back; {self._mode.stable(found)} serves on")


def deploy(kserve: Kserve, name: str, target: Predictor, rules: Rules, test: Test | None) -> SmokeTest | None:
    """Roll a version out, as the only deploy of its model, and return what its smoke test found; None without one.

    Raises Failed if it is not ready or does not pass, and UserError if it cannot be tried.
    """
    check_name(name, target)
    with hold(kserve.api, kserve.namespace, name) as lease:
        return Rollout(kserve, name, lease, rules).deploy(target, test)


def roll_back(kserve: Kserve, name: str, rules: Rules) -> Predictor:
    """Take the canary of a model away, also from a deploy that runs, and return it.

    Raises UserError if there is none.
    """
    with hold(kserve.api, kserve.namespace, name, takes_over=True) as lease:
        return Rollout(kserve, name, lease, rules).roll_back()
