"""`transformers-eilev narrate-video`."""

import json
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .errors import in_one_line
from .loading import given, load_model, load_processor


class Choice(StrEnum):
    """Which demonstrations of a file stand before a clip."""

    ALL = "all"
    VIDEO = "video"
    QFORMER = "qformer"
    TEXT = "text"
    MIXED = "mixed"
    RANDOM = "random"


def narrate_video(
    video: Annotated[str, typer.Argument(help="The video: a file or an http(s) address.")],
    output: Annotated[
        Path | None,
        typer.Option(help="Where to write the narrations: .srt, .vtt, .csv or .jsonl; shown alone by default."),
    ] = None,
    every: Annotated[float, typer.Option(help="Seconds of the video for each narration.")] = 4.0,
    clip_sec: Annotated[
        float | None, typer.Option(help="Seconds of the clip that is looked at for it; as the checkpoint has it.")
    ] = None,
    demonstrations: Annotated[
        Path | None,
        typer.Option(
            help="CSV or JSONL of narrated clips to narrate like: path, narration, and start, end, verb, noun."
        ),
    ] = None,
    choose: Annotated[
        Choice,
        typer.Option(
            help="Which of them: all; those like the clip at hand, to the vision model or the Q-Former, in what is "
            "said of it, or in both; or any at random."
        ),
    ] = Choice.ALL,
    shots: Annotated[int, typer.Option(min=0, help="How many of them, if they are chosen for each clip.")] = 16,
    prompt: Annotated[str | None, typer.Option(help="The question that is asked of every clip.")] = None,
    model: Annotated[
        str, typer.Option(help="Folder, model id, or name of a checkpoint in the package.")
    ] = "kpyu/eilev-blip2-opt-2.7b",
    processor: Annotated[str | None, typer.Option(help="The processor's, if it lies elsewhere.")] = None,
    features: Annotated[Path | None, typer.Option(help="Folder that keeps features of clips for other calls.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; a GPU if there is one.")] = None,
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, float16, or auto: what the checkpoint says.")
    ] = "auto",
    start: Annotated[float, typer.Option(help="Where to begin, in seconds.")] = 0.0,
    end: Annotated[float | None, typer.Option(help="Where to end, in seconds.")] = None,
    num_frames: Annotated[int | None, typer.Option(help="Frames of each clip, evenly spaced.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second of each clip, instead of --num-frames.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips at a time.")] = 8,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Length of a narration.")] = None,
    num_beams: Annotated[int | None, typer.Option(min=1, help="Beams to search with.")] = None,
    length_penalty: Annotated[float | None, typer.Option(help="Above 0 prefers long narrations, below short.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1 avoids repeating.")] = None,
    do_sample: Annotated[bool | None, typer.Option(help="Draw instead of taking the likeliest.")] = None,
    seed: Annotated[int, typer.Option(help="Of drawing.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew, over what is there.")] = False,
):
    """
    Narrates a video of any length, as subtitles or as a table.

    A call that was stopped goes on where it stood. For a narration of one clip: transformers-eilev narrate.

    transformers-eilev narrate-video hour.mp4 --every 4 --demonstrations mine.csv --output hour.srt
    """
    from ..in_context import (
        ClipEncoder,
        ClipFeatureStore,
        DemonstrationFinder,
        InContextSession,
        check_demonstrations,
        read_demonstrations,
    )
    from ..in_context import narrate_video as narrate_stretches
    from ..in_context.long_videos import plan_windows
    from ..in_context.narration_journal import check_output
    from ..in_context.subtitles import subtitle_format
    from ..video_reading import probe_video

    # Before the model, which takes longer to load: what is wrong with a file shows at once.
    with in_one_line():
        if output is not None:
            subtitle_format(output)
            check_output(output, overwrite=overwrite)
        if not video.startswith(("http://", "https://")):
            duration = probe_video(video).duration
            plan_windows(duration, every=every, clip_sec=clip_sec or 8.0, start=start, end=end)
        if choose is not Choice.ALL and demonstrations is None:
            raise ValueError(f"--choose {choose} needs --demonstrations to choose from")
        shown = read_demonstrations(demonstrations) if demonstrations is not None else []
        check_demonstrations(shown)
        loaded_processor = load_processor(processor or model)
        clip_settings = given(num_frames=num_frames, fps=fps)
        resizing = loaded_processor.video_processor.frame_resizing()
        window = loaded_processor.video_processor.clip_window(**clip_settings)
        if clip_sec is None:
            clip_sec = 8.0 if window.end is None else float(window.end - window.start)
        loaded_model = load_model(model, device=device, dtype=dtype)
        encoder = ClipEncoder(loaded_model, loaded_processor, store=ClipFeatureStore(features))
        finder = None
        if choose is not Choice.ALL:
            by = {"video": 0.5, "text": 0.5} if choose is Choice.MIXED else choose.value
            finder = DemonstrationFinder(shown, num_examples=shots, by=by, encoder=encoder, seed=seed, **clip_settings)
        session = InContextSession(
            loaded_model,
            loaded_processor,
            shown if finder is None else (),
            **given(prompt=prompt),
            encoder=encoder,
            finder=finder,
            **clip_settings,
        )
        generation_settings = given(
            max_new_tokens=max_new_tokens,
            num_beams=num_beams,
            length_penalty=length_penalty,
            repetition_penalty=repetition_penalty,
            do_sample=do_sample,
        )
        narrations = narrate_stretches(
            video,
            partial(_narrate, session, video, generation_settings, seed),
            every=every,
            clip_sec=clip_sec,
            num_frames=window.num_frames,
            fps=window.fps,
            start=start,
            end=end,
            size=resizing.get("size"),
            resample=resizing.get("mode", "bicubic"),
            batch_size=batch_size,
            output=output,
            identity={**session.fingerprints(), "settings": json.dumps([choose, shots, generation_settings, seed])},
            overwrite=overwrite,
            progress=output is not None,  # what is shown shows how far it is
        )
        number = 0
        for narration in narrations:
            number += bool(narration.text)
            if output is None and narration.text:
                typer.echo(f"{narration.start:8.2f} - {narration.end:8.2f}  {narration.text}")
    if output is not None:
        typer.echo(f"{number} narrations in {output}", err=True)


def _narrate(session, video: str, settings: dict, seed: int, clips: list, spans: list) -> list:
    """Narrations of clips of a video, cut from between these seconds, with their scores."""
    import torch

    from ..video_processing_video_blip_2 import ClipSpan

    # Numbered by their times, in tenths of a second, so that a call that goes on draws what it would have.
    numbers = [round(10 * start) for start, _ in spans]
    own = None
    if session.finder is not None:
        own = session.find(clips, origins=[ClipSpan(video, *span) for span in spans], indices=numbers)
    with torch.random.fork_rng():
        torch.manual_seed(seed + numbers[0])
        return session.narrate(clips, demonstrations=own, batch_size=len(clips), return_scores=True, **settings)
