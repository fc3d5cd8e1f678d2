"""The texts of recipes, as the step resolve gives them to the other steps."""

from typing import Any

from components.shared.parameters.recipe import Recipe


def recipe_text(recipe: type[Recipe], **values: Any) -> str:
    """The text of a recipe with these values, which need not be accepted, and the defaults of all others."""
    unknown = values.keys() - recipe.model_fields.keys()
    assert not unknown, f"{recipe.__name__} has no {unknown}"
    return recipe().model_copy(update=values).text()
