"""Model cards, of what a checkpoint, its training and its evaluations say; what they don't say is not in them."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from transformers import GenerationConfig

from ..adapters import base_of_adapter
from ..configuration_video_blip_2 import VideoBlip2Config
from ..embedded_checkpoints import find_checkpoint
from ..evaluation.model_index import make_eval_results
from ..evaluation.records import NO_MODEL, metrics_of, read_records, summarize
from ..evaluation.tables import make_table
from ..notices import notice_of
from ..processing_video_blip_2 import DEFAULT_PROMPT, VideoBlip2Processor
from .card_checks import find_faults
from .training_facts import describe_training, holds_training


TEMPLATE = Path(__file__).with_name("model_card.md.jinja")

_CITE_EILEV = """@inproceedings{yu-etal-2024-eliciting,
    title = "Eliciting In-Context Learning in Vision-Language Models for Videos Through Curated Data Distributional
        Properties",
    author = "Yu, Keunwoo and Zhang, Zheyuan and Hu, Fengyuan and Storks, Shane and Chai, Joyce",
    booktitle = "Proceedings of the 2024 Conference on Empirical Methods in Natural Language Processing",
    year = "2024",
    pages = "20416--20431",
    url = "https://aclanthology.org/2024.emnlp-main.1137",
}"""
# As CITATION.cff of https://github.com/yukw777/VideoBLIP has it.
_CITE_VIDEO_BLIP = """@software{yu-video-blip,
    title = "VideoBLIP",
    author = "Yu, Keunwoo Peter",
    url = "https://github.com/yukw777/VideoBLIP",
}"""
_METHODS = {
    "interleaved": {
        "is_interleaved": True,
        "summary": "Narrates first-person video in the manner of narrated clips that stand in its prompt, and without "
        "them too: a model of the kind of [EILEV](https://arxiv.org/abs/2311.17041).",
        "citation": _CITE_EILEV,
    },
    "prepended": {
        "is_interleaved": False,
        "summary": "Narrates first-person video, a clip at a time: a model of the kind of "
        "[VideoBLIP](https://github.com/yukw777/VideoBLIP).",
        "citation": _CITE_VIDEO_BLIP,
    },
}
# Of `generation_config.json`, what decides narrations.
_GENERATION = (
    "num_beams",
    "max_new_tokens",
    "do_sample",
    "temperature",
    "top_p",
    "length_penalty",
    "repetition_penalty",
)
# What is said of licenses, with sources, of models that were made of others.
_OPT_TERMS = (
    "Its language model is OPT-2.7B, whose weights are under Meta's [OPT-175B License Agreement]"
    "(https://github.com/facebookresearch/metaseq/blob/main/projects/OPT/MODEL_LICENSE.md): for non-commercial "
    "research alone, derivative works included; not for surveillance, biometric processing or military use; a copy of "
    "the agreement and its notice go with every copy. OPT's authors say that [it holds for all sizes of OPT]"
    "(https://github.com/facebookresearch/metaseq/issues/611).",
    "An author of BLIP-2 says that [the licenses of its language models are to be followed too]"
    "(https://github.com/salesforce/LAVIS/issues/454). Whether the license above is enough for what you plan is for "
    "you to find out; this is no legal advice.",
)
_T5_TERMS = (
    "Its language model is [Flan-T5-XL](https://huggingface.co/google/flan-t5-xl), under Apache-2.0 as its page says. "
    "An author of BLIP-2 says that [the licenses of its language models are to be followed too]"
    "(https://github.com/salesforce/LAVIS/issues/454).",
)
_TERMS_OF_BASE = {
    "Salesforce/blip2-opt-2.7b": _OPT_TERMS,
    "Salesforce/blip2-flan-t5-xl": _T5_TERMS,
    "kpyu/eilev-blip2-opt-2.7b": _OPT_TERMS,
    "kpyu/eilev-blip2-flan-t5-xl": _T5_TERMS,
    "kpyu/video-blip-opt-2.7b-ego4d": _OPT_TERMS,
    "kpyu/video-blip-flan-t5-xl-ego4d": _T5_TERMS,
}


def make_model_card(
    model: str | os.PathLike,
    *,
    name: str | None = None,
    results: Sequence[str | os.PathLike] = (),
    results_model: str | None = None,
    dataset_ids: Mapping[str, str] | None = None,
    training: str | os.PathLike | None = None,
    base_model: str | None = None,
    datasets: Sequence[str] = (),
    hardware: str | None = None,
    language: str = "en",
    license: str | None = None,
    license_name: str | None = None,
    license_link: str | None = None,
) -> ModelCard:
    """
    The model card of a checkpoint.

    Args:
        model (`str` or `os.PathLike`): its folder, or the name of one that comes with the package.
        name (`str`, *optional*): as which it will be found, such as "me/eilev-kitchen"; by default its folder's name.
        results (`Sequence[str]`): `results.json` of evaluations, or folders of such.
        results_model (`str`, *optional*): what they call the model; needed if they are of several.
        dataset_ids (`Mapping[str, str]`, *optional*): of their data sets that are on the Hub, the ids.
        training (`str`, *optional*): the training's `output_dir`; by default `model`, if a training wrote it.
        base_model (`str`, *optional*): the model id that the training started from; an adapter says it itself.
        datasets (`Sequence[str]`): ids of data sets on the Hub that it was trained on.
        hardware (`str`, *optional*): what it was trained on, and how long, in words.
        language (`str`, defaults to "en"): of the narrations.
        license (`str`, *optional*): an id of the Hub's list; "unknown" by default.
        license_name, license_link (`str`, *optional*): of a license that is not on the list ("other").

    Returns:
        [`~huggingface_hub.ModelCard`]: `str(card)` is its text, `card.save(path)` writes it.

    Raises:
        FileNotFoundError: if `model` is no checkpoint's folder, or `training` no training's.
        ValueError: if the results are of several models, or of none; for metadata that the Hub would refuse, by name.
    """
    folder = Path(find_checkpoint(os.fspath(model)))
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is no checkpoint's folder: it has no config.json")
    config = VideoBlip2Config.from_pretrained(folder)
    processor = VideoBlip2Processor.from_pretrained(folder)
    adapted = base_of_adapter(folder)
    if base_model is None and adapted is not None and not Path(adapted).exists():
        base_model = adapted
    if training is None and holds_training(folder):
        training = folder
    name = name or folder.resolve().name
    records = read_records(results) if results else []
    results_model = _model_of(records, results_model)
    data = ModelCardData(
        language=language,
        license=license or "unknown",
        license_name=license_name,
        license_link=license_link,
        library_name="transformers",
        pipeline_tag="video-text-to-text",
        base_model=base_model,
        base_model_relation=None if base_model is None else "finetune" if adapted is None else "adapter",
        datasets=list(datasets) or None,
        tags=["video", "egocentric", *(["in-context-learning"] if processor.prompt_layout == "interleaved" else [])],
        **_model_index(records, results_model, name, dataset_ids),
    )
    card = ModelCard.from_template(
        data,
        template_path=os.fspath(TEMPLATE),
        title=name.rpartition("/")[2],
        method=_METHODS[processor.prompt_layout],
        notice=notice_of(config),
        # `save_pretrained` of such a model leaves the map alone.
        carries_code="auto_map" in _read(folder / "config.json") and (folder / "modeling_video_blip_2.py").is_file(),
        usage=_usage(name, processor.prompt_layout),
        format=_format_of(config, processor, folder),
        training=describe_training(Path(training)) if training is not None else {},
        hardware=hardware,
        tables=_tables_of(records, results_model),
        versions=_versions_of(records),
        license_words=_license_words(data),
        terms=_TERMS_OF_BASE.get(base_model, ()),
    )
    if faults := find_faults(str(card), folder=folder):
        raise ValueError(f"The card of {folder} would not be sound: {'; '.join(faults)}")
    return card


# ------------------------------------------------------------------------------------------------------------ details


def _model_of(records: Sequence[Mapping[str, Any]], name: str | None) -> str | None:
    names = sorted({record["model"] for record in records} - {NO_MODEL})
    if name is None and records:
        if len(names) != 1:
            raise ValueError(f"The results are of the models {names}: say by `results_model` which one the card is of")
        return names[0]
    if name is not None and name not in names:
        raise ValueError(f"`results_model` is {name!r}, but the results are of the models {names}")
    return name


def _model_index(records, model: str | None, name: str, dataset_ids: Mapping[str, str] | None) -> dict[str, Any]:
    if not records:
        return {}
    results = make_eval_results(records, model, dataset_ids=dataset_ids)
    return {"model_name": name.rpartition("/")[2], "eval_results": results}


def _usage(name: str, prompt_layout: str) -> str:
    lines = [
        "import transformers_eilev",
        "from transformers import pipeline",
        "",
        f'narrate = pipeline("video-narration", model="{name}")',
        'narrate("mixer.mp4")',
    ]
    if prompt_layout == "interleaved":
        lines += [
            "narrate(",
            '    ["mixer.mp4"],',
            '    demonstrations=[("cup.mp4", "The camera wearer washes a cup.")],',
            ")",
        ]
    return "\n".join(lines)


def _format_of(config: VideoBlip2Config, processor: VideoBlip2Processor, folder: Path) -> dict[str, str]:
    clips, text = processor.video_processor, config.text_config
    kind = f"{text.model_type.upper()}, {'decoder-only' if processor.is_decoder_only else 'encoder-decoder'}"
    if clips.fps is not None:
        frames = f"{clips.fps:g} frame{'s' * (clips.fps != 1)} a second"
    else:
        frames = f"{clips.num_frames} frame{'s' * (clips.num_frames != 1)}, evenly spaced"
    stretch = "to the file's end" if clips.end is None else f"to {clips.end:g} s"
    size = clips.size
    layout = {
        "interleaved": "`<video>` stands anywhere in a text, as often as there are clips; a line break follows each",
        "prepended": "one clip, before the text and its beginning-of-text token",
    }
    described = {
        "a clip": f"{frames} from {clips.start or 0:g} s {stretch}",
        "a frame": f"{size['height']} x {size['width']} pixels",
        "where clips stand": layout[processor.prompt_layout],
        "tokens of a clip": str(processor.num_query_tokens),
        "the question": f"`{DEFAULT_PROMPT}`",
        "language model": f"{kind}, {text.num_hidden_layers} layers, width {text.hidden_size}",
    }
    if (folder / "generation_config.json").is_file():
        settings = GenerationConfig.from_pretrained(folder).to_diff_dict()
        shown = [f"{key} {settings[key]}" for key in _GENERATION if settings.get(key) is not None]
        if shown:
            described["how narrations are generated"] = ", ".join(f"`{setting}`" for setting in shown)
    return described


def _tables_of(records: Sequence[Mapping[str, Any]], model: str | None) -> list[str]:
    """Of each data set and metric one, with what rules say beside the model."""
    own = [record for record in records if record["model"] in (model, NO_MODEL)]
    tables = []
    for metric in metrics_of(own):
        cells = summarize(own, metric)
        for subject in dict.fromkeys((cell.task, cell.dataset) for cell in cells):
            tables.append(make_table([cell for cell in cells if (cell.task, cell.dataset) == subject]))
    return tables


def _versions_of(records: Sequence[Mapping[str, Any]]) -> str:
    versions = dict.fromkeys(
        f"{library} {record['versions'][library]}"
        for record in records
        for library in ("transformers-eilev", "transformers", "torch")
        if library in record.get("versions", {})
    )
    return ", ".join(versions)


def _license_words(data: ModelCardData) -> str:
    if data.license == "unknown":
        return "Not said."
    if data.license == "other":
        return f"[{data.license_name}]({data.license_link})."
    return f"`{data.license}`, as whoever publishes this checkpoint says."


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


__all__ = ["make_model_card"]
