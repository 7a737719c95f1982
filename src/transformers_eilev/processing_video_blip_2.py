"""Texts with `<video>` in them, and their clips, to what the model takes."""

import torch
import torch.nn.functional as F
from transformers import AddedToken, BatchFeature, ProcessorMixin, TokenizersBackend

from .legacy_checkpoints import read_legacy_checkpoint
from .video_processing_video_blip_2 import VideoBlip2VideoProcessor, flatten_clips, is_clip


VIDEO_TOKEN = "<video>"
DEFAULT_PROMPT = "Question: What is the camera wearer doing? Answer:"

# A turn of the user is a block of clips and a question; the assistant's narration goes on in the question's line.
CHAT_TEMPLATE = """
{%- set ns = namespace(previous=none) -%}
{%- for message in messages -%}
    {%- set contents = message['content'] -%}
    {%- if contents is string -%}
        {%- set contents = [{'type': 'text', 'text': contents}] -%}
    {%- endif -%}
    {%- for content in contents -%}
        {%- if content['type'] == 'video' -%}
            {{- '\n' if ns.previous == 'text' }}{{- '<video>' }}
        {%- elif content['type'] == 'text' -%}
            {%- if ns.previous == 'text' -%}
                {{- '\n' if loop.first and message['role'] != 'assistant' else ' ' }}
            {%- endif -%}
            {{- content['text'] }}
        {%- else -%}
            {{- raise_exception("Contents are of type 'video' or 'text', not '" ~ content['type'] ~ "'") }}
        {%- endif -%}
        {%- set ns.previous = content['type'] -%}
    {%- endfor -%}
{%- endfor -%}
""".strip()


