"""Packages whose names are loaded when they are first asked for."""

import importlib
import sys


def lazy_names(package: str, module_of: dict[str, str]):
    """
    `__getattr__`, `__dir__` and `__all__` of a package (PEP 562).

    Args:
        package (`str`): its `__name__`.
        module_of (`dict[str, str]`): for each public name, the module of the package that has it.
    """

    def __getattr__(name):
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f".{module_of[name]}", package), name)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__():
        return sorted({*vars(sys.modules[package]), *module_of})

    return __getattr__, __dir__, sorted(module_of)
