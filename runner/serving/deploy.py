"""Verb `deploy`: serve a version of a model by KServe, with a canary; show what serves, and take a canary back."""

import argparse
import os
from collections.abc import Callable

from components.shared.core import log
from components.shared.core.document import Items
from components.shared.core.errors import UserError
from components.shared.core.printable import say
from components.shared.registry.registry import RegisteredModel, champion_of
from components.shared.serving import rollout
from components.shared.serving.kserve import Kserve, Pods
from components.shared.serving.kubernetes_api import KubernetesApi
from components.shared.serving.open_inference import Connect
from components.shared.serving.rollout import Failed, Rules
from components.shared.serving.servable import servable
from components.shared.serving.smoke_test import SmokeTest
from components.shared.serving.status import ServedFacts, ServiceFacts, read_status
from runner.answer import Answer
from runner.cluster.kube import kube_client
from runner.local import s3_server
from runner.registry.address import Address, model_at, read_address
from runner.serving.port_forward import connections
from runner.terminal import UNKNOWN, note


class DeployDocument(Answer):
    """What serves after the verb, what the smoke test found, and why the deployment failed, if it did."""

    FORMAT = "torch2kubeflow/deploy"

    service: ServiceFacts | None  # None if there is no InferenceService
    smoke_test: SmokeTest | None  # None if there was none
    failure: str | None
    notes: Items[str]  # what may go wrong, or is not known


def handle(arguments: argparse.Namespace) -> int:
    """Carry out the verb; return 0, or 1 if the version does not serve."""
    address = read_address(arguments.address)
    if not address:
        raise UserError(f"{arguments.address} is not a model", "give NAME, NAME/VERSION, or its s3:// address")
    client = kube_client(arguments.context)
    kserve = Kserve(KubernetesApi(client), _namespace(arguments))
    reach = connections(client, kserve.api, arguments.context)
    failure, result = None, None
    with log.named("deploy"):
        try:
            result = _act(arguments, kserve, address, reach)
        except Failed as error:
            failure = str(error)
            say(f"failed: {error}")
    _answer(arguments, kserve, address.name, result, failure)
    return 1 if failure else 0


def _act(
    arguments: argparse.Namespace, kserve: Kserve, address: Address, reach: Callable[[Pods], Connect]
) -> SmokeTest | None:
    rules = Rules(
        shares=arguments.canary,
        pause=arguments.pause,
        timeout=arguments.timeout,
        hold=arguments.hold,
        runtime=arguments.runtime,
        mode=arguments.mode,
    )
    if arguments.status:
        return None
    if arguments.rollback:
        rollout.roll_back(kserve, address.name, rules)
        return None
    return _deploy(arguments, kserve, address, rules, reach)


def _deploy(
    arguments: argparse.Namespace,
    kserve: Kserve,
    address: Address,
    rules: Rules,
    reach: Callable[[Pods], Connect],
) -> SmokeTest | None:
    _check_store(address.store or arguments.store)
    with model_at(arguments, address) as model:
        version = _champion(model) if address.version is None else address.version
        found = servable(model, version, has_test=not arguments.no_smoke_test)
    kserve.find_mode(rules.mode)  # that there is a KServe at all comes first
    kserve.check_namespace(arguments.kfp_namespace)
    test = None if arguments.no_smoke_test else lambda pods: found.test(reach(pods))
    return rollout.deploy(kserve, address.name, found.target, rules, test)


def _namespace(arguments: argparse.Namespace) -> str:
    """Return the namespace that models are served in: by default that of the runs."""
    named = arguments.serving_namespace or arguments.namespace or os.environ.get("KFP_NAMESPACE")
    return str(named or arguments.kfp_namespace)


def _check_store(uri: str | None) -> None:
    if not uri or uri.rstrip("/") == s3_server.STORE:
        raise UserError(
            "the store of `make run` is on this machine, where no cluster can read it",
            "give the store of the cluster's runs: --store s3://BUCKET/PREFIX",
        )


def _champion(model: RegisteredModel) -> int:
    """Return the champion of this moment; it is asked for once."""
    champion = champion_of(model, f"name a version: {model.name}/1, or promote one")
    log.info(f"the champion of {model.name} is version {champion}")
    return champion


def _answer(
    arguments: argparse.Namespace, kserve: Kserve, name: str, result: SmokeTest | None, failure: str | None
) -> None:
    """Print what serves now, and the notes."""
    facts = read_status(kserve, name)
    if arguments.status and facts is None:
        raise UserError(
            f"there is no InferenceService {name} in namespace {kserve.namespace}",
            "deploy it, or name the namespace with --serving-namespace",
        )
    for text in kserve.notes:
        note(text)
    if facts:
        say(f"{name} in namespace {facts.namespace}, mode {facts.mode}: {facts.url or f'its address is {UNKNOWN}'}")
        say(_line("stable", facts.stable), *([_line("canary", facts.canary)] if facts.canary else []))
    else:
        say(f"{name} is not served in namespace {kserve.namespace}")
    arguments.document = DeployDocument(service=facts, smoke_test=result, failure=failure, notes=kserve.notes)


def _line(kind: str, served: ServedFacts) -> str:
    name = f"version {served.version}" if served.version else served.storage_uri
    percent = f"traffic {UNKNOWN}" if served.percent is None else f"{served.percent} % of the traffic"
    state = "ready" if served.ready else f"not ready{served.reason and f': {served.reason}'}"
    return f"{kind:<8}{name:<12} {percent}, {state}"
