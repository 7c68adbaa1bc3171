"""Gets from Axolotl itself which keys a config may have, and whether a config is valid.

`python -m gpu_setup_worker.keys list OUT` writes the names as JSON; `… check CONFIG …` prints `valid CONFIG` for each,
and exits with status 1 and Axolotl's message at the first invalid one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    task, *paths = sys.argv[1:]
    if task == "list":
        from axolotl.utils.schemas.config import AxolotlInputConfig

        names = set()
        for name, field in AxolotlInputConfig.model_fields.items():
            names.update({name, field.alias or name})
        Path(paths[0]).write_text(json.dumps(sorted(names)), encoding="utf-8")
    else:
        import torch
        import yaml
        from axolotl.utils.config import validate_config
        from axolotl.utils.dict import DictDefault

        capabilities = {"bf16": True, "fp8": False, "n_gpu": 1, "compute_capability": "sm_86"}
        for path in paths:
            config = DictDefault(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
            validate_config(config, capabilities, {"torch_version": torch.__version__.split("+")[0]})
            print("valid", path)


if __name__ == "__main__":
    main()
