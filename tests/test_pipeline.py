"""`pipeline("video-narration")` as its users call it."""

import json

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from transformers_eilev import ClipSpan, VideoNarrationPipeline
from transformers_eilev.in_context import ClipEncoder, Demonstration, DemonstrationFinder


PROMPT = "Question: What is the camera wearer doing? Answer:"


@pytest.fixture(scope="module")
def narrate(golden):
    return pipeline(
        "video-narration",
        model=golden.model,
        processor=golden.interleaved,
        device="cpu",
        max_new_tokens=6,
        num_beams=1,
    )


@pytest.fixture
def clips(videos_path):
    return [str(videos_path / name) for name in ("good_cfr_bframes.mp4", "short_2s.mp4", "rotate90.mp4")]


def narration_of(golden, clips, narrations=(), prompt=PROMPT, **kwargs):
    """The same without the pipeline."""
    processor = golden.interleaved
    inputs = processor(text=processor.build_prompt(list(narrations), prompt), videos=[list(clips)], **kwargs)
    options = {"max_new_tokens": 6, "num_beams": 1, "do_sample": False, "repetition_penalty": 1.0}
    generated_ids = golden.model.generate(**inputs, **options)
    return processor.post_process_narrations(generated_ids, inputs)[0]


@pytest.fixture
def greedy(narrate):
    def call(*args, **kwargs):
        return narrate(*args, do_sample=False, repetition_penalty=1.0, **kwargs)

    return call


def test_one_clip(golden, greedy, clips):
    outputs = greedy(clips[0])
    assert outputs == [{"generated_text": narration_of(golden, clips[:1])}]
    assert json.loads(json.dumps(outputs)) == outputs


def test_many_clips_in_batches(golden, greedy, clips):
    expected = [[{"generated_text": narration_of(golden, [clip])}] for clip in clips]
    assert len({str(output) for output in expected}) > 1
    assert greedy(clips) == expected
    assert greedy(clips, batch_size=2) == expected
    assert list(greedy(clip for clip in clips)) == expected


def test_clips_of_unequal_length_in_a_batch(golden, greedy, clips):
    settings = {"fps": 1, "end": 10}
    expected = [[{"generated_text": narration_of(golden, [clip], **settings)}] for clip in clips]
    assert greedy(clips, batch_size=3, **settings) == expected


def test_demonstrations_make_an_in_context_prompt(golden, greedy, clips):
    demonstrations = [(clips[1], "The camera wearer cuts a tomato."), (clips[2], "The camera wearer stirs.")]
    narrations = [narration for _, narration in demonstrations]
    expected = narration_of(golden, [clips[1], clips[2], clips[0]], narrations, "What? Answer:")
    assert greedy(clips[0], demonstrations=demonstrations, prompt="What? Answer:") == [{"generated_text": expected}]
    assert greedy({"path": clips[0], "bytes": None}) == greedy(clips[0])
    assert greedy([]) == []
    each = {"video": clips[0], "demonstrations": demonstrations, "prompt": "What? Answer:"}
    assert greedy([each, each], batch_size=2) == [[{"generated_text": expected}]] * 2


def test_demonstrations_are_read_once(narrate, clips, monkeypatch):
    read = []
    process = type(narrate.processor.video_processor).preprocess
    monkeypatch.setattr(
        type(narrate.processor.video_processor),
        "preprocess",
        lambda self, video, **kwargs: read.append(video) or process(self, video, **kwargs),
    )
    narrate(clips[:2], demonstrations=[(clips[2], "The camera wearer stirs.")])
    assert sorted(read) == sorted(clips)


