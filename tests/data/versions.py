"""The versions of data sets, as the step resolve finds them."""

from components.resolve import resolve


def version_of(data: str, store: str = "") -> str:
    """Run the step resolve with the defaults of all other parameters."""
    return str(resolve(graph="training", data=data, store=store, options={}).version)
