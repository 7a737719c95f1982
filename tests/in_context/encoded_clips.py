"""Encoders of clips with small models, and what the models themselves give."""

import torch
from tiny_models import tiny_model

from transformers_eilev import VideoBlip2VideoProcessor
from transformers_eilev.in_context.clip_features import ClipEncoder
from transformers_eilev.video_reading import ClipWindow, read_clip


NAMES = ("video_hidden_states", "vision_embedding", "qformer_embedding")
VIDEO_NAMES = ("vfr.mp4", "short_2s.mp4", "vp9.mp4", "five_frames.mp4")


def small_processor():
    """For `tiny_model`."""
    return VideoBlip2VideoProcessor(size={"height": 28, "width": 28}, num_frames=3)


def small_encoder(processor):
    """With counts."""
    return counting(ClipEncoder(tiny_model("opt"), processor))


def counting(encoder):
    """Counts the clips that the model is run over, as `encoder.num_clips` says."""
    encoder.num_clips = []
    compute = encoder.model.get_video_features

    def get_video_features(pixel_values, **kwargs):
        encoder.num_clips.append(len(pixel_values))
        return compute(pixel_values, **kwargs)

    encoder.model.get_video_features = get_video_features
    return encoder


@torch.no_grad()
def expected_features(model, pixel_values):
    """Of one clip, as the model gives them."""
    outputs = model.get_video_features(pixel_values.to(model.dtype))
    tokens, queries = outputs.last_hidden_state[0], outputs.qformer_outputs.last_hidden_state[0]
    return outputs.pooler_output[0], tokens.float().mean(0), queries.float().mean(0)


def assert_close(features, expected, atol=1e-6):
    for name, tensor in zip(NAMES, expected, strict=True):
        torch.testing.assert_close(getattr(features, name), tensor, rtol=0, atol=atol)


def assert_equal(one, other):
    assert_close(one, [getattr(other, name) for name in NAMES], atol=0)


def frames_of(path, num_frames=4, **window):
    return read_clip(path, ClipWindow(end=8.0, num_frames=num_frames, **window)).frames
