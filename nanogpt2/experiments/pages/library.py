"""The charts' library, BokehJS, as its Python package brings it: read as files, never imported.

A page holds all of it, so that it opens without a network.
"""

from importlib.util import find_spec
from pathlib import Path

from nanogpt2.base.system.errors import ExtraError
from nanogpt2.base.system.extras import how_to_install
from nanogpt2.base.system.files import read_text

EXTRA = "report"
SCRIPTS = ("bokeh.min.js", "bokeh-api.min.js")


def read_scripts() -> list[str]:
    """Return the scripts of BokehJS; ExtraError where the package is missing."""
    spec = find_spec("bokeh")
    if spec is None or not spec.submodule_search_locations:
        raise ExtraError(how_to_install("bokeh", extra=EXTRA))
    folder = Path(spec.submodule_search_locations[0], "server/static/js")
    return [_inline(read_text(folder / name)) for name in SCRIPTS]


def _inline(script: str) -> str:
    """Return `script` as it can stand between script tags, which its texts must not end."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
