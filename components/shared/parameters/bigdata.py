"""The parameters of the steps that prepare a data set in many pods."""

from typing import Annotated

from pydantic import Field

from components.shared.parameters.common import Parts


class PartRecipe(Parts):
    """What the pod of a part needs to know besides the preparation; none of it determines the dataset."""

    part: Annotated[int, Field(ge=0)] = 0
