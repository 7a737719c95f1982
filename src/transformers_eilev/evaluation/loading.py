"""What an evaluation's arguments name, loaded."""

import json
from dataclasses import asdict
from pathlib import Path

from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

from ..checkpoint_types import check_architecture
from ..data.action_files import read_csv
from ..data.narrated_clips import load_narrated_clips
from ..data.narrations import PROMPTS
from ..embedded_checkpoints import find_checkpoint
from ..in_context.feature_store import ClipFeatureStore
from ..modeling_video_blip_2 import VideoBlip2ForConditionalGeneration
from ..notices import notice_of
from ..processing_video_blip_2 import VideoBlip2Processor
from .arguments import MetricArguments, NarratorArguments, QueryArguments, RunArguments
from .narration_metrics import NarrationMetrics
from .narrators import Narrator, VideoBlipNarrator
from .processes import join_processes
from .queries import EvaluationQueries
from .runs import RunSettings


def load_narrator(arguments: NarratorArguments, *, prompt: str | None = None) -> Narrator:
    """
    The model that is asked, on its device.

    Args:
        arguments ([`NarratorArguments`]): which.
        prompt (`str`, *optional*): the question, if it is none of EILEV's.

    Raises:
        ValueError: if the checkpoint is of another architecture, and `chat` is not set.
        OSError: if there is none.
    """
    names = ("num_beams", "max_new_tokens", "length_penalty", "do_sample")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    # Of an adapter, its own: its base has another.
    shown = arguments.model_name or Path(arguments.model_name_or_path).name
    name = find_checkpoint(arguments.model_name_or_path)
    revision = {} if arguments.model_revision is None else {"revision": arguments.model_revision}
    if arguments.noun_model_name_or_path is not None:
        from .video_mae import VideoMaeNarrator

        device = arguments.device or join_processes().device
        settings = {"dtype": arguments.dtype, "device": device, "name": shown}
        return VideoMaeNarrator.from_pretrained(name, arguments.noun_model_name_or_path, **settings)
    if arguments.chat:
        from .chat_narrator import ChatNarrator

        settings = json.loads(arguments.processor_kwargs or "{}")
        return ChatNarrator(
            _load_model(AutoModelForImageTextToText, name, arguments, revision),
            AutoProcessor.from_pretrained(name, **settings, **revision),
            name=shown,
            frames_as=arguments.chat_frames_as,
            num_frames=arguments.num_frames,
            clip_sec=arguments.clip_sec,
            instruction=arguments.chat_instruction,
            **({} if prompt is None else {"prompts": (prompt,)}),
            **given,
        )
    check_architecture(name, hint=", or be asked through its chat template: set `chat`", **revision)
    # Of BLIP-2's own checkpoints too, which the auto classes give to transformers' classes.
    processor = VideoBlip2Processor.from_pretrained(name, **revision)
    model = _load_model(VideoBlip2ForConditionalGeneration, name, arguments, revision)
    model.config.video_token_id = processor.video_token_id
    if notice := notice_of(model.config):
        join_processes().print(notice)
    store = None if arguments.features_dir is None else ClipFeatureStore(arguments.features_dir)
    return VideoBlipNarrator(model, processor, name=shown, store=store, **given)


def load_queries(arguments: QueryArguments) -> EvaluationQueries:
    """
    The clips to ask about, and the contexts before them.

    Args:
        arguments ([`QueryArguments`]): which.

    Raises:
        ValueError, FileNotFoundError: as `load_narrated_clips` and [`EvaluationQueries`].
    """
    skip_missing = arguments.skip_missing_clips
    clips = load_narrated_clips(
        arguments.clips,
        split=arguments.split,
        annotation_file=arguments.annotation_file,
        split_file=arguments.split_file,
        skip_missing=skip_missing,
    )
    others = (arguments.context_clips, arguments.context_split, arguments.context_annotation_file)
    context_clips = None
    if any(other is not None for other in (*others, arguments.context_split_file)):
        context_clips = load_narrated_clips(
            arguments.context_clips or arguments.clips,
            split=arguments.context_split or ("train" if arguments.context_clips else arguments.split),
            annotation_file=arguments.context_annotation_file,
            split_file=arguments.context_split_file,
            skip_missing=skip_missing,
        )
    return EvaluationQueries(
        clips,
        context_clips,
        shots=arguments.shots,
        kind=arguments.contexts,
        presampled=arguments.contexts_dir,
        num_queries=arguments.num_queries,
        verb_noun_ratio=arguments.verb_noun_ratio,
        seed=arguments.seed,
    )


def load_run_settings(arguments: RunArguments, queries: QueryArguments, *others) -> RunSettings:
    """
    How predictions are made.

    Args:
        arguments ([`RunArguments`]): where results go, and under which conditions they come about.
        queries ([`QueryArguments`]): name the data set: by `dataset_name`, or else folder and split of `clips`.

    Raises:
        FileNotFoundError: if there is no such file of sentences.
        ValueError: if the file of sentences has another form.
    """
    sentences = None if arguments.sentences_file is None else _read_sentences(Path(arguments.sentences_file))
    return RunSettings(
        output_dir=Path(arguments.output_dir),
        dataset=queries.dataset_name or f"{Path(queries.clips).name}-{queries.split}",
        conditions=arguments.conditions,
        prompts=PROMPTS if arguments.prompt is None else (arguments.prompt,),
        sentences=sentences,
        batch_size=arguments.batch_size,
        overwrite=arguments.overwrite,
        arguments={name: value for part in (queries, arguments, *others) for name, value in asdict(part).items()},
    )


def load_metrics(arguments: MetricArguments, *, seed: int) -> NarrationMetrics:
    """
    What narrations are measured by; models are loaded when they are first needed.

    Args:
        arguments ([`MetricArguments`]): which metrics, by which models.
        seed (`int`): of the intervals.

    Raises:
        ValueError: as [`NarrationMetrics`].
    """
    return NarrationMetrics(
        arguments.metrics,
        bi_encoder=arguments.bi_encoder,
        cross_encoder=arguments.cross_encoder,
        bert_score_model=arguments.bert_score_model,
        seed=seed,
        num_resamples=arguments.num_resamples,
    )


def _load_model(model_class, name: str, arguments: NarratorArguments, revision: dict[str, str]):
    device = arguments.device or join_processes().device
    settings = {**revision, "dtype": arguments.dtype}
    if arguments.attn_implementation is not None:
        settings["attn_implementation"] = arguments.attn_implementation
    if arguments.load_in is None:
        return model_class.from_pretrained(name, **settings).to(device)
    settings["quantization_config"] = BitsAndBytesConfig(**{f"load_in_{arguments.load_in}": True})
    return model_class.from_pretrained(name, device_map={"": device}, **settings)


def _read_sentences(path: Path) -> dict[str, str]:
    return {row["frame_path"]: row["narration_text"] for row in read_csv(path, ("frame_path", "narration_text"))}


__all__ = ["load_metrics", "load_narrator", "load_queries", "load_run_settings"]
