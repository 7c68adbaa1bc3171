"""The published documents: the type of each, and its JSON Schema.

The schemas are generated from the types, committed under schemas/ and compared in a test:
`python -m gpu_setup.schema` writes them.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

# name → module:type of the envelope's `data`; no type: data is null
DOCUMENTS = {
    "doctor": "checks.model:DoctorReport",
    "check-list": "checks.check_list:CheckList",
    "facts": "checks.facts.host:Host",
    "plan": "provision.model:Plan",
    "image": "containers.image_result:ImageResult",
    "verify": "containers.verify:Verification",
    "engine": "containers.engine_report:EngineReport",
    "apply": "provision.apply.journal:ApplyRun",
    "status": "provision.apply.journal:ApplyStatus",
    "data": "harness.dataset.findings:DataReport",
    "environment": "harness.environment.build:Environment",
    "fit": "harness.memory.fit:FitResult",
    "smoke": "harness.report.smoke_result:SmokeResult",
    "report": "harness.report.run_report:Report",
    "comparison": "harness.report.compare:Comparison",
    "records": "harness.report.published_speeds:PublishedSpeeds",
    "train": "harness.jobs.train:TrainingResult",
    "tune": "harness.jobs.tune_run:TuneResult",
    "try": "harness.training.examination:Examination",
    "merge": "harness.jobs.merge:MergeResult",
    "recipe": "harness.recipe.recipe_list:RecipeList",
    "error": None,
}

FOLDER = Path(__file__).with_name("schemas")


def read_schema(name: str) -> str:
    """The text of the schema as shipped; KeyError for a name that is no document."""
    if name not in DOCUMENTS:
        raise KeyError(name)
    return (FOLDER / f"{name}.json").read_text(encoding="utf-8")


def generate(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one document, from its types. Unknown properties stay allowed: /1 can grow."""
    import msgspec

    from gpu_setup.envelope import Envelope

    place = DOCUMENTS[name]
    data: Any = None
    if place is not None:
        module, _, attribute = place.partition(":")
        data = getattr(import_module(module), attribute)
    components: dict[str, Any]
    (envelope,), components = msgspec.json.schema_components([Envelope[data]], ref_template="#/$defs/{name}")
    top = components.pop(envelope["$ref"].rpartition("/")[2])
    top["properties"]["schema"] = {"const": f"gpu-setup/{name}/1"}
    top["title"] = f"gpu-setup {name}"
    if repeated := [each for each in components if "." in each or "__" in each]:
        # msgspec writes the module's path into the name of a type that is not alone
        raise ValueError(
            f"{name}: two published types have one name, give one a name of its own: {', '.join(repeated)}"
        )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"gpu-setup/{name}/1",
        **top,
        "$defs": dict(sorted(components.items())),
    }


def text(name: str) -> str:
    """The generated schema as committed: indented, one newline at the end."""
    import json

    return json.dumps(generate(name), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for document in DOCUMENTS:
        (FOLDER / f"{document}.json").write_text(text(document), encoding="utf-8")
