"""
A page to talk with an EILEV model: clips, pictures and narrations as examples, then a clip that it narrates likewise.

    python examples/demo/eilev_app.py
    python examples/demo/eilev_app.py --model kpyu/eilev-blip2-opt-2.7b --device cuda --dtype float16

It listens at 127.0.0.1 alone unless `--server_name` says otherwise. Needs Gradio: pip install ".[demo]"
"""

import dataclasses
import html

import gradio as gr
from clip_files import SUFFIXES, UploadLimits, see_clip, what_is_read
from narrator import SILENT, Narrator, Turn, check_text
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


MAX_TURNS = 32
# Narrated clips, and the clip to narrate after them: rendered, and named by their narrations.
EXAMPLES = {
    "An action it knows": ((), "wipes_the_carrot"),
    "New words, explained by two clips": (("wams_the_carrot", "inserts_the_fedan"), "wams_the_fedan"),
    "New words, unexplained": ((), "wams_the_fedan"),
}


class Conversations:
    """
    What the buttons do. A conversation is a tuple of turns, and the visitor's own: nothing of it is kept here.

    Args:
        narrator ([`Narrator`]): which all visitors share.
        limits ([`UploadLimits`]): of what they upload.
    """

    def __init__(self, narrator: Narrator, limits: UploadLimits = UploadLimits()):
        self.narrator, self.limits = narrator, limits

    def add(self, turns: tuple[Turn, ...], path: str | None, question: str, narration: str) -> tuple[Turn, ...]:
        """A narrated clip more."""
        with told_to_visitors():
            check_text("The question", question)
            check_text("The narration", narration)
            return (*turns, Turn(self._see(turns, path), question.strip(), narration.strip()))

    def respond(self, turns: tuple[Turn, ...], path: str | None, question: str, **settings) -> tuple[Turn, ...]:
        """A clip more, which the model narrates in the manner of the examples."""
        with told_to_visitors():
            clip = self._see(turns, path)
            said = self.narrator.narrate(examples_of(turns), clip, question.strip(), **settings)
        return (*turns, Turn(clip, question.strip(), said or SILENT, by_model=True))

    def example(self, name: str, **settings) -> tuple[Turn, ...]:
        """One of the conversations that come with the page, from its beginning."""
        shown, asked = EXAMPLES[name]
        turns = ()
        for clip in shown:
            turns = self.add(turns, _path(clip), DEFAULT_PROMPT, f"The camera wearer {clip.replace('_', ' ')}.")
        return self.respond(turns, _path(asked), DEFAULT_PROMPT, **settings)

    def _see(self, turns, path):
        if not path:
            raise ValueError("Choose a clip or a picture first")
        if len(turns) >= MAX_TURNS:
            raise ValueError(f"A conversation has at most {MAX_TURNS} clips: clear it, or undo some")
        return see_clip(path, self.narrator.processor.video_processor, self.limits)


def examples_of(turns: tuple[Turn, ...]) -> list[Turn]:
    """What the model reads before the clip that it narrates: not what it said itself."""
    return [turn for turn in turns if not turn.by_model]


