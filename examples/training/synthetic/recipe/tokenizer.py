"""A tokenizer for which a word is a token, so that a narrated clip is a dozen of them."""

from tokenizers import Tokenizer, decoders, models, processors
from transformers import TokenizersBackend

from transformers_eilev import VideoBlip2Processor, VideoBlip2VideoProcessor
from transformers_eilev.data.narrations import SUBJECT

from .worlds import QUESTIONS, Words


SPECIAL_TOKENS = ("<unk>", "<pad>", "<s>", "</s>")
NUM_QUERY_TOKENS = 4
IMAGE_SIZE = 40
NUM_FRAMES = 4
CLIP_SEC = 8.0


def build_tokenizer(family: str, words: Words) -> TokenizersBackend:
    """
    A tokenizer in which each question, "The camera wearer" and each word with the space before it is one token;
    whatever else is said is spelled in bytes, and nothing is lost.

    Args:
        family (`str`): "opt", whose texts begin with `<s>`, or "t5", whose texts end with `</s>`.
        words ([`Words`]): in the vocabulary, in order.
    """
    if family not in ("opt", "t5"):
        raise ValueError(f"family must be opt or t5, got {family!r}")
    said = [*QUESTIONS, SUBJECT, f" {SUBJECT}", " the", ".", "\n"]
    for group in (words.verb_words, words.noun_words, words.spare_verb_words, words.spare_noun_words):
        said += [f" {word}" for word in group]
    pieces = [*SPECIAL_TOKENS, *said, *(f"<0x{byte:02X}>" for byte in range(256))]
    # The fewest pieces win; what isn't one of them costs far more.
    model = models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    template, mark = ("<s> $A", "<s>") if family == "opt" else ("$A </s>", "</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(mark, SPECIAL_TOKENS.index(mark))]
    )
    return TokenizersBackend(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        padding_side="left" if family == "opt" else "right",
        clean_up_tokenization_spaces=False,
    )


def build_processor(family: str, words: Words) -> VideoBlip2Processor:
    """The processor of a model of that family: 4 frames of 40 pixels out of 8 seconds."""
    video_processor = VideoBlip2VideoProcessor(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, num_frames=NUM_FRAMES, end=CLIP_SEC
    )
    tokenizer = build_tokenizer(family, words)
    return VideoBlip2Processor(video_processor, tokenizer, num_query_tokens=NUM_QUERY_TOKENS)
