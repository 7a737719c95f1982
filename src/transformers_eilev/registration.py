"""Makes transformers' auto classes and `pipeline` know this package. Importing it is all there is to do."""

import sys

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoModelForPreTraining,
    AutoModelForVisualQuestionAnswering,
    AutoProcessor,
    Blip2Config,
    Blip2Processor,
    PreTrainedConfig,
)
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import is_torchvision_available

from .configuration_video_blip_2 import VideoBlip2Config
from .legacy_checkpoints import is_video_blip_config, only_hub_kwargs
from .modeling_video_blip_2 import VideoBlip2ForConditionalGeneration
from .pipeline_video_narration import VideoNarrationPipeline
from .processing_video_blip_2 import VideoBlip2Processor
from .video_processing_video_blip_2 import VideoBlip2VideoProcessor


DEFAULT_CHECKPOINT = "kpyu/eilev-blip2-opt-2.7b"


class Blip2ConfigDispatch(Blip2Config):
    """
    What `AutoConfig` finds under "blip-2": `VideoBlip2Config` for the checkpoints of EILEV's and VideoBLIP's authors,
    which say "blip-2" too, and transformers' own class for all others.
    """

    def __new__(cls, *args, **kwargs):
        return Blip2Config(*args, **kwargs)

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        config_class = VideoBlip2Config if is_video_blip_config(config_dict) else Blip2Config
        return config_class.from_dict(config_dict, **kwargs)


# A class from outside of transformers would keep unrelated "blip-2" repositories with remote code from loading it.
Blip2ConfigDispatch.__module__ = Blip2Config.__module__


def _redirect_legacy_processors():
    """
    `AutoProcessor` has no hook by which a checkpoint that names `Blip2Processor` could get another class. So that
    class looks, when it is the auto class that calls, whether the checkpoint is one of EILEV's or VideoBLIP's authors.
    """
    original = Blip2Processor.from_pretrained.__func__

    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        if cls is Blip2Processor and kwargs.get("_from_auto"):
            try:
                config_dict, _ = PreTrainedConfig.get_config_dict(
                    pretrained_model_name_or_path, **only_hub_kwargs(kwargs)
                )
            except OSError:  # a processor without a model beside it
                config_dict = {}
            if is_video_blip_config(config_dict):
                cls, call = VideoBlip2Processor, VideoBlip2Processor.from_pretrained.__func__
                return call(cls, pretrained_model_name_or_path, *args, **kwargs)
        return original(cls, pretrained_model_name_or_path, *args, **kwargs)

    Blip2Processor.from_pretrained = classmethod(from_pretrained)


def register():
    """Registers the model, its configuration and processors with the auto classes, and the pipeline."""
    AutoConfig.register("video_blip_2", VideoBlip2Config)
    AutoConfig.register("blip-2", Blip2ConfigDispatch, exist_ok=True)
    for auto_class in (
        AutoModel,
        AutoModelForImageTextToText,
        AutoModelForMultimodalLM,
        AutoModelForPreTraining,
        AutoModelForVisualQuestionAnswering,
    ):
        auto_class.register(VideoBlip2Config, VideoBlip2ForConditionalGeneration)
    AutoVideoProcessor.register(VideoBlip2Config, VideoBlip2VideoProcessor)
    if not is_torchvision_available():
        # What `transformers` offers by that name then is a class that only says that torchvision is missing.
        sys.modules["transformers"].AutoVideoProcessor = AutoVideoProcessor
    AutoProcessor.register(VideoBlip2Config, VideoBlip2Processor)
    _redirect_legacy_processors()
    PIPELINE_REGISTRY.register_pipeline(
        "video-narration",
        pipeline_class=VideoNarrationPipeline,
        pt_model=AutoModelForImageTextToText,
        default={"model": (DEFAULT_CHECKPOINT, "main")},
        type="multimodal",
    )


register()
