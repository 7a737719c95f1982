"""
A page on which a VideoBLIP model answers a question about a clip.

    python examples/demo/video_blip_app.py
    python examples/demo/video_blip_app.py --model kpyu/video-blip-opt-2.7b-ego4d --device cuda --dtype float16

It listens at 127.0.0.1 alone unless `--server_name` says otherwise. Needs Gradio: pip install ".[demo]"
"""

import gradio as gr
from clip_files import UploadLimits, see_clip, what_is_read
from narrator import SILENT, Narrator
from serving import (
    CLIPS,
    ONE_AT_A_TIME,
    frame_sheet,
    heading,
    limits_in_words,
    limits_of,
    load_narrator,
    new_page,
    parse_arguments,
    serve,
    told_to_visitors,
    uploads_alone,
)

from transformers_eilev.frame_sheets import make_frame_sheet
from transformers_eilev.processing_video_blip_2 import DEFAULT_PROMPT


# Rendered; the second one is of words that no training showed.
EXAMPLES = {"An action it knows": "wipes_the_carrot.mp4", "One it does not": "wams_the_fedan.mp4"}


def answer(
    narrator: Narrator,
    limits: UploadLimits,
    path: str | None,
    question: str,
    do_sample: bool,
    temperature: float,
    top_p: float,
    num_beams: int,
    max_new_tokens: int,
    seed: int,
):
    """
    What the model says of a clip, and a picture of the frames that it saw.

    Raises:
        gr.Error: what is wrong with clip or question.
    """
    with told_to_visitors():
        settings = {"num_beams": int(num_beams), "max_new_tokens": int(max_new_tokens), "do_sample": do_sample}
        if do_sample:
            if seed is None:
                raise ValueError("Give a seed, by which the answer is drawn")
            settings |= {"temperature": temperature, "top_p": top_p, "seed": int(seed)}
        if not path:
            raise ValueError("Choose a clip first")
        clip = see_clip(path, narrator.processor.video_processor, limits)
        said = narrator.narrate((), clip, question.strip(), **settings) or SILENT
    return said, make_frame_sheet([clip.shown(question.strip(), said)]).image


def build(narrator: Narrator, name: str, limits: UploadLimits, keep_sec: int) -> gr.Blocks:
    """The page."""
    config = narrator.model.generation_config
    with new_page("VideoBLIP", keep_sec) as page:
        heading("VideoBLIP", "Ask what happens in a first-person clip.", narrator, name)
        with gr.Row():
            with gr.Column():
                clip = uploads_alone(
                    gr.Video(label="Clip", sources=["upload"], height=320, buttons=[], elem_id="clip")
                )
                question = gr.Textbox(DEFAULT_PROMPT, label="Question", max_lines=1, elem_id="question")
                button = gr.Button("Answer", variant="primary", elem_id="answer")
                gr.Examples(
                    [[str(CLIPS / file)] for file in EXAMPLES.values()],
                    clip,
                    label="Examples, rendered",
                    example_labels=list(EXAMPLES),
                )
            with gr.Column():
                said = gr.Textbox(label="Answer", lines=2, interactive=False, elem_id="said")
                sheet = frame_sheet()
                with gr.Accordion("Settings"):
                    with gr.Row():
                        draw = gr.Checkbox(bool(config.do_sample), label="Sample", info="instead of the likeliest")
                        seed = gr.Number(42, label="Seed", precision=0, minimum=0, maximum=2**32 - 1)
                    with gr.Row():
                        temperature = gr.Slider(0.1, 2, config.temperature or 0.7, step=0.05, label="Temperature")
                        top_p = gr.Slider(0.05, 1, config.top_p or 0.9, step=0.05, label="Top p")
                    with gr.Row():
                        beams = gr.Slider(1, 8, config.num_beams or 1, step=1, label="Beams")
                        length = gr.Slider(1, 128, config.max_new_tokens or 128, step=1, label="Max. tokens")
        gr.Markdown(f"{what_is_read(narrator.processor.video_processor)} {limits_in_words(limits, keep_sec)}")
        button.click(
            lambda *given: answer(narrator, limits, *given),
            [clip, question, draw, temperature, top_p, beams, length, seed],
            [said, sheet],
            api_name="answer",
            **ONE_AT_A_TIME,
        )
    return page


def main():
    args = parse_arguments(__doc__, model="video-blip-synthetic-opt")
    narrator = load_narrator(args)
    serve(lambda: build(narrator, args.model, limits_of(args), args.keep_sec), args)


if __name__ == "__main__":
    main()
