"""The HTML pages' templates: filled in, with everything from models, data and machines escaped."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any

from gpu_setup.render.plain import clean


def fill_template(name: str, filters: dict[str, Callable[..., Any]], **values: Any) -> str:
    """The template `name` of the folder templates; a value that it asks for and does not get is an error."""
    from jinja2 import Environment, StrictUndefined, select_autoescape

    environment = Environment(
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # control characters are no HTML; type(), since the charts are marked as safe by a class of their own
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    environment.filters |= filters
    source = (resources.files("gpu_setup") / "render" / "templates" / name).read_text(encoding="utf-8")
    return environment.from_string(source).render(**values)
