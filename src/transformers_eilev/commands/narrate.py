"""`transformers-eilev narrate`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from .errors import in_one_line
from .loading import given, load_model, load_processor


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

    from transformers import set_seed

    from ..frame_sheets import make_frame_sheet, show_clips

    # Before the model, which takes longer to load: what is wrong with a clip shows at once.
    with in_one_line():
        loaded_processor = load_processor(processor or model)
        clip_settings = given(num_frames=num_frames, fps=fps, start=start, end=end)
        inputs = loaded_processor(text=[blocks], videos=[clips], return_metadata=True, **clip_settings)
        metadata = inputs.pop("video_metadata")
        loaded_model = load_model(model, device=device, dtype=dtype)
        shown = None if frames is None else show_clips(inputs, metadata, blocks, loaded_processor.video_processor)
    if seed is not None:
        set_seed(seed)
    generation_settings = given(
        max_new_tokens=max_new_tokens,
        num_beams=num_beams,
        length_penalty=length_penalty,
        repetition_penalty=repetition_penalty,
        do_sample=do_sample,
        temperature=temperature,
        top_p=top_p,
    )
    inputs = inputs.to(loaded_model.device, loaded_model.dtype)
    generated_ids = loaded_model.generate(**inputs, **generation_settings)
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
