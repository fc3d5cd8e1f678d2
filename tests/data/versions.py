"""The versions of data sets, as the step resolve finds them."""

from components.resolve import resolve
from components.shared.parameters.preparation import ReadingRecipe

READING = ReadingRecipe().text()  # the recipe of step download by default


def version_of(data: str, store: str = "") -> str:
    """Run the step resolve with the defaults of all other parameters."""
    return str(resolve(graph="training", data=data, store=store, options={}).version)
