"""A model asked for an evaluation says what it says when it is asked directly, and sees each clip once."""

import pytest
import torch
from made_clips import make_clips

from transformers_eilev import VideoBlip2ForConditionalGeneration, VideoBlip2Processor, embedded_checkpoint
from transformers_eilev.data import DataCollatorForVideoNarration, FrameLoader
from transformers_eilev.evaluation.conditions import find_condition
from transformers_eilev.evaluation.narrators import VideoBlipNarrator
from transformers_eilev.evaluation.queries import EvaluationQueries
from transformers_eilev.in_context import ClipFeatureStore


@pytest.fixture(scope="module")
def model():
    return VideoBlip2ForConditionalGeneration.from_pretrained(embedded_checkpoint(), dtype=torch.float32)


@pytest.fixture(scope="module")
def processor():
    return VideoBlip2Processor.from_pretrained(embedded_checkpoint())


@pytest.fixture(scope="module")
def queries():
    return EvaluationQueries(make_clips(24), shots=(0, 2), num_queries=5)


@pytest.mark.parametrize("condition", ["in_context", "shuffled", "text_only", "no_query_clip", "no_clips"])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_it_says_what_the_model_says_of_the_whole_prompt(model, processor, queries, condition, num_beams):
    narrator = VideoBlipNarrator(model, processor, num_beams=num_beams, max_new_tokens=6)
    samples = queries.samples(2, find_condition(condition), load_clip=narrator.load_clip)
    said = narrator([samples[index] for index in range(5)])
    plain = queries.samples(2, find_condition(condition), load_clip=FrameLoader(processor.video_processor.num_frames))
    batch = DataCollatorForVideoNarration(processor)([plain[index] for index in range(5)])
    generated_ids = model.generate(**batch, num_beams=num_beams, max_new_tokens=6)
    assert said == processor.post_process_narrations(generated_ids, batch)


def test_a_clip_is_encoded_once(model, processor, queries, monkeypatch, tmp_path):
    seen = []
    forward = model.vision_model.forward
    monkeypatch.setattr(model.vision_model, "forward", lambda *a, **k: seen.append(1) or forward(*a, **k))
    narrator = VideoBlipNarrator(model, processor, store=ClipFeatureStore(tmp_path), max_new_tokens=2)
    samples = queries.samples(2, find_condition("in_context"), load_clip=narrator.load_clip)
    first = narrator([samples[index] for index in range(5)])
    num_seen = len(seen)
    assert num_seen and narrator([samples[index] for index in range(5)]) == first and len(seen) == num_seen
    # Another process, or run, finds them on disk.
    other = VideoBlipNarrator(model, processor, store=ClipFeatureStore(tmp_path), max_new_tokens=2)
    assert other([samples[index] for index in range(5)]) == first and len(seen) == num_seen


def test_memory_is_bounded(model, processor, queries):
    one_clip = model.config.num_query_tokens * model.config.text_config.hidden_size * 4
    narrator = VideoBlipNarrator(model, processor, max_memory_bytes=3 * one_clip, max_new_tokens=2)
    samples = queries.samples(2, find_condition("in_context"), load_clip=narrator.load_clip)
    bounded = [narrator([samples[index]])[0] for index in range(5)]
    assert len(narrator._memory) == 3
    free = VideoBlipNarrator(model, processor, max_new_tokens=2)
    assert [free([samples[index]])[0] for index in range(5)] == bounded


def test_clips_of_one_name_are_not_taken_for_one(model, processor):
    narrator = VideoBlipNarrator(model, processor)
    clips, others = make_clips(1, seed=0), make_clips(1, seed=1)
    assert clips[0]["frame_path"] == others[0]["frame_path"]
    features = narrator._encode([clips[0], others[0], clips[0]])
    assert torch.equal(features[0], features[2]) and not torch.allclose(features[0], features[1])


def test_the_fingerprint_is_of_all_that_decides(model, processor):
    narrator = VideoBlipNarrator(model, processor, num_beams=2)
    fingerprint = narrator.fingerprint()
    assert fingerprint == VideoBlipNarrator(model, processor, num_beams=2).fingerprint()
    assert fingerprint != VideoBlipNarrator(model, processor, num_beams=3).fingerprint()
    eager = VideoBlip2ForConditionalGeneration.from_pretrained(
        embedded_checkpoint(), dtype=torch.float32, attn_implementation="eager"
    )
    assert fingerprint != VideoBlipNarrator(eager, processor, num_beams=2).fingerprint()
    control = VideoBlip2ForConditionalGeneration.from_pretrained(
        embedded_checkpoint("video-blip-synthetic-opt"), dtype=torch.float32
    )
    assert fingerprint != VideoBlipNarrator(control, processor, num_beams=2).fingerprint()


def test_too_long_a_prompt_is_refused_before_anything_is_computed(model, processor):
    clips = make_clips(24)
    queries = EvaluationQueries(clips, shots=(6,), num_queries=1)
    narrator = VideoBlipNarrator(model, processor, max_new_tokens=10_000)
    samples = queries.samples(6, find_condition("random"), load_clip=narrator.load_clip)
    with pytest.raises(ValueError, match="10000 more are longer than the"):
        narrator([samples[0]])
    several = VideoBlipNarrator(model, processor, num_return_sequences=2, num_beams=2, max_new_tokens=2)
    samples = queries.samples(6, find_condition("no_clips"), load_clip=narrator.load_clip)
    with pytest.raises(ValueError, match="One narration is wanted of each clip, but 2 come of 1"):
        several([{**samples[0], "text": samples[0]["text"][-1:]}])
