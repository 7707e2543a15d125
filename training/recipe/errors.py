"""The error of a recipe that cannot be used."""


class RecipeError(ValueError):
    """A recipe is not valid. The message names each key, what was expected and what was given."""
