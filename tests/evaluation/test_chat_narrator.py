"""A chat model is asked as its processor and `generate` would be by hand, whichever family it is of."""

import numpy as np
import pytest
import torch
from chat_models import MAKERS, make_idefics3, make_llava
from made_clips import make_clips
from PIL import Image
from transformers.video_utils import VideoMetadata

from transformers_eilev import embedded_checkpoint
from transformers_eilev.data.narrations import PROMPTS, VIDEO_BLIP_PROMPT
from transformers_eilev.evaluation.chat_narrator import ChatNarrator, turns_of
from transformers_eilev.evaluation.conditions import find_condition
from transformers_eilev.evaluation.narrators import VideoBlipNarrator
from transformers_eilev.evaluation.queries import EvaluationQueries


@pytest.fixture(scope="module", params=MAKERS)
def chatter(request):
    """Model and processor of a family; and settings by which it says letters alone."""
    torch.manual_seed(0)
    model, processor = MAKERS[request.param]()
    letters = {*processor.tokenizer("abcdefghijklmnopqrstuvwxyz", add_special_tokens=False)["input_ids"]}
    others = [number for number in range(len(processor.tokenizer)) if number not in letters]
    return model.eval(), processor, {"suppress_tokens": others, "max_new_tokens": 8}


@pytest.fixture(scope="module")
def queries():
    return EvaluationQueries(make_clips(24), shots=(0, 1, 2), num_queries=4)


def samples_of(queries, narrator, condition="in_context", shots=2, **options):
    samples = queries.samples(shots, find_condition(condition), load_clip=narrator.load_clip, **options)
    return [samples[index] for index in range(len(samples))]


# -------------------------------------------------------------------------------------------------------------- turns


def sample_of(*blocks, videos=()):
    return {"text": list(blocks), "videos": list(videos), "frame_path": "kitchen|3"}


@pytest.mark.parametrize("question", [*PROMPTS, VIDEO_BLIP_PROMPT])
@pytest.mark.parametrize("narration", ["The camera wearer cuts a carrot.", "#O Man X waves.", "?"])
def test_questions_and_narrations_are_told_apart(question, narration):
    """Though some questions begin as others do."""
    turns = turns_of(sample_of(f"<video>{question} {narration}", f"<video>{PROMPTS[0]}", videos=["a", "b"]))
    assert turns == [(question, narration, "a"), (PROMPTS[0], None, "b")]


def test_a_question_of_ones_own_is_known_by_the_query_or_by_name():
    assert turns_of(sample_of("What? A cup.", "What?")) == [("What?", "A cup.", None), ("What?", None, None)]
    sample = sample_of("<video>Who? Me.", "What? A cup.", "<video>What?", videos=["a", "b"])
    assert turns_of(sample, ["What?", "Who?"])[0] == ("Who?", "Me.", "a")
    with pytest.raises(ValueError, match=r"of the sample of 'kitchen\|3' begins with none of 11 known.*'Who\? Me\.'"):
        turns_of(sample)


@pytest.mark.parametrize(
    "condition, with_frames",
    [
        ("in_context", [True, True, True]),
        ("text_only", [False, False, True]),
        ("no_query_clip", [True, True, False]),
        ("no_clips", [False, False, False]),
    ],
)
def test_controls_leave_out_frames(queries, condition, with_frames):
    samples = queries.samples(2, find_condition(condition), load_clip=lambda row: [row["frame_path"]])
    sample = samples[0]
    turns = turns_of(sample)
    assert [turn.frames is not None for turn in turns] == with_frames
    assert [turn.frames for turn in turns if turn.frames] == sample["videos"]


def test_clips_that_are_missing_are_told():
    with pytest.raises(ValueError, match=r"of the sample of 'kitchen\|3' has 2 `<video>`, but `videos` has 1"):
        turns_of(sample_of("<video>What? A cup.", "<video>What?", videos=["a"]))


