"""First-person videos that nobody filmed: a set of the same shape as Ego4D or EPIC-KITCHENS, for everybody.

Verbs are motions, nouns are appearances; all of it is drawn, nothing is taken from any data set.
"""

from ...lazy_names import lazy_names


_MODULE_OF = {
    "ORDER_FREE_VERBS": "world",
    "SyntheticConfig": "config",
    "SyntheticSummary": "generation",
    "make_synthetic_dataset": "generation",
}

__getattr__, __dir__, __all__ = lazy_names(__name__, _MODULE_OF)
