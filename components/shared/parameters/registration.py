"""The parameters of step register."""

from typing import Annotated, Any

from pydantic import Field

from components.shared.parameters.common import ModelName, StoreUri, Threads
from components.shared.parameters.deployment import Deployment
from components.shared.parameters.evaluation import ExportRecipe
from components.shared.parameters.recipe import parameter


class Registration(ModelName):
    """How a model enters the registry."""

    significance: Annotated[float, Field(ge=0, le=1)] = parameter(
        0.05, "P-value of McNemar's test below which a better model replaces the champion."
    )
    keep_samples: bool = parameter(
        True,
        "Whether 20 test images are stored with a version, to check a server that serves it, and to show it; give "
        "false if nobody may see them.",
    )


class RegisterRecipe(Deployment, Registration, ExportRecipe):
    """All that step register needs to know, and keeps: how a model was judged, exported, registered and served."""

    def kept(self) -> dict[str, Any]:
        """Return what a version keeps of it, for a training run after drift."""
        own = {*ModelName.model_fields, *Threads.model_fields, *StoreUri.model_fields}
        return {name: value for name, value in self.values().items() if name not in own}
