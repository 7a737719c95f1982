"""What the gallery shows beside words: frames as the model sees them, and tables."""

from collections.abc import Sequence

from IPython.display import Markdown
from PIL import Image

from transformers_eilev.frame_sheets import make_frame_sheet, show_clips


def contact_sheet(processor, clips: Sequence, texts: Sequence[str]) -> Image.Image:
    """The frames that a model gets of clips, in rows, each with its text below."""
    blocks = [f"<video>{text}" for text in texts]
    inputs = processor(text=[blocks], videos=[list(clips)], return_metadata=True)
    shown = show_clips(inputs, inputs["video_metadata"], blocks, processor.video_processor)
    # 256 colours: a third of the bytes.
    return make_frame_sheet(shown).image.quantize()


def table(header: Sequence[str], rows: Sequence[Sequence]) -> Markdown:
    """A table of a line for each row."""
    lines = [header, ["---"] * len(header), *rows]
    return Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines))
