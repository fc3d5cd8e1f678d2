"""The parameters of a new champion's deployment, which step register does last."""

from typing import Annotated, Any

from pydantic import Field

from components.shared.parameters.kubernetes_values import refuse_name
from components.shared.parameters.recipe import Accepts, Recipe, explained, parameter


def _refuse_shares(shares: list[Any]) -> str:
    are_percents = all(type(share) is int and 1 <= share <= 99 for share in shares)
    return (
        "" if are_percents and shares == sorted({*shares}) and len(shares) <= 4 else "it is no list of growing percents"
    )


class Deployment(Recipe):
    """Whether and how a new champion is served."""

    deploy: bool = parameter(False, "Whether KServe serves a new champion at the end of the run, in a cluster.")
    canary: Annotated[
        list[Any], explained(_refuse_shares), Accepts("at most four percents from 1 to 99 such as [10, 50]")
    ] = parameter([10], "Shares of the traffic that it gets one after the other before all of it, in percent.")
    canary_pause: Annotated[float, Field(ge=0, le=3600)] = parameter(60.0, "Seconds for which each share is watched.")
    serving_namespace: Annotated[
        str, explained(lambda name: refuse_name(name) if name else ""), Accepts("the name of a namespace")
    ] = parameter("", "Namespace to serve in; empty takes that of the run.")
