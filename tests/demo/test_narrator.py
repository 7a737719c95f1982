"""The model of a page says what `generate` says of the whole prompt, reads examples once, and mixes nobody up."""

import pytest
import torch
from clip_files import see_clip
from narrator import Narrator, Turn
from pages import CLIPS
from transformers import AutoModelForImageTextToText, AutoProcessor

from transformers_eilev import embedded_checkpoint
from transformers_eilev.processing_video_blip_2 import DEFAULT_PROMPT


NARRATED = ("wams_the_carrot", "inserts_the_fedan")
QUERY = "wams_the_fedan"


def load(checkpoint):
    processor = AutoProcessor.from_pretrained(checkpoint)
    return Narrator(AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32), processor)


@pytest.fixture(scope="module")
def narrator():
    return load(embedded_checkpoint())


def clip_of(narrator, name):
    return see_clip(str(CLIPS / f"{name}.mp4"), narrator.processor.video_processor)


def examples_for(narrator, names=NARRATED):
    return [Turn(clip_of(narrator, name), DEFAULT_PROMPT, sentence(name)) for name in names]


def sentence(name):
    return f"The camera wearer {name.replace('_', ' ')}."


def expected(narrator, names, query, **settings):
    """The plain way: files and text through processor and model, all at once."""
    blocks = [f"<video>{DEFAULT_PROMPT} {sentence(name)}" for name in names] + [f"<video>{DEFAULT_PROMPT}"]
    clips = [str(CLIPS / f"{name}.mp4") for name in (*names, query)]
    inputs = narrator.processor(text=[blocks], videos=[clips])
    generated_ids = narrator.model.generate(**inputs, **settings)
    return narrator.processor.post_process_narrations(generated_ids, inputs)[0]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_narrates_as_the_whole_prompt_does(narrator, num_beams):
    said = narrator.narrate(examples_for(narrator), clip_of(narrator, QUERY), DEFAULT_PROMPT, num_beams=num_beams)
    assert said == expected(narrator, NARRATED, QUERY, num_beams=num_beams)
    assert said == sentence(QUERY)


def test_an_encoder_decoder_does_so_too(golden_t5):
    narrator = load(golden_t5.checkpoint)
    settings = {"max_new_tokens": 8, "num_beams": 2}
    said = narrator.narrate(examples_for(narrator), clip_of(narrator, QUERY), DEFAULT_PROMPT, **settings)
    assert said and said == expected(narrator, NARRATED, QUERY, **settings)


def test_clips_and_examples_are_read_once():
    narrator = load(embedded_checkpoint())
    seen, read = [], []
    narrator.model.vision_model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(1), with_kwargs=True)
    narrator.model.language_model.get_decoder().register_forward_pre_hook(
        lambda _, args, kwargs: read.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    examples = examples_for(narrator)
    narrator.narrate(examples, clip_of(narrator, QUERY), DEFAULT_PROMPT, max_new_tokens=1)
    assert seen and max(read) > 20
    seen.clear(), read.clear()
    # Another object of the same content, as of another visitor.
    narrator.narrate(examples_for(narrator), clip_of(narrator, NARRATED[0]), DEFAULT_PROMPT, max_new_tokens=1)
    question = len(narrator.processor.encode(f"<video>{DEFAULT_PROMPT}")["input_ids"])
    assert not seen and sum(read) <= question


def test_visitors_who_take_turns_get_their_own_answers(narrator):
    query = clip_of(narrator, QUERY)
    alone = narrator.narrate((), query, DEFAULT_PROMPT)
    # Other words for the same clips: what is read of them differs in its text alone.
    named = {"wams_the_carrot": "The camera wearer fams the dolo.", "inserts_the_fedan": "The camera wearer cuts it."}
    others = [Turn(clip_of(narrator, name), DEFAULT_PROMPT, text) for name, text in named.items()]
    of_others = load(embedded_checkpoint()).narrate(others, query, DEFAULT_PROMPT)
    assert len({alone, of_others, sentence(QUERY)}) == 3
    for _ in range(2):
        assert narrator.narrate(examples_for(narrator), query, DEFAULT_PROMPT) == sentence(QUERY)
        assert narrator.narrate(others, query, DEFAULT_PROMPT) == of_others
        assert narrator.narrate((), query, DEFAULT_PROMPT) == alone


def test_a_seed_decides_what_is_drawn_and_nothing_else(narrator):
    query = clip_of(narrator, QUERY)
    state = torch.get_rng_state()

    def drawn(seed):
        return narrator.narrate((), query, DEFAULT_PROMPT, seed=seed, do_sample=True, temperature=2.0)

    said = [drawn(seed) for seed in range(6)]
    assert len(set(said)) > 1 and said == [drawn(seed) for seed in range(6)]
    assert torch.equal(torch.get_rng_state(), state)


def test_texts_that_cannot_be_read(narrator):
    query = clip_of(narrator, QUERY)
    for question, fault in (
        (" ?", "The question has no words"),
        ("What\nis this?", "must be one line"),
        ("What is <video>?", "may not contain <video>"),
        ("What? " * 100, "has 600 letters; at most 300"),
    ):
        with pytest.raises(ValueError, match=fault):
            narrator.narrate((), query, question)
    with pytest.raises(ValueError, match="longer than the 512 that the language model can read"):
        narrator.narrate(examples_for(narrator, NARRATED * 32), query, DEFAULT_PROMPT)