def test_demonstrations_are_encoded_and_read_once(golden, greedy, clips):
    """By the vision model with the first clip; by a decoder-only language model too."""
    demonstrations = [(clips[2], "The camera wearer stirs."), (clips[1], "The camera wearer cuts.")]
    expected = [
        [
            {
                "generated_text": narration_of(
                    golden, [clips[2], clips[1], clip], ["The camera wearer stirs.", "The camera wearer cuts."]
                )
            }
        ]
        for clip in clips
    ]
    frames, tokens = [], []
    model = golden.model
    hooks = [
        model.vision_model.register_forward_pre_hook(lambda module, args: frames.append(len(args[0]))),
        model.language_model.register_forward_pre_hook(
            lambda module, args, kwargs: (
                tokens.append(tuple(kwargs["inputs_embeds"].shape[:2]))
                if kwargs.get("inputs_embeds") is not None
                else None
            ),
            with_kwargs=True,
        ),
    ]
    try:
        assert greedy(clips, demonstrations=demonstrations) == expected
    finally:
        for hook in hooks:
            hook.remove()
    assert sum(frames) == (2 + 3) * 8
    if golden.family == "opt":
        assert sum(length > 1 for _, length in tokens) == 1 + 3
        beginning, *rest = [length for _, length in tokens if length > 1]
        assert beginning > 1.5 * max(rest)
    # A static cache is filled by `generate` itself.
    assert greedy(clips, demonstrations=demonstrations, cache_implementation="static") == expected
    own = [{"video": clips[0], "prompt": "What? Answer:"}, clips[0]]
    mixed = greedy(own, demonstrations=demonstrations, batch_size=2)
    assert mixed == [greedy(own[0], demonstrations=demonstrations), expected[0]]


def test_demonstrations_of_one_call_are_none_of_another(greedy, clips):
    """Also where two calls take turns."""
    demonstrations = [[(clips[2], "The camera wearer stirs.")], [(clips[1], "The camera wearer cuts a tomato.")]]
    expected = [greedy(clips, demonstrations=own) for own in demonstrations]
    runs = [greedy((clip for clip in clips), demonstrations=own) for own in demonstrations]
    assert [list(pair) for pair in zip(*runs)] == [list(pair) for pair in zip(*expected)]


def test_demonstrations_chosen_for_each_clip(golden, greedy, clips):
    def choose(clip):
        return [] if clip == clips[0] else [(clips[0], "The camera wearer stirs.")]

    expected = [narration_of(golden, [clips[0]]), narration_of(golden, clips[:2], ["The camera wearer stirs."])]
    assert greedy(clips[:2], demonstrations=choose, batch_size=2) == [[{"generated_text": text}] for text in expected]


def test_a_finder_chooses_for_each_clip(golden, greedy, clips):
    """Stretches of files among what it finds; never the clip itself."""
    library = [
        Demonstration(clips[0], "The camera wearer stirs.", start=0.5, end=1.5),
        Demonstration(clips[2], "The camera wearer cuts."),
    ]
    encoder = ClipEncoder(golden.model, golden.interleaved)
    finder = DemonstrationFinder(library, num_examples=1, encoder=encoder)
    stretch = ClipSpan(clips[0], 0.5, 1.5)
    expected = [
        narration_of(golden, [clips[2], clips[0]], ["The camera wearer cuts."]),
        narration_of(golden, [stretch, clips[2]], ["The camera wearer stirs."]),
    ]
    said = greedy([clips[0], clips[2]], demonstrations=finder, batch_size=2)
    assert said == [[{"generated_text": text}] for text in expected]


def test_frames_are_one_clip(golden, greedy):
    images = [Image.fromarray(frame) for frame in golden.videos[0].permute(0, 2, 3, 1).numpy()]
    expected = greedy(golden.videos[0])
    assert greedy(images) == expected
    assert greedy(tuple(images)) == expected
    assert greedy([images, images]) == [expected] * 2


def test_generation_settings(narrate, clips):
    assert len(narrate(clips[0], num_beams=3, num_return_sequences=2, do_sample=False)) == 2
    many = narrate(clips, num_beams=3, num_return_sequences=2, do_sample=False, batch_size=2)
    assert [len(outputs) for outputs in many] == [2, 2, 2]
    nested = narrate(clips[0], generate_kwargs={"do_sample": False, "repetition_penalty": 1.0})
    assert nested == narrate(clips[0], do_sample=False, repetition_penalty=1.0)