def keep(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The last narration becomes an example."""
    with told_to_visitors():
        if not turns or not turns[-1].by_model or turns[-1].narration == SILENT:
            raise ValueError("There is no narration to keep: the last clip was not narrated by the model")
    return (*turns[:-1], dataclasses.replace(turns[-1], by_model=False))


def messages_of(turns: tuple[Turn, ...]) -> list[dict]:
    """A conversation for the page: clips and questions, and what is said of them, by whom."""
    messages = []
    for turn in turns:
        said = turn.narration if turn.by_model else f"{turn.narration} (your example)"
        # Shown as HTML, whatever is said of Markdown.
        messages.append({"role": "user", "content": [{"path": turn.clip.path}, html.escape(turn.question)]})
        messages.append({"role": "assistant", "content": html.escape(said)})
    return messages


def sheet_of(turns: tuple[Turn, ...]):
    """The frames of the last prompt, as the model sees them."""
    if not turns:
        return None
    last = [turns[-1]] if turns[-1].by_model else []
    shown = [turn.clip.shown(f"{turn.question} {turn.narration}") for turn in examples_of(turns)]
    shown += [turn.clip.shown(turn.question, turn.narration) for turn in last]
    return make_frame_sheet(shown).image


def build(narrator: Narrator, name: str, limits: UploadLimits, keep_sec: int) -> gr.Blocks:
    """The page."""
    conversations = Conversations(narrator, limits)
    config = narrator.model.generation_config
    with new_page("EILEV", keep_sec) as page:
        heading("EILEV", "Show it a few narrated clips; it narrates the next one in their manner.", narrator, name)
        turns = gr.State((), time_to_live=keep_sec)
        with gr.Row():
            with gr.Column(scale=3):
                chat = gr.Chatbot(
                    label="Conversation",
                    elem_id="conversation",
                    height=640,
                    render_markdown=False,
                    buttons=[],
                    allow_file_downloads=False,
                    placeholder="Add narrated clips, then a clip to narrate; or take an example.",
                )
            with gr.Column(scale=2, min_width=360):
                clip = uploads_alone(
                    gr.File(label="Clip or picture", file_types=list(SUFFIXES), height=140, elem_id="clip")
                )
                question = gr.Textbox(DEFAULT_PROMPT, label="Question", max_lines=1, elem_id="question")
                narration = gr.Textbox(
                    label="Narration, if the clip is an example",
                    placeholder="The camera wearer ...",
                    max_lines=1,
                    elem_id="narration",
                )
                with gr.Row():
                    add_button = gr.Button("Add as example", elem_id="add")
                    respond_button = gr.Button("Respond", variant="primary", elem_id="respond")
                with gr.Row():
                    keep_button = gr.Button("Keep answer as example", size="sm", min_width=170, elem_id="keep")
                    undo_button = gr.Button("Undo", size="sm", min_width=70, elem_id="undo")
                    clear_button = gr.Button("Clear", size="sm", min_width=70, elem_id="clear")
                with gr.Accordion("Settings", open=False):
                    beams = gr.Slider(1, 8, config.num_beams or 1, step=1, label="Beams")
                    length = gr.Slider(1, 64, config.max_new_tokens or 32, step=1, label="Max. tokens")
                gr.Markdown("**Examples**, of rendered clips")
                example_buttons = {label: gr.Button(label, size="sm") for label in EXAMPLES}
        sheet = frame_sheet()
        gr.Markdown(
            f"{what_is_read(narrator.processor.video_processor)} A picture is a clip of one frame: since the model is "
            "blind to the order of frames, to repeat it would change nothing. What the model says is no example for "
            f"the next clip, unless you keep it. {limits_in_words(limits, keep_sec)}"
        )

        def show(conversation):
            return conversation, messages_of(conversation), sheet_of(conversation)

        def settings_of(num_beams, max_new_tokens):
            return {"num_beams": int(num_beams), "max_new_tokens": int(max_new_tokens)}

        shown = [turns, chat, sheet]
        add_button.click(
            lambda *given: (*show(conversations.add(*given)), None, ""),
            [turns, clip, question, narration],
            [*shown, clip, narration],
            api_name="add",
            **ONE_AT_A_TIME,
        )
        respond_button.click(
            lambda conversation, path, asked, *chosen: (
                *show(conversations.respond(conversation, path, asked, **settings_of(*chosen))),
                None,
            ),
            [turns, clip, question, beams, length],
            [*shown, clip],
            api_name="respond",
            **ONE_AT_A_TIME,
        )
        for label, button in example_buttons.items():
            button.click(
                lambda *chosen, label=label: show(conversations.example(label, **settings_of(*chosen))),
                [beams, length],
                shown,
                api_visibility="private",
                **ONE_AT_A_TIME,
            )
        # One after the other with the answers: what is cleared while one is made would come back with it.
        private = {"api_visibility": "private", **ONE_AT_A_TIME}
        keep_button.click(lambda conversation: show(keep(conversation)), turns, shown, **private)
        undo_button.click(lambda conversation: show(conversation[:-1]), turns, shown, **private)
        gr.on([clear_button.click, chat.clear], lambda: show(()), None, shown, **private)
    return page


def _path(name: str) -> str:
    return str(CLIPS / f"{name}.mp4")


def main():
    args = parse_arguments(__doc__, model="eilev-synthetic-opt")
    narrator = load_narrator(args)
    serve(lambda: build(narrator, args.model, limits_of(args), args.keep_sec), args)


if __name__ == "__main__":
    main()
