"""
EILEV and VideoBLIP for transformers: `import transformers_eilev`, and the auto classes and `pipeline` know them.

Nothing heavy happens at import. Transformers loads its auto classes when they are first asked for, and so does this
package: their first use, or the first use of a name of this package, registers everything.
"""

import importlib
import sys

import transformers


__version__ = "0.1.0"

_MODULE_OF = {
    "Clip": "video_reading",
    "ClipWindow": "video_reading",
    "VideoBlip2Config": "configuration_video_blip_2",
    "VideoBlip2ForConditionalGeneration": "modeling_video_blip_2",
    "VideoBlip2Processor": "processing_video_blip_2",
    "VideoBlip2VideoProcessor": "video_processing_video_blip_2",
    "VideoNarrationPipeline": "pipeline_video_narration",
    "VideoReadError": "video_reading",
    "read_clip": "video_reading",
    "read_clips": "video_reading",
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


class _RegisteringModule(type(transformers)):
    """The lazy module `transformers`, which registers this package where it loads its own auto classes."""

    def __getattr__(self, name):
        value = super().__getattr__(name)
        if name.startswith("Auto") or name.startswith("pipeline"):
            _register()
        return value


if "transformers.models.auto.modeling_auto" in sys.modules:
    _register()
else:
    transformers.__class__ = _RegisteringModule
