"""The pipeline's stages: each parses its options, calls the library and writes its outputs."""

import importlib.util
import sys

if missing := [name for name in ("click", "torch") if importlib.util.find_spec(name) is None]:
    sys.exit(
        f"{sys.executable} has no {' and no '.join(missing)}; activate the project's environment:"
        " source .venv/bin/activate (make setup makes it)"
    )
