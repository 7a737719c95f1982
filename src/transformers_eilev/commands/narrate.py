"""`transformers-eilev narrate`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from .errors import in_one_line


def narrate(
    videos_and_texts: Annotated[
        list[str],
        typer.Argument(
            metavar="VIDEO|TEXT...",
            help="Clips and texts in any order: an argument that is a file is a clip, a text belongs to the clips "
            "right before it. The last clip is narrated; without a text after it, what the camera wearer does is "
            "asked.",
        ),
    ],
    model: Annotated[
        str, typer.Option(help="Folder, model id, or name of a checkpoint in the package.")
    ] = "kpyu/eilev-blip2-opt-2.7b",
    processor: Annotated[str | None, typer.Option(help="The processor's, if it lies elsewhere.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; a GPU if there is one.")] = None,
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, float16, or auto: what the checkpoint says.")
    ] = "auto",
    num_frames: Annotated[int | None, typer.Option(help="Frames of each clip, evenly spaced.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second of each clip, instead of --num-frames.")] = None,
    start: Annotated[float | None, typer.Option(help="Where the clips start in their files, in seconds.")] = None,
    end: Annotated[float | None, typer.Option(help="Where they end, in seconds.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Length of the narration.")] = None,
    num_beams: Annotated[int | None, typer.Option(help="Beams to search with.")] = None,
    length_penalty: Annotated[float | None, typer.Option(help="Above 0 prefers long narrations, below short.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1 avoids repeating.")] = None,
    do_sample: Annotated[bool | None, typer.Option(help="Draw instead of taking the likeliest.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of drawing.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Of drawing.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of drawing.")] = None,
    frames: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to draw the frames that the model saw: a .png, say.")
    ] = None,
):
    """
    Says what the camera wearer does in a clip.

    With narrated clips before it, in their manner:

    transformers-eilev narrate cup.mp4 "Question: What is the camera wearer doing? Answer: The camera wearer washes a
    cup." mixer.mp4 "Question: What is the camera wearer doing? Answer:"

    Without a download, of clips from transformers-eilev data synthetic: --model eilev-synthetic-opt.

    Settings that are not given are those of the checkpoint.
    """
    from .arguments import arrange_videos_and_texts

    with in_one_line():
        blocks, clips = arrange_videos_and_texts(videos_and_texts)
        if frames is not None:
            _check_picture(frames)

    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor, set_seed

    from ..embedded_checkpoints import find_checkpoint
    from ..frame_sheets import make_frame_sheet, show_clips
    from ..notices import notice_of

    # Before the model, which takes longer to load: what is wrong with a clip shows at once.
    with in_one_line():
        loaded_processor = AutoProcessor.from_pretrained(find_checkpoint(processor or model))
        clip_settings = _given({"num_frames": num_frames, "fps": fps, "start": start, "end": end})
        inputs = loaded_processor(text=[blocks], videos=[clips], return_metadata=True, **clip_settings)
        metadata = inputs.pop("video_metadata")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        loaded_model = AutoModelForImageTextToText.from_pretrained(find_checkpoint(model), dtype=dtype).to(device)
        shown = None if frames is None else show_clips(inputs, metadata, blocks, loaded_processor.video_processor)
    if notice := notice_of(loaded_model.config):
        typer.secho(notice, fg="yellow", err=True)
    if seed is not None:
        set_seed(seed)
    generation_settings = {
        "max_new_tokens": max_new_tokens,
        "num_beams": num_beams,
        "length_penalty": length_penalty,
        "repetition_penalty": repetition_penalty,
        "do_sample": do_sample,
        "temperature": temperature,
        "top_p": top_p,
    }
    generated_ids = loaded_model.generate(**inputs.to(device, loaded_model.dtype), **_given(generation_settings))
    narration = loaded_processor.post_process_narrations(generated_ids, inputs)[0]
    if not narration:
        typer.secho("The model ended the narration before its first word.", fg="yellow", err=True)
    typer.echo(narration)
    if shown is not None:
        shown[-1] = dataclasses.replace(shown[-1], narration=narration)
        with in_one_line():
            make_frame_sheet(shown).image.save(frames)
        typer.echo(f"The frames that the model saw are in {frames}", err=True)


def _check_picture(path: Path):
    """Before the work whose result would be lost."""
    from PIL import Image

    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"--frames must name a picture, such as frames.png, but is {str(path)!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--frames is {str(path)!r}, but there is no folder {str(path.parent)!r}")


def _given(settings: dict) -> dict:
    return {name: value for name, value in settings.items() if value is not None}
