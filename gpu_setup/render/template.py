"""The HTML pages' templates: filled in, with everything from models, data and machines escaped."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any

from machine.plain_text import clean


def fill_template(name: str, filters: dict[str, Callable[..., Any]], **values: Any) -> str:
    """The template `name` of the folder templates, cleaned; a value that it asks for and does not get is an error."""
    from jinja2 import Environment, StrictUndefined, select_autoescape

    environment = Environment(
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    source = (resources.files("gpu_setup") / "render" / "templates" / name).read_text(encoding="utf-8")
    return clean(environment.from_string(source).render(**values))
