"""What the buttons of the EILEV page do, without a browser."""

import gradio as gr
import pytest
from clip_files import UploadLimits
from eilev_app import EXAMPLES, MAX_TURNS, Conversations, examples_of, keep, messages_of, sheet_of
from narrator import Narrator
from pages import CLIPS
from transformers import AutoModelForImageTextToText, AutoProcessor

from transformers_eilev import embedded_checkpoint
from transformers_eilev.processing_video_blip_2 import DEFAULT_PROMPT


CLIP = str(CLIPS / "wams_the_fedan.mp4")
SAID = "The camera wearer wams the fedan."


@pytest.fixture(scope="module")
def conversations():
    checkpoint = embedded_checkpoint()
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    return Conversations(Narrator(model, AutoProcessor.from_pretrained(checkpoint)), UploadLimits(max_sec=20))


def test_examples_of_the_page(conversations):
    known, explained, unexplained = (conversations.example(label)[-1].narration for label in EXAMPLES)
    assert known == "The camera wearer wipes the carrot."
    assert explained == SAID and unexplained != SAID


def test_what_the_model_said_is_an_example_only_if_it_is_kept(conversations):
    turns = conversations.example("New words, explained by two clips")
    assert [turn.by_model for turn in turns] == [False, False, True]
    assert len(examples_of(turns)) == 2 and len(examples_of(keep(turns))) == 3
    messages = messages_of(turns)
    assert [message["role"] for message in messages] == ["user", "assistant"] * 3
    assert messages[1]["content"] == "The camera wearer wams the carrot. (your example)"
    assert messages[-2]["content"] == [{"path": CLIP}, DEFAULT_PROMPT] and messages[-1]["content"] == SAID
    # A further clip is narrated after the examples alone, and the sheet shows what the model saw for it.
    again = conversations.respond(turns, str(CLIPS / "wams_the_carrot.mp4"), DEFAULT_PROMPT)
    heights = [sheet_of(shown).height for shown in (turns[:2], turns, again, keep(again))]
    assert heights[0] < heights[1] == heights[2] and sheet_of(()) is None
    assert messages_of(again)[:6] == messages


def test_what_visitors_write_is_shown_as_they_wrote_it(conversations):
    """The page shows messages as HTML: a picture in one would be asked for from wherever it is."""
    picture = '<img src="http://elsewhere/x.png">'
    messages = messages_of(conversations.add((), CLIP, f"What is {picture}?", f"The <b>camera</b> {picture}."))
    said = messages[0]["content"][1] + messages[1]["content"]
    assert "<" not in said and "&lt;img src=&quot;http://elsewhere/x.png&quot;&gt;" in said
    with pytest.raises(gr.Error, match="may not contain .*&lt;video&gt;"):
        conversations.add((), CLIP, DEFAULT_PROMPT, "The <video> thing")


def test_a_failure_of_the_server_is_told(conversations, monkeypatch, capsys):
    def fail(*args, **settings):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(conversations.narrator, "narrate", fail)
    with pytest.raises(gr.Error, match="Something went wrong on the server"):
        conversations.respond((), CLIP, DEFAULT_PROMPT)
    assert "out of memory" in capsys.readouterr().err


def test_what_cannot_be_used_is_told_and_changes_nothing(conversations, bad_files):
    turns = conversations.add((), CLIP, DEFAULT_PROMPT, SAID)
    for call, fault in (
        (lambda: conversations.add(turns, None, DEFAULT_PROMPT, SAID), "Choose a clip"),
        (lambda: conversations.add(turns, CLIP, DEFAULT_PROMPT, " "), "The narration has no words"),
        (lambda: conversations.respond(turns, CLIP, ""), "The question has no words"),
        (lambda: conversations.respond(turns, str(bad_files["text"]), "What?"), "text.mp4: cannot be opened"),
        (lambda: conversations.respond(turns, str(bad_files["long"]), "What?"), "long.mp4 lasts 25.0 s"),
        (lambda: conversations.respond(turns, CLIP, "What?", max_new_tokens=500), "longer than the 512"),
        (lambda: conversations.respond(turns * MAX_TURNS, CLIP, "What?"), "at most 32 clips"),
        (lambda: keep(turns), "no narration to keep"),
    ):
        with pytest.raises(gr.Error, match=fault):
            call()
    assert len(turns) == 1
