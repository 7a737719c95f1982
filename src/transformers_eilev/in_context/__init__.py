"""
In-context learning as a service: demonstrations found, paid for once, and used for many clips or hours of video.

Nothing heavy happens at import: each name is loaded when it is first asked for.
"""

from ..lazy_names import lazy_names


_MODULE_OF = {
    "ClipEncoder": "clip_features",
    "ClipFeatureStore": "feature_store",
    "ClipFeatures": "feature_store",
    "Demonstration": "library",
    "DemonstrationFinder": "retrieval",
    "InContextSession": "session",
    "SimilaritySampler": "retrieval",
    "VideoNarration": "long_videos",
    "check_demonstrations": "library",
    "demonstrations_of": "library",
    "narrate_video": "long_videos",
    "read_demonstrations": "library",
}

__getattr__, __dir__, __all__ = lazy_names(__name__, _MODULE_OF)
