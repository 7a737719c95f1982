"""First-person videos that nobody filmed: a set of the same shape as Ego4D or EPIC-KITCHENS, for everybody.

Verbs are motions, nouns are appearances; all of it is drawn, nothing is taken from any data set.
"""

import importlib


_MODULE_OF = {
    "SyntheticConfig": "config",
    "SyntheticSummary": "generation",
    "make_synthetic_dataset": "generation",
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
