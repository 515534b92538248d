"""A package's modules without what its own `__init__` runs: TensorFlow's takes seconds, and hundreds of megabytes."""

import sys
from importlib.util import find_spec
from types import ModuleType


def stand_in(name: str) -> None:
    """Have a bare module of this name find the package's modules from now on, in its place.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    spec = find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"{name} is missing: install the project's requirements (make)")
    bare = ModuleType(name)
    bare.__path__ = list(spec.submodule_search_locations)
    sys.modules[name] = bare
