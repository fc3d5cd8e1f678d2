"""The parameters of the steps that prepare a data set in many pods."""

from typing import Annotated

from pydantic import Field

from components.shared.core.files import sha256_json
from components.shared.parameters.preparation import PreprocessRecipe
from components.shared.parameters.recipe import parameter


class Parts(PreprocessRecipe):
    """How many pods prepare a data set; their number determines nothing of it."""

    parts: Annotated[int, Field(ge=1, le=200)] = parameter(4, "Number of pods that prepare the data side by side.")


class PartRecipe(Parts):
    """All that the pod of a part needs to know."""

    data: str = ""
    part: int = 0  # from 0
    code: str = ""  # the digest of the code that prepares

    def units_key(self, listing_digest: str) -> str:
        """Return the digest of all that determines the units of a list of pictures."""
        return sha256_json([listing_digest, self.determining(), self.code])
