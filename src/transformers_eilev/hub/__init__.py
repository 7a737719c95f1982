"""
Sharing of checkpoints: copies in today's format, with the code that they need or without it, their upload, and model
cards.
"""

from ..lazy_names import lazy_names


_MODULE_OF = {
    "ExportedCheckpoint": "exporting",
    "export_checkpoint": "exporting",
    "find_faults": "card_checks",
    "make_model_card": "model_cards",
    "upload_checkpoint": "uploading",
}

__getattr__, __dir__, __all__ = lazy_names(__name__, _MODULE_OF)
