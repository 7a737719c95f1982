"""A model that narrates a clip after the narrated clips of a conversation."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from clip_files import SeenClip

from transformers_eilev.in_context import ClipEncoder, ClipFeatureStore
from transformers_eilev.processing_video_blip_2 import VIDEO_TOKEN
from transformers_eilev.read_prompts import CommonBeginning, ReadPrompts, as_inputs, check_length


MAX_LETTERS = 300
# What stands for an empty narration.
SILENT = "(The model ended the narration before its first word.)"


@dataclass(frozen=True, eq=False)
class Turn:
    """
    A clip, what is asked about it, and what happens in it.

    Attributes:
        clip ([`SeenClip`]): the clip.
        question (`str`): with what leads to the narration, such as "Question: What is this? Answer:".
        narration (`str`): what happens.
        by_model (`bool`): whether the model said so. Such a turn is no example for those after it.
    """

    clip: SeenClip
    question: str
    narration: str
    by_model: bool = False


class Narrator:
    """
    A model for all visitors. It knows no conversation: each call brings its own.

    A clip's features are computed once, by its content, whoever shows it. A decoder-only language model reads examples
    once, as long as nobody asks with others in between.

    Args:
        model ([`VideoBlip2ForConditionalGeneration`]): of any device and type.
        processor ([`VideoBlip2Processor`]): of the same checkpoint.

    Raises:
        ValueError: if they don't belong together.
    """

    def __init__(self, model, processor):
        processor.check_config(model.config)
        self.model, self.processor = model, processor
        self._encoder = ClipEncoder(model, processor, store=ClipFeatureStore())
        self._beginning: CommonBeginning | None = None
        self._lock = threading.Lock()

    @torch.no_grad()
    def narrate(
        self, examples: Sequence[Turn], clip: SeenClip, question: str, *, seed: int | None = None, **settings
    ) -> str:
        """
        Says what happens in a clip.

        Args:
            examples (`Sequence[Turn]`): narrated clips, in the order of the prompt.
            clip ([`SeenClip`]): to narrate.
            question (`str`): asked of it.
            seed (`int`, *optional*): of drawing; the process' own random numbers are left as they are.
            settings: of `model.generate`.

        Returns:
            `str`: empty if the model ended the narration before its first word.

        Raises:
            ValueError: if a text can't be read, or all of them are longer than the language model can read.
        """
        check_text("The question", question)
        blocks = [f"{VIDEO_TOKEN}{example.question} {example.narration}" for example in examples]
        clips = [*(example.clip for example in examples), clip]
        with self._lock, torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            prompts = self._read([*blocks, VIDEO_TOKEN + question], clips)
            generated_ids = prompts.generate(**settings)
        return self.processor.post_process_narrations(generated_ids, {"input_ids": prompts.input_ids})[0]

    def _read(self, blocks: list[str], clips: list[SeenClip]) -> ReadPrompts:
        features = self._encoder.encode([clip.frames for clip in clips])
        # (num_videos, num_query_tokens, hidden_size)
        hidden_states = torch.stack([own.video_hidden_states for own in features])
        hidden_states = hidden_states.to(self.model.device, self.model.dtype)
        input_ids = torch.tensor([self.processor.encode(blocks)["input_ids"]], device=self.model.device)
        check_length(self.model, input_ids.shape[1])
        if self.model.config.is_encoder_decoder:
            return self.model.read_prompts(input_ids, **as_inputs(hidden_states))
        shared, own = hidden_states[:-1], hidden_states[-1:]
        if self._beginning is None or not torch.equal(self._beginning.features, shared):
            self._beginning = None  # before another takes as much memory
            self._beginning = CommonBeginning(self.model, shared)
        return self._beginning.go_on(input_ids, own)


def check_text(name: str, text: str) -> None:
    """
    Whether a visitor's text can stand in a prompt.

    Raises:
        ValueError: if it has no word, several lines, more than 300 letters, or the token of a clip.
    """
    if not any(letter.isalnum() for letter in text):
        raise ValueError(f"{name} has no words")
    if len(text) > MAX_LETTERS:
        raise ValueError(f"{name} has {len(text)} letters; at most {MAX_LETTERS} are taken")
    if len(text.splitlines()) > 1:
        raise ValueError(f"{name} must be one line")
    if VIDEO_TOKEN in text:
        raise ValueError(f"{name} may not contain {VIDEO_TOKEN}, which stands for a clip")
