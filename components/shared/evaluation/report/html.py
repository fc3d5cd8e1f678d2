"""HTML pages made from templates: without network access and scripts; text from outside is escaped."""

from pathlib import Path

import jinja2

READS = ("templates/page.html",)


def page(name: str) -> jinja2.Template:
    """Return the template `name`, which extends `page.html`. Rendering it without one of its variables is an error."""
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
