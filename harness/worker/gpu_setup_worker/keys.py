"""Asks Axolotl itself which keys a config may have, and whether a config is valid.

`python -m gpu_setup_worker.keys list OUT` writes the names as JSON; `… check CONFIG` exits 1 with Axolotl's words.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    task, path = sys.argv[1:]
    if task == "list":
        from axolotl.utils.schemas.config import AxolotlInputConfig

        names = set()
        for name, field in AxolotlInputConfig.model_fields.items():
            names.update({name, field.alias or name})
        Path(path).write_text(json.dumps(sorted(names)), encoding="utf-8")
    else:
        import yaml
        from axolotl.utils.config import validate_config
        from axolotl.utils.dict import DictDefault

        capabilities = {"bf16": True, "fp8": False, "n_gpu": 1, "compute_capability": "sm_86"}
        validate_config(
            DictDefault(yaml.safe_load(Path(path).read_text(encoding="utf-8"))),
            capabilities,
            {"torch_version": "2.13.0"},
        )
        print("valid")


if __name__ == "__main__":
    main()