class VideoBlip2Processor(ProcessorMixin):
    r"""
    Prepares texts and clips for [`VideoBlip2ForConditionalGeneration`].

    In a text, `<video>` stands for a clip and becomes `num_query_tokens` tokens. A text without `<video>` gets its
    clip in front.

    Args:
        video_processor ([`VideoBlip2VideoProcessor`]): for the clips.
        tokenizer ([`~transformers.TokenizersBackend`]): the language model's. It gets `<video>` as a token if it has
            none, and pads on the left, since a decoder-only model goes on after its last token.
        chat_template (`str`, *optional*): by default, turns of the user with clips and a question, and turns of the
            assistant with the narration.
        num_query_tokens (`int`, *optional*, defaults to 32): as in the model's config.
        prompt_layout (`str`, *optional*, defaults to "interleaved"): how the checkpoint was trained to see clips.
            "interleaved" (EILEV): anywhere in the text, each followed by a line break (which may be written after
            `<video>` or not). "prepended" (VideoBLIP): before the text and its beginning-of-text token.

    Raises:
        ValueError: for another `prompt_layout`, or `num_query_tokens` less than 1.
        TypeError: for a `video_processor` that is no [`VideoBlip2VideoProcessor`].

    Example:

    ```python
    >>> inputs = processor(
    ...     videos=["washing.mp4", "cutting.mp4"],
    ...     text="<video>Question: What is the camera wearer doing? Answer: The camera wearer washes a cup.\n"
    ...     "<video>Question: What is the camera wearer doing? Answer:",
    ... )
    >>> generated_ids = model.generate(**inputs)
    >>> processor.post_process_narrations(generated_ids, inputs)
    ```
    """

    text_kwargs = {"padding": True, "return_tensors": "pt"}

    def __init__(
        self,
        video_processor=None,
        tokenizer=None,
        chat_template=None,
        num_query_tokens: int = 32,
        prompt_layout: str = "interleaved",
    ):
        if prompt_layout not in ("interleaved", "prepended"):
            raise ValueError(f"`prompt_layout` must be 'interleaved' or 'prepended', but is {prompt_layout!r}")
        if num_query_tokens < 1:
            raise ValueError(f"`num_query_tokens` must be at least 1, but is {num_query_tokens}")
        super().__init__(video_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)
        self.num_query_tokens = num_query_tokens
        self.prompt_layout = prompt_layout
        if VIDEO_TOKEN not in tokenizer.get_vocab():
            tokenizer.add_tokens(AddedToken(VIDEO_TOKEN, special=True, normalized=False), special_tokens=True)
        tokenizer.padding_side = "left"

    @property
    def video_token(self) -> str:
        """What stands for a clip in a text."""
        return VIDEO_TOKEN

    @property
    def video_token_id(self) -> int:
        """The token that holds a clip's place; the same as the model's `config.video_token_id`."""
        return self.tokenizer.convert_tokens_to_ids(VIDEO_TOKEN)

    def check_config(self, config) -> None:
        """
        Whether this processor belongs to a model.

        Raises:
            ValueError: if its [`VideoBlip2Config`] has another token for clips, or another number of them.
        """
        for name in ("num_query_tokens", "video_token_id"):
            of_model, of_processor = getattr(config, name), getattr(self, name)
            if of_model != of_processor:
                raise ValueError(
                    f"Model and processor don't belong together: `{name}` is {of_model} in the model's config, "
                    f"{of_processor} in the processor"
                )

    def check_argument_for_proper_class(self, argument_name, argument):
        # The base class compares a video processor with a class that can't be imported without torchvision.
        if argument_name == "video_processor":
            if not callable(getattr(argument, "pad_frames", None)):
                raise TypeError(f"`video_processor` must be a VideoBlip2VideoProcessor, but is {argument!r}")
            return type(argument)
        return super().check_argument_for_proper_class(argument_name, argument)

    @classmethod
    def get_processor_dict(cls, pretrained_model_name_or_path, **kwargs):
        processor_dict, unused_kwargs = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        if processor_dict.get("processor_class") != cls.__name__:
            legacy = read_legacy_checkpoint(pretrained_model_name_or_path, **kwargs)
            if legacy is not None:
                processor_dict = {
                    "num_query_tokens": legacy.num_query_tokens,
                    "prompt_layout": legacy.prompt_layout,
                }
        return processor_dict, unused_kwargs

    @classmethod
    def _get_arguments_from_pretrained(cls, pretrained_model_name_or_path, processor_dict=None, **kwargs):
        # Not the auto class: it knows no clips of a plain BLIP-2, which a training may start from.
        video_processor = VideoBlip2VideoProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs)
        # The file as it is: the class that AutoTokenizer takes for T5 is built anew and has no token for "\n".
        tokenizer = TokenizersBackend.from_pretrained(pretrained_model_name_or_path, **kwargs)
        tokenizer.clean_up_tokenization_spaces = False
        return [video_processor, tokenizer]

    def __call__(self, images=None, text=None, videos=None, audio=None, text_target=None, **kwargs) -> BatchFeature:
        """
        Args:
            text (`str` or `list[str]`, *optional*): texts with `<video>` for each clip. Instead of a text, a list of
                its blocks may stand (see [`~VideoBlip2Processor.encode`]).
            videos (*optional*): the clips of all texts, in reading order, or a list of them for each text; see
                [`VideoBlip2VideoProcessor`] for what a clip may be.
            text_target (`str` or `list[str]`, *optional*): what the model shall say after each text; gives `labels`.
            kwargs: settings of the tokenizer and of the video processor, flat or as `text_kwargs`, `videos_kwargs`.

        Returns:
            [`~transformers.BatchFeature`] with `input_ids`, `attention_mask`, `pixel_values`, `labels`, as they apply.

        Raises:
            ValueError: if texts and clips don't match, or if truncation would cut a clip.
        """
        if images is not None or audio is not None:
            raise ValueError("This model takes `text=` and `videos=`; a first argument without name is `images`")
        if text is None and videos is None:
            raise ValueError("Give `text`, `videos`, or both")
        if text is None and text_target is not None:
            raise ValueError("`text_target` needs a `text` that it goes on after")
        merged_kwargs = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        text_kwargs = merged_kwargs["text_kwargs"]
        data = {}
        if text is not None:
            texts = self._place_clips([text] if isinstance(text, str) else text, videos)
            targets = _as_targets(text_target, len(texts))
            features = [self.encode(*pair, **_only_encoding(text_kwargs)) for pair in zip(texts, targets)]
            data.update(self.pad(features, **_only_padding(text_kwargs)))
        if videos is not None:
            data.update(self.video_processor(videos, **merged_kwargs["videos_kwargs"]))
        return_tensors = text_kwargs.get("return_tensors")
        if text_kwargs.get("padding") in (False, "do_not_pad") and "return_tensors" not in kwargs:
            return_tensors = None  # rows of unequal lengths
        return BatchFeature(data, tensor_type=return_tensors, skip_tensor_conversion=self.skip_tensor_conversion)

    def encode(
        self,
        text: str | list[str],
        target: str | None = None,
        add_special_tokens=True,
        truncation=False,
        max_length=None,
    ) -> dict[str, list[int]]:
        """
        Tokens of one text, each `<video>` expanded, piece by piece as EILEV tokenized them.

        Args:
            text (`str` or `list[str]`): with `<video>` for each clip; or the blocks of a text, to be joined by line
                breaks, each tokenized by itself.
            target (`str`, *optional*): what the model shall say after it.

        Returns:
            `input_ids`, `attention_mask` and, with a target, `labels`. For a decoder-only language model the target
            follows in `input_ids`, and `labels` are -100 before it; for an encoder-decoder one it is only in `labels`.
        """
        prefix, suffix = self._special_tokens() if add_special_tokens else ([], [])
        newline = self._tokenize("\n") if self.prompt_layout == "interleaved" else []
        clip = [self.video_token_id] * self.num_query_tokens + newline
        in_front, ids = [], []
        for piece, follows_clip in _pieces(text):
            if follows_clip and self.prompt_layout == "prepended" and not ids:
                in_front += clip
            elif follows_clip:
                ids += clip
            ids += self._tokenize(piece)
        ids = in_front + prefix + ids
        labels = None
        if target is not None and self.is_decoder_only:
            line_end = "\n" if newline else ""
            target_ids = self._tokenize(f" {target}{line_end}") + [self.tokenizer.eos_token_id]
            labels = [-100] * len(ids) + target_ids
            ids = ids + target_ids
        elif target is not None:
            labels = self._tokenize(target) + suffix
        ids = ids + suffix
        if truncation and max_length is not None:
            ids, labels = self._truncate(ids, labels, max_length)
        feature = {"input_ids": ids, "attention_mask": [1] * len(ids)}
        return feature if labels is None else {**feature, "labels": labels}

    def pad(
        self, features, padding=True, padding_side=None, pad_to_multiple_of=None, max_length=None
    ) -> dict[str, torch.LongTensor | list]:
        """
        A batch of what `encode` returns.

        Args:
            features (`list[dict[str, list[int]]]`): one for each text.
            padding (`bool` or `str`): as for a tokenizer; without padding, lists are returned.
            padding_side (`str`, *optional*): the tokenizer's by default. An encoder-decoder's `labels` are padded on
                the right always, since its decoder starts at their first token.

        Returns:
            Tensors of shape `(batch_size, sequence_length)`, padded with the tokenizer's padding token, 0 and -100.
        """
        names = list(features[0])
        if padding in (False, "do_not_pad"):
            return {name: [feature[name] for feature in features] for name in names}
        side = padding_side or self.tokenizer.padding_side
        length = max_length if padding == "max_length" else None
        pad_token_id = self.tokenizer.pad_token_id
        values = {"input_ids": pad_token_id, "class_input_ids": pad_token_id, "labels": -100}
        sides = {"labels": side if self.is_decoder_only else "right"}
        padded = {}
        for name in names:
            rows = [feature[name] for feature in features]
            padded[name] = _pad_rows(rows, values.get(name, 0), sides.get(name, side), pad_to_multiple_of, length)
        return padded

    def encode_classes(self, classes: list[str]) -> dict[str, torch.LongTensor]:
        """
        The continuations that [`~VideoBlip2ForConditionalGeneration.classify`] scores.

        Args:
            classes (`list[str]`): what may come next after a text, without a space before it.

        Returns:
            `class_input_ids` and `class_attention_mask`, of shape `(num_classes, class_length)`, padded on the right.
            No special token is among them: the model is not asked whether it would end there.

        Raises:
            ValueError: if a class has no token.
        """
        space = " " if self.is_decoder_only else ""
        rows = [self._tokenize(f"{space}{text.strip()}") if text.strip() else [] for text in classes]
        if not all(rows):
            raise ValueError(f"Every class needs a word, but {classes[rows.index([])]!r} has none")
        features = [{"class_input_ids": row, "class_attention_mask": [1] * len(row)} for row in rows]
        return self.pad(features, padding_side="right")

    def build_prompt(self, narrations, prompt: str = DEFAULT_PROMPT) -> str:
        """
        The text that asks for a narration of a clip after some narrated ones.

        Args:
            narrations (`list[str]`): of the demonstrations, whose clips come before the clip that is asked about.
            prompt (`str`): the question, the same for all.

        Returns:
            A text with `len(narrations) + 1` times `<video>`.
        """
        blocks = [f"{VIDEO_TOKEN}{prompt} {narration.strip()}" for narration in narrations]
        return "\n".join([*blocks, f"{VIDEO_TOKEN}{prompt}"])

    def post_process_narrations(self, generated_ids: torch.LongTensor, inputs=None) -> list[str]:
        """
        What the model said.

        Args:
            generated_ids (`torch.LongTensor` of shape `(batch_size, length)`): of `model.generate`, or its output with
                `return_dict_in_generate=True`.
            inputs (*optional*): what it was called with; a decoder-only model's text is then cut off.

        Returns:
            `list[str]`: the narrations, without special tokens and without spaces around.
        """
        generated_ids = getattr(generated_ids, "sequences", generated_ids)
        if inputs is not None:
            generated_ids = self.without_prompt(generated_ids, inputs)
        return [text.strip() for text in self.tokenizer.batch_decode(generated_ids, skip_special_tokens=True)]

    def without_prompt(self, generated_ids: torch.LongTensor, inputs) -> torch.LongTensor:
        """What is new in `generated_ids`: a decoder-only model's begin with the text it was called with."""
        return generated_ids[:, inputs["input_ids"].shape[1] :] if self.is_decoder_only else generated_ids

    @property
    def is_decoder_only(self) -> bool:
        """Whether the tokenizer leaves the text open at its end, as a decoder-only language model needs it."""
        return not self._special_tokens()[1]

    def _special_tokens(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and after a text."""
        bare = self._tokenize("a")
        full = self.tokenizer("a")["input_ids"]
        start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        return full[:start], full[start + len(bare) :]

    def _tokenize(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []

    def _place_clips(self, texts: list, videos) -> list:
        """The texts with as many `<video>` as there are clips, or an error that says where they differ."""
        in_text = [count_video_tokens(text) for text in texts]
        per_text = _clips_per_text(videos, len(texts))
        if per_text is None and sum(in_text) != (given := len(flatten_clips(videos))):
            if sum(in_text) or len(texts) not in (1, given):
                raise ValueError(f"The texts have {in_text} `{VIDEO_TOKEN}`, but there are {given} clips")
            per_text = [given // len(texts)] * len(texts)
        if per_text is None:
            return texts
        for index, (marks, clips) in enumerate(zip(in_text, per_text)):
            if marks not in (0, clips):
                raise ValueError(f"Text {index} has {marks} `{VIDEO_TOKEN}`, but there are {clips} clips for it")
        return [
            text if marks else with_clips_in_front(text, clips) for text, marks, clips in zip(texts, in_text, per_text)
        ]

    def _truncate(self, ids, labels, max_length):
        if self.video_token_id in ids[max_length:]:
            raise ValueError(
                f"A text of {len(ids)} tokens can't be truncated to {max_length}: a clip in it would be cut. Give "
                "fewer clips, or no `truncation`"
            )
        return ids[:max_length], labels if labels is None or not self.is_decoder_only else labels[:max_length]


def _pieces(text: str | list[str]) -> list[tuple[str, bool]]:
    """What is tokenized by itself: the text between the clips, and whether a clip stands before it."""
    blocks = [text] if isinstance(text, str) else text
    pieces = []
    for index, block in enumerate(blocks):
        first, *rest = block.split(VIDEO_TOKEN)
        # The line break after a clip is the clip's own, whether it was written or not.
        pieces += [(first, False), *((piece.removeprefix("\n"), True) for piece in rest)]
        if index < len(blocks) - 1:
            last, follows_clip = pieces.pop()
            pieces.append((last + "\n", follows_clip))
    return pieces


def count_video_tokens(text: str | list[str]) -> int:
    """How many clips have a place in a text, or in the blocks of one."""
    return sum(block.count(VIDEO_TOKEN) for block in ([text] if isinstance(text, str) else text))


def with_clips_in_front(text: str | list[str], num_clips: int) -> str | list[str]:
    """A text, or its blocks, with the places of its clips before it."""
    if isinstance(text, str):
        return VIDEO_TOKEN * num_clips + text
    return [VIDEO_TOKEN * num_clips + text[0], *text[1:]]


def _clips_per_text(videos, num_texts: int) -> list[int] | None:
    """How many clips each text has, if that was said: no clips at all, or a list of lists of clips."""
    if videos is None:
        return [0] * num_texts
    is_nested = (
        isinstance(videos, (list, tuple))
        and len(videos) == num_texts
        and all(isinstance(clips, (list, tuple)) and not is_clip(clips) for clips in videos)
    )
    return [len(flatten_clips(list(clips))) for clips in videos] if is_nested else None


def _as_targets(text_target, num_texts: int) -> list:
    if text_target is None:
        return [None] * num_texts
    targets = [text_target] if isinstance(text_target, str) else list(text_target)
    if len(targets) != num_texts:
        raise ValueError(f"There are {num_texts} texts, but {len(targets)} targets for them")
    return targets


def _only_encoding(text_kwargs: dict) -> dict:
    return {key: text_kwargs[key] for key in ("add_special_tokens", "truncation", "max_length") if key in text_kwargs}


def _only_padding(text_kwargs: dict) -> dict:
    names = ("padding", "padding_side", "pad_to_multiple_of", "max_length")
    return {key: text_kwargs[key] for key in names if key in text_kwargs}


def _pad_rows(rows, value, side, multiple, length) -> torch.LongTensor:
    length = length or max(map(len, rows))
    length = -(-length // multiple) * multiple if multiple else length
    padded = []
    for row in rows:
        missing = length - len(row)
        amount = (missing, 0) if side == "left" else (0, missing)
        padded.append(F.pad(torch.tensor(row, dtype=torch.long), amount, value=value))
    return torch.stack(padded)


__all__ = ["VideoBlip2Processor"]
