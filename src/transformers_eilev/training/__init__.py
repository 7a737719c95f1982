"""
Training as EILEV and VideoBLIP were trained: arguments, frozen parts, augmentation, LoRA, and a `Trainer` whose
stopped and resumed run is the run that never stopped.

Nothing heavy happens at import: each name is loaded when it is first asked for.
"""

from ..lazy_names import lazy_names


_MODULE_OF = {
    "ClipAugmentation": "augmentation",
    "DataArguments": "arguments",
    "EilevDataArguments": "arguments",
    "ModelArguments": "arguments",
    "VideoBlipDataArguments": "arguments",
    "VideoNarrationTrainer": "trainer",
    "VideoNarrationTrainingArguments": "arguments",
    "VisionFeatureStore": "vision_features",
    "add_lora": "lora",
    "extract_vision_features": "vision_features",
    "find_last_checkpoint": "checkpoints",
    "freeze": "freezing",
    "load_lora": "lora",
    "load_model_and_processor": "loading",
    "load_vision_model": "vision_weights",
    "make_datasets": "data",
    "merge_lora": "lora",
    "parse_arguments": "arguments",
    "quantization_config": "lora",
    "run_training": "run",
}

__getattr__, __dir__, __all__ = lazy_names(__name__, _MODULE_OF)
