import json
import os
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file


os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: E402

import transformers_eilev  # noqa: E402, F401


FIXTURES = Path(__file__).parent / "fixtures"


class Golden:
    """What the original implementation gave for one of its checkpoints (fixtures/golden/README.md)."""

    def __init__(self, family):
        self.family = family
        self.path = FIXTURES / "golden" / family
        self.checkpoint = self.path / "checkpoint"
        self.tables = json.loads((self.path / "tables.json").read_text())
        self.tensors = load_file(self.path / "tensors.safetensors")

    @cached_property
    def model(self):
        """The checkpoint, its implementation-independent arithmetic: eager would do as well."""
        return AutoModelForImageTextToText.from_pretrained(self.checkpoint)

    @cached_property
    def interleaved(self):
        return AutoProcessor.from_pretrained(self.checkpoint, prompt_layout="interleaved")

    @cached_property
    def prepended(self):
        return AutoProcessor.from_pretrained(self.checkpoint, prompt_layout="prepended")

    @cached_property
    def videos(self):
        """The raw clips, uint8, of shape (num_frames, 3, height, width)."""
        return [torch.from_numpy(video).transpose(0, 1) for video in np.load(self.path / "videos.npz").values()]

    @cached_property
    def pixel_values(self):
        """The clips as PIL resized them, normalized: shape (3, 8, 3, 56, 56)."""
        resized = torch.stack([self.tensors[f"resized/video_{index}"] for index in range(3)])
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
        return (resized.float() / 255 - mean) / std

    def clips(self, indices):
        """`pixel_values` of the clips at (nested) `indices`, or None if there are none."""
        flat = [i for index in indices for i in (index if isinstance(index, list) else [index])]
        return self.pixel_values[flat] if flat else None


@pytest.fixture(scope="session", params=["opt", "t5"])
def golden(request):
    return Golden(request.param)


@pytest.fixture(scope="session")
def golden_opt():
    return Golden("opt")


@pytest.fixture(scope="session")
def golden_t5():
    return Golden("t5")


@pytest.fixture
def model(golden):
    """The golden checkpoint, as it was loaded: tests may not change it."""
    before = golden.model.training
    yield golden.model
    golden.model.train(before)
    golden.model.zero_grad()


@pytest.fixture
def unpacked_4bit(monkeypatch):
    """On processors with AVX512-BF16 bitsandbytes packs 4-bit weights, and fails for layers as narrow as ours."""
    import bitsandbytes.nn.modules

    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: False)


@pytest.fixture(scope="session")
def videos_path():
    return FIXTURES / "videos"