def test_num_frames(golden, greedy, clips):
    assert greedy(clips[0], num_frames=2) == [{"generated_text": narration_of(golden, clips[:1], num_frames=2)}]


def test_an_empty_narration_is_no_silence(golden, narrate, clips):
    end = golden.interleaved.tokenizer.eos_token_id
    with pytest.warns(UserWarning, match="empty"):
        outputs = narrate(clips[0], eos_token_id=end, sequence_bias={(end,): 1e4}, do_sample=False)
    assert outputs == [{"generated_text": ""}]


@pytest.mark.parametrize(
    "demonstrations, message",
    [
        ([("CLIP", "")], "Demonstration 0"),
        ([("CLIP",)], "Demonstration 0"),
        ([("CLIP", "One."), ("CLIP", 2)], "Demonstration 1"),
        ([("CLIP", "One <video>.")], "<video>"),
        ([{"video": "CLIP", "text": "One."}], "Demonstration 0"),
    ],
)
def test_bad_demonstrations_are_named(narrate, clips, demonstrations, message):
    demonstrations = [
        tuple(clips[1] if part == "CLIP" else part for part in pair) if isinstance(pair, tuple) else pair
        for pair in demonstrations
    ]
    with pytest.raises(ValueError, match=message):
        narrate(clips[0], demonstrations=demonstrations)


def test_bad_clips_are_named(narrate, tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.mp4"):
        narrate(str(tmp_path / "missing.mp4"))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match="text.mp4"):
        narrate(str(tmp_path / "text.mp4"))
    with pytest.raises(ValueError, match="image"):
        narrate({"video": str(tmp_path / "text.mp4"), "image": 1})


def test_parts_that_do_not_belong_together_are_an_error(golden, golden_opt, golden_t5):
    other = golden_t5 if golden.family == "opt" else golden_opt
    with pytest.raises(ValueError, match="num_query_tokens"):
        VideoNarrationPipeline(model=golden.model, processor=other.interleaved, device="cpu")


def test_from_a_folder_by_name(golden, tmp_path, clips):
    """As `pipeline("video-narration", model=...)` loads it, in today's format and in the legacy one."""
    golden.model.save_pretrained(tmp_path)
    golden.interleaved.save_pretrained(tmp_path)
    options = {"max_new_tokens": 4, "num_beams": 1, "do_sample": False, "repetition_penalty": 1.0}
    today = pipeline("video-narration", model=str(tmp_path), device="cpu")
    legacy = pipeline("video-narration", model=str(golden.checkpoint), device="cpu")
    assert today.model.generation_config.to_dict() == golden.model.generation_config.to_dict()
    assert type(today) is type(legacy) is VideoNarrationPipeline
    if legacy.processor.prompt_layout == "interleaved":
        assert today(clips[0], **options) == legacy(clips[0], **options)
    else:
        assert legacy(clips[0], **options)[0]["generated_text"]


def test_what_it_saves_it_loads(golden, narrate, tmp_path, clips):
    narrate.save_pretrained(tmp_path)
    options = {"max_new_tokens": 4, "num_beams": 1, "do_sample": False}
    again = pipeline("video-narration", model=str(tmp_path), device="cpu")
    assert again(clips[0], **options) == narrate(clips[0], **options)


def test_in_half_precision(golden, tmp_path, clips):
    model = AutoModelForImageTextToText.from_pretrained(golden.checkpoint, dtype=torch.bfloat16)
    processor = AutoProcessor.from_pretrained(golden.checkpoint)
    half = pipeline("video-narration", model=model, processor=processor, device="cpu")
    assert half(clips[:2], batch_size=2, max_new_tokens=4)[0][0]["generated_text"]


def test_the_default_checkpoint():
    _, task, _ = PIPELINE_REGISTRY.check_task("video-narration")
    assert task["default"]["model"][0] == "kpyu/eilev-blip2-opt-2.7b"
