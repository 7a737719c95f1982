"""
EILEV and VideoBLIP for transformers: `import transformers_eilev`, and the auto classes and `pipeline` know them.

Nothing heavy happens at import. Transformers loads its auto classes when they are first asked for, and so does this
package: `from transformers import AutoModel` (or another of them, or `pipeline`), or the first use of a name of this
package, registers everything. Who takes them from transformers' inner modules imports
`transformers_eilev.registration`.
"""

import importlib
import sys

import transformers


__version__ = "0.1.0"

_MODULE_OF = {
    "Clip": "video_reading",
    "ClipWindow": "video_reading",
    "ReadLimits": "video_reading",
    "VideoBlip2Config": "configuration_video_blip_2",
    "VideoBlip2ForConditionalGeneration": "modeling_video_blip_2",
    "VideoBlip2Processor": "processing_video_blip_2",
    "VideoBlip2VideoProcessor": "video_processing_video_blip_2",
    "VideoNarrationPipeline": "pipeline_video_narration",
    "VideoInfo": "video_reading",
    "VideoReadError": "video_reading",
    "VideoReadWarning": "video_reading",
    "frames_to_tensor": "video_reading",
    "iter_clips": "video_reading",
    "probe_video": "video_reading",
    "read_clip": "video_reading",
    "read_clips": "video_reading",
    "sample_indices": "video_reading",
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _register()
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})


def _register():
    importlib.import_module(".registration", __name__)


def _register_with_auto_classes():
    """Registers when transformers hands out the first of its auto classes, or `pipeline`; now, if it has already."""
    loaded = any(name.startswith(("transformers.models.auto.", "transformers.pipelines")) for name in sys.modules)
    lazy_module = type(transformers)
    if loaded or "__getattr__" not in vars(lazy_module):
        return _register()
    getattr_of_transformers = lazy_module.__getattr__

    # On the class: transformers makes a second module of itself while it loads, and puts it in the first one's place.
    def __getattr__(self, name):
        if self.__name__ == "transformers" and name.startswith(("Auto", "pipeline")):
            _register()
            if name in vars(sys.modules["transformers"]):
                return vars(sys.modules["transformers"])[name]
        return getattr_of_transformers(self, name)

    lazy_module.__getattr__ = __getattr__


_register_with_auto_classes()