@pytest.mark.parametrize("instruction", [None, "Be brief."])
def test_the_chat_has_a_turn_for_each_clip_and_narration(instruction):
    model, processor = make_llava()
    narrator = ChatNarrator(model, processor, instruction=instruction)
    sample = sample_of("<video>What? A cup.", "What? A door.", "<video>What?", videos=[["a0", "a1"], ["b0", "b1"]])
    images = {name: {"type": "image", "image": name} for name in ("a0", "a1", "b0", "b1")}
    system = [{"role": "system", "content": [{"type": "text", "text": instruction}]}] if instruction else []
    assert narrator.make_chat(sample) == [
        *system,
        {"role": "user", "content": [images["a0"], images["a1"], {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A cup."}]},
        {"role": "user", "content": [{"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A door."}]},
        {"role": "user", "content": [images["b0"], images["b1"], {"type": "text", "text": "What?"}]},
    ]
    narrator.frames_as = "video"
    shown = narrator.make_chat(sample)[len(system)]["content"]
    assert shown == [{"type": "video", "video": ["a0", "a1"]}, {"type": "text", "text": "What?"}]


# ---------------------------------------------------------------------------------------------------------- narrating


def test_it_says_what_the_model_says_by_hand(chatter, queries):
    model, processor, settings = chatter
    narrator = ChatNarrator(model, processor, num_frames=2, **settings)
    sample = samples_of(queries, narrator)[0]
    chat, clips = [], iter(sample["videos"])
    for block in sample["text"]:
        question = next(q for q in sorted(PROMPTS, key=len)[::-1] if block.startswith(f"<video>{q}"))
        images = [{"type": "image", "image": frame} for frame in next(clips)]
        assert len(images) == 2
        chat.append({"role": "user", "content": [*images, {"type": "text", "text": question}]})
        narration = block.removeprefix(f"<video>{question}").strip()
        if narration:
            chat.append({"role": "assistant", "content": [{"type": "text", "text": narration}]})
    inputs = processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    generated_ids = model.generate(**inputs, do_sample=False, **settings)
    [expected] = processor.batch_decode(generated_ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert narrator([sample]) == [expected] and len(expected) == 8


@pytest.mark.parametrize("condition, shots", [("in_context", 2), ("text_only", 2), ("no_clips", 1), ("in_context", 0)])
def test_a_batch_is_as_one_by_one(chatter, queries, condition, shots):
    model, processor, settings = chatter
    narrator = ChatNarrator(model, processor, **settings)
    samples = samples_of(queries, narrator, condition, shots)
    # Of unequal lengths, padded on the left whatever the tokenizer does by itself.
    mask = narrator.encode(samples)["attention_mask"]
    assert processor.tokenizer.padding_side == "right" and mask[:, -1].all() and not mask[:, 0].all()
    said = narrator(samples)
    assert said == [narrator([sample])[0] for sample in samples] and len(set(said)) > 1
    assert narrator([]) == []


def test_each_frame_has_its_place(chatter, queries):
    model, processor, settings = chatter
    narrator = ChatNarrator(model, processor, **settings)
    sample = samples_of(queries, narrator)[0]
    before = narrator.encode([sample])
    white = Image.fromarray(np.full((40, 40, 3), 255, np.uint8))
    for clip in range(3):
        for frame in range(4):
            videos = [list(own) for own in sample["videos"]]
            videos[clip][frame] = white
            after = narrator.encode([{**sample, "videos": videos}])
            pixels = [inputs["pixel_values"].reshape(12, -1) for inputs in (before, after)]
            assert (pixels[0] != pixels[1]).any(1).nonzero().flatten().tolist() == [4 * clip + frame]
            assert torch.equal(before["input_ids"], after["input_ids"])


def test_one_line_is_taken(chatter, queries, monkeypatch):
    model, processor, _ = chatter
    narrator = ChatNarrator(model, processor)
    samples = samples_of(queries, narrator, shots=0)[:2]

    def generate(input_ids, **kwargs):
        assert kwargs["max_new_tokens"] == 32 and kwargs["do_sample"] is False
        said = processor.tokenizer(
            ["\n The camera wearer cuts a cup. \nUser: more", " \n"], padding=True, return_tensors="pt"
        )
        return torch.cat([input_ids, said["input_ids"]], dim=1)

    monkeypatch.setattr(model, "generate", generate)
    assert narrator(samples) == ["The camera wearer cuts a cup.", ""]


def test_a_chat_that_is_too_long_is_told_before(chatter, queries, monkeypatch):
    model, processor, settings = chatter
    narrator = ChatNarrator(model, processor, **settings)
    samples = samples_of(queries, narrator)
    num_tokens = narrator.encode(samples)["input_ids"].shape[1]
    monkeypatch.setattr(model.config.text_config, "max_position_embeddings", num_tokens + 8)
    narrator.encode(samples)
    monkeypatch.setattr(model.config.text_config, "max_position_embeddings", num_tokens + 7)
    monkeypatch.setattr(model, "generate", None)
    with pytest.raises(
        ValueError, match=f"A chat of {num_tokens} tokens and 8 more are longer than the {num_tokens + 7}"
    ):
        narrator(samples)


def test_a_saved_model_is_loaded(queries, tmp_path):
    model, processor = make_idefics3()
    for folder in ("one", "other"):
        model.save_pretrained(tmp_path / folder)
        processor.save_pretrained(tmp_path / folder)
    narrator = ChatNarrator(model.eval(), processor, max_new_tokens=4)
    one, other = (
        ChatNarrator.from_pretrained(str(tmp_path / folder), dtype=torch.float32, max_new_tokens=4)
        for folder in ("one", "other")
    )
    samples = samples_of(queries, one)
    assert one.name == "one" and one(samples) == narrator(samples)
    # Though the tokenizer of one was used, and remembers how it padded.
    assert one.fingerprint() == other.fingerprint()


def test_the_fingerprint_knows_what_decides_what_is_said(chatter, queries):
    model, processor, _ = chatter

    def fingerprint(**settings):
        return ChatNarrator(model, processor, **settings).fingerprint()

    kinds = (
        {},
        {"num_frames": 2},
        {"instruction": "Be brief."},
        {"num_beams": 2},
        {"max_new_tokens": 4},
        {"name": "x"},
    )
    fingerprints = [fingerprint(**settings) for settings in kinds]
    assert fingerprints.pop() == fingerprints[0]
    template, mean = processor.chat_template, processor.image_processor.image_mean
    processor.chat_template = template + " "
    fingerprints.append(fingerprint())
    processor.chat_template, processor.image_processor.image_mean = template, [0.1, 0.2, 0.3]
    fingerprints.append(fingerprint())
    processor.image_processor.image_mean = mean
    assert fingerprint() == fingerprints[0]
    weight = model.get_output_embeddings().weight
    with torch.no_grad():
        weight += 1
        fingerprints.append(fingerprint())
        weight -= 1
    assert len(set(fingerprints)) == len(fingerprints) == 8


def test_what_can_not_be_is_told(chatter):
    model, processor, _ = chatter
    name = type(processor).__name__
    for settings, message in (
        ({"frames_as": "video"}, f"`frames_as` is 'video', but {name} has no video_processor: try 'images'"),
        ({"frames_as": "frames"}, r"must be one of \('images', 'video'\), but is 'frames'"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be at least 1"),
        ({"clip_sec": 0}, "`clip_sec` must be above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ChatNarrator(model, processor, **settings)
    template, processor.chat_template = processor.chat_template, None
    try:
        with pytest.raises(ValueError, match=f"a {name}, has no chat template"):
            ChatNarrator(model, processor)
    finally:
        processor.chat_template = template


# ------------------------------------------------------------------------------------------------------------- videos


@pytest.fixture(scope="module")
def video_chatter():
    return ChatNarrator.from_pretrained(
        embedded_checkpoint(), dtype=torch.float32, frames_as="video", max_new_tokens=8
    )


@pytest.mark.parametrize("condition", ["in_context", "text_only", "no_query_clip", "no_clips"])
def test_eilev_says_the_same_when_it_chats(video_chatter, queries, condition):
    narrator = VideoBlipNarrator(
        video_chatter.model, video_chatter.processor, num_beams=1, do_sample=False, max_new_tokens=8
    )
    expected = narrator(samples_of(queries, narrator, condition))
    assert video_chatter(samples_of(queries, video_chatter, condition)) == expected
    assert any(expected)


def test_each_frame_of_a_video_has_its_place(video_chatter, queries):
    sample = samples_of(queries, video_chatter)[0]
    before = video_chatter.encode([sample])["pixel_values"]
    assert before.shape == (3, 4, 3, 40, 40)
    sample["videos"][1] = [*sample["videos"][1][:2], Image.new("RGB", (40, 40)), sample["videos"][1][3]]
    after = video_chatter.encode([sample])["pixel_values"]
    assert (before != after).flatten(2).any(2).nonzero().tolist() == [[1, 2]]


def test_videos_come_with_their_times(video_chatter, queries, monkeypatch):
    """As models want it that are told the times of frames; all frames are taken as they are."""
    seen = {}
    call = video_chatter.processor.video_processor.preprocess

    def preprocess(videos, **kwargs):
        seen.update(kwargs)
        return call(videos, **kwargs)

    monkeypatch.setattr(video_chatter.processor.video_processor, "preprocess", preprocess)
    video_chatter.encode(samples_of(queries, video_chatter)[:2])
    metadata = [VideoMetadata(**item) for item in seen["video_metadata"]]
    assert seen["do_sample_frames"] is False and len(metadata) == 6
    assert metadata[0].timestamps == [0.0, 2.0, 4.0, 6.0] and metadata[0].duration == 8.0


def test_a_model_of_videos_alone_takes_no_images(video_chatter):
    with pytest.raises(ValueError, match="'images', but VideoBlip2Processor has no image_processor: try 'video'"):
        ChatNarrator(video_chatter.model, video_chatter.processor)
