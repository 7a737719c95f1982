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

from .lazy_names import lazy_names


__version__ = "0.1.0"

_MODULE_OF = {
    "Clip": "video_reading",
    "ClipSpan": "video_processing_video_blip_2",
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
    "embedded_checkpoint": "embedded_checkpoints",
    "embedded_checkpoint_names": "embedded_checkpoints",
    "frames_to_tensor": "video_reading",
    "iter_clips": "video_reading",
    "probe_video": "video_reading",
    "read_clip": "video_reading",
    "read_clips": "video_reading",
    "sample_indices": "video_reading",
}

_load, __dir__, __all__ = lazy_names(__name__, _MODULE_OF)


def __getattr__(name):
    if name in _MODULE_OF:
        _register()
    return _load(name)


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
