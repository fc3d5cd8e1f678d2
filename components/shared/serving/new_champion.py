"""A new champion, served at the end of the run that has registered it: what `deploy=true` asks for."""

import os

from components.shared.core import log
from components.shared.parameters.registration import RegisterRecipe
from components.shared.registry.registry import RegisteredModel
from components.shared.serving import rollout
from components.shared.serving.inside import connect_inside, kserve_of_pod
from components.shared.serving.rollout import Rules
from components.shared.serving.servable import servable
from components.shared.storage.client import open_store

TIMEOUT = 900.0  # seconds for each state of KServe, such as a loaded model


def deploy_champion(name: str, version: int, recipe: RegisterRecipe) -> None:
    """Have the cluster's KServe serve a version, as the verb deploy does.

    Raises UserError if KServe or a right is missing, or the version fails: what served before serves on.
    """
    with log.named("deploy"):
        found = servable(RegisteredModel(open_store(recipe.store, os.environ), name), version)
        kserve = kserve_of_pod(recipe.serving_namespace)
        kserve.find_mode(None)  # that there is a KServe at all comes first
        kserve.check_namespace()
        for note in kserve.notes:
            log.info(note)
        rules = Rules(shares=tuple(recipe.canary), pause=recipe.canary_pause, timeout=TIMEOUT, hold=False)
        rollout.deploy(kserve, name, found.target, rules, lambda pods: found.test(connect_inside(kserve.api, pods)))
