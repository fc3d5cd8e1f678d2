"""The HTML pages: each needs no network and no script, and shows what comes from outside as text."""

from pathlib import Path

import jinja2

READS = ("templates/page.html",)


def page(name: str) -> jinja2.Template:
    """The template in file `name`, which extends `page.html`; a name that it is not given is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = "{:,}".format
    environment.filters["percent"] = "{:.2%}".format
    return environment.get_template(name)
