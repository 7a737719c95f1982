"""
Random episodes: texts of narrated clips, and last of one that is asked about, with random vectors in place of clips.

Where a text has a clip stand the codes of its verb and of its noun. A code that has come before is told by the words
that it came with; a code that is the embedding of a word is told by that word, whatever was said before.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from transformers_eilev import VideoBlip2Processor
from transformers_eilev.data.narrations import SUBJECT

from .worlds import QUESTIONS, Words


# What the codes of a verb or noun are in an episode: new, the name itself, the name while the examples say another.
BIND, COPY, CONTRADICTED = range(3)
SHARE_OF_MODES = (0.65, 0.175, 0.175)
# An episode has this many verbs and nouns at most, and 2 of the 4 vectors of a clip tell each.
NUM_KINDS, VECTORS_PER_PART = 5, 2
# Noise is at most as large as the codes; in so many batches of codes of few dimensions it is of the same ones.
MAX_NOISE, SHARE_OF_LIKE_NOISE = 1.0, 0.5
# How much of the training has easier episodes.
EASY_SHARE = 0.3


class EpisodeText:
    """
    The texts of episodes as tokens, just as [`VideoBlip2Processor`] makes them of blocks and a target.

    Args:
        processor ([`VideoBlip2Processor`]): with a tokenizer for which each question and word is one token.
        words ([`Words`]): which verbs and nouns are said.

    Raises:
        ValueError: if a question or word is not one token, if there are too few words, or clips have an odd number
            of vectors.
    """

    def __init__(self, processor: VideoBlip2Processor, words: Words):
        self._tokenizer = processor.tokenizer
        self.is_decoder_only = processor.is_decoder_only
        if processor.num_query_tokens != 2 * VECTORS_PER_PART:
            raise ValueError(f"A clip must have {2 * VECTORS_PER_PART} tokens, got {processor.num_query_tokens}")
        self.questions = np.array([self._token(question) for question in QUESTIONS])
        lists = (words.verb_words, words.spare_verb_words, words.noun_words, words.spare_noun_words)
        self.words = np.array([self._token(f" {word}") for part in lists for word in part])
        if len(self.words) < 8 * NUM_KINDS:
            raise ValueError(f"An episode needs {8 * NUM_KINDS} words, got {len(self.words)}")
        self.subject = self._token(SUBJECT)
        self._around = [self._token(text) for text in (f" {SUBJECT}", " the", ".", "\n")]
        self.clip = [processor.video_token_id] * processor.num_query_tokens + [self._token("\n")]
        self.start = [self._tokenizer.bos_token_id] if self.is_decoder_only else []
        self.end = [self._tokenizer.eos_token_id]
        self.video_token = processor.video_token_id

    def _token(self, text: str) -> int:
        tokens = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(tokens) != 1:
            raise ValueError(f"{text!r} must be one token of the tokenizer, but is {len(tokens)}")
        return tokens[0]

    def describe(self) -> dict[str, list[int]]:
        """All tokens, to tell two vocabularies apart by."""
        pools = {"questions": self.questions, "words": self.words}
        return {name: tokens.tolist() for name, tokens in pools.items()} | {"around": self._around}

    def narrations(self, verbs: np.ndarray, nouns: np.ndarray) -> np.ndarray:
        """Tokens of " The camera wearer", verb, " the", noun, "." and the line break, of shape (..., 6)."""
        subject, the, period, line_end = (np.full_like(verbs, token) for token in self._around)
        return np.stack([subject, verbs, the, nouns, period, line_end], -1)


@dataclass
class Episodes:
    """
    A batch of texts of one length, and what stands at the places of their clips.

    Attributes:
        input_ids (`torch.LongTensor` of shape `(batch_size, length)`): with the video token at the clips' places.
        labels (`torch.LongTensor`): -100 where nothing is to be told. Of a decoder-only model of the same shape, else
            of shape `(batch_size, 6)`, which are the decoder's.
        answers (`torch.LongTensor` of shape `(batch_size, answer_length)`): the query's narration.
        codes (`tuple[PartCodes, PartCodes]`): of the verbs and of the nouns.
        clips (`slice`): of the blocks, those that have a clip.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    answers: torch.Tensor
    codes: tuple["PartCodes", "PartCodes"]
    clips: slice

    def embed(self, embeddings: nn.Embedding, video_token: int) -> torch.Tensor:
        """What the model reads, of shape `(batch_size, length, width)`."""
        codes = torch.cat([part.vectors(embeddings) for part in self.codes], 2)[:, self.clips]
        is_clip = (self.input_ids == video_token)[..., None]
        return embeddings(self.input_ids).masked_scatter(is_clip, codes)


@dataclass
class PartCodes:
    """
    What the clips of a batch of episodes say of their verbs, or of their nouns.

    Attributes:
        kinds (`torch.LongTensor` of shape `(batch_size, blocks)`): which of the episode's verbs each block has.
        random (`torch.Tensor` of shape `(batch_size, NUM_KINDS, 2, width)`): the code of each, for a standard
            deviation of 1.
        code_words (`torch.LongTensor` of shape `(batch_size, NUM_KINDS, 2)`): words whose embeddings are the code,
            or -1.
        noise (`torch.Tensor` of shape `(batch_size, blocks, 2, width)`): of each clip, as a share of the codes.
        words (`torch.LongTensor` of shape `(num_words,)`): all that may be said; random codes are as large.
    """

    kinds: torch.Tensor
    random: torch.Tensor
    code_words: torch.Tensor
    noise: torch.Tensor
    words: torch.Tensor

    def vectors(self, embeddings: nn.Embedding) -> torch.Tensor:
        """The codes of the clips, of shape `(batch_size, blocks, 2, width)`."""
        # Not of all tokens: those that are never said grow and grow.
        std = embeddings.weight.detach()[self.words].std()
        is_word = (self.code_words >= 0)[..., None]
        codes = torch.where(is_word, embeddings(self.code_words.clamp(min=0)), self.random * std)
        vectors = codes[torch.arange(len(codes))[:, None], self.kinds]
        return vectors + self.noise * vectors.detach().pow(2).mean().sqrt()


@dataclass(frozen=True)
class Difficulty:
    """
    How hard the episodes are.

    Attributes:
        words (`float`): share in which a code is two words' embeddings.
        noise (`float`): at most, as a share of the codes.
        contradicted (`float`): how many of the contexts that may contradict a name there are.
    """

    words: float = 0.2
    noise: float = MAX_NOISE
    contradicted: float = 1.0

    @classmethod
    def at(cls, progress: float) -> "Difficulty":
        """
        Of a step, by `progress` from 0 to 1 through the training: first codes are words, since from vectors alone
        binding does not come in this time; then they become vectors, and noisy.
        """
        return cls(words=1.0, noise=0.0, contradicted=0.0) if progress < EASY_SHARE else cls()


def draw_episodes(
    text: EpisodeText,
    width: int,
    batch_size: int,
    demonstrations: int,
    rng: np.random.Generator,
    *,
    difficulty: Difficulty = Difficulty(),
    mode: int | None = None,
    demonstration_clips: bool = True,
) -> Episodes:
    """
    Random episodes of one length.

    Args:
        text ([`EpisodeText`]): their tokens.
        width (`int`): of the embeddings.
        demonstrations (`int`): narrated clips before the one that is asked about.
        mode (`int`, *optional*): `BIND`, `COPY` or `CONTRADICTED`, for all verbs and nouns. By default it is drawn for
            each episode's verbs and nouns.
        demonstration_clips (`bool`): `False` leaves the demonstrations' clips out.
    """
    parts, said, told = [], [], []
    kinds = _draw_kinds(batch_size, demonstrations, rng)
    # Any word may be a verb or a noun: only its place tells which, and to look for places is what binding begins with.
    drawn = text.words[np.argsort(rng.random((batch_size, len(text.words))), 1)[:, : 8 * NUM_KINDS]]
    drawn = drawn.reshape(batch_size, 2, NUM_KINDS, 4)
    shares = np.array(SHARE_OF_MODES) * (1, 1, difficulty.contradicted)
    both_modes = rng.choice(3, (2, batch_size), p=shares / shares.sum())
    if mode is not None:
        both_modes[:] = mode
    elif difficulty.contradicted == 0:
        both_modes[1] = both_modes[0]
    for part_kinds, words, modes in zip(kinds, drawn.swapaxes(0, 1), both_modes, strict=True):
        parts.append(_draw_codes(part_kinds, words, modes, width, rng, difficulty, text.words))
        part_said, part_told = _draw_words(part_kinds, words, modes)
        said.append(part_said)
        told.append(part_told)
    return _write(text, parts, said, told, demonstration_clips, rng)


def _draw_kinds(batch_size: int, demonstrations: int, rng: np.random.Generator):
    """
    Verbs and nouns of the blocks, each of shape (batch_size, demonstrations + 1), as EILEV's contexts: half share the
    query's verb, 0, half its noun, 0, and the rest is of one, two or four others.
    """
    number = rng.choice([1, 2, 4], (batch_size, 1))
    kinds = 1 + rng.integers(0, 4 * number, (2, batch_size, demonstrations + 1)) % number
    kinds[0, :, : demonstrations // 2] = 0
    kinds[1, :, demonstrations // 2 : demonstrations] = 0
    kinds[:, :, demonstrations] = 0
    order = np.argsort(rng.random((batch_size, demonstrations)), 1)
    kinds[:, :, :demonstrations] = np.take_along_axis(kinds[:, :, :demonstrations], order[None], 2)
    return kinds


def _draw_codes(
    kinds, words, modes, width: int, rng: np.random.Generator, difficulty: Difficulty, all_words
) -> PartCodes:
    batch_size, shape = len(kinds), (len(kinds), NUM_KINDS, VECTORS_PER_PART)
    # As features are: of few dimensions, or many, around a mean, of any size.
    rank = int(rng.choice([rank for rank in (8, 16, 32) if rank < width] + [width]))
    random = rng.standard_normal((*shape, rank), dtype=np.float32)
    noise = rng.standard_normal((*kinds.shape, VECTORS_PER_PART, width), dtype=np.float32)
    if rank < width:
        axes = rng.standard_normal((batch_size, 1, rank, width), dtype=np.float32) / rank**0.5
        random = random @ axes
        # It hides most along the dimensions that tell.
        if rng.random() < SHARE_OF_LIKE_NOISE:
            noise = noise[..., :rank] @ axes
    mean = rng.standard_normal((batch_size, 1, VECTORS_PER_PART, width), dtype=np.float32)
    random = (random + rng.choice([0, 0.5, 1]) * mean) * rng.uniform(0.5, 2)
    is_token = rng.random((batch_size, 1, 1)) < difficulty.words
    code_words = np.where(is_token, words[:, :, 2:], -1)
    code_words = np.where(modes[:, None, None] == BIND, code_words, words[:, :, :1])
    noise *= (difficulty.noise * rng.random((batch_size, 1, 1, 1))).astype(np.float32)
    return PartCodes(*map(torch.from_numpy, (kinds, random.astype(np.float32), code_words, noise, all_words)))


def _draw_words(kinds, words, modes) -> tuple[np.ndarray, np.ndarray]:
    """
    What is said in each block, and whether it is asked for: not where it contradicts what is seen, nor where it can't
    be known, since the code is new and names nothing.
    """
    rows = np.arange(len(kinds))[:, None]
    said, other = words[rows, kinds, 0], words[rows, kinds, 1]
    is_contradicted = (modes == CONTRADICTED)[:, None]
    said[:, :-1] = np.where(is_contradicted, other[:, :-1], said[:, :-1])
    told = np.ones(kinds.shape, bool)
    told[:, :-1] &= ~is_contradicted
    is_repeated = np.tril(kinds[:, :, None] == kinds[:, None], -1).any(2)
    told &= is_repeated | (modes != BIND)[:, None]
    return said, told


def _write(text: EpisodeText, parts, said, told, demonstration_clips: bool, rng: np.random.Generator) -> Episodes:
    """The tokens of the blocks, and which of them are to be told."""
    batch_size, blocks = said[0].shape
    questions = rng.choice(text.questions, (batch_size, blocks, 1))
    clip = np.broadcast_to(text.clip, (batch_size, blocks, len(text.clip)))
    ids = np.concatenate([clip, questions, text.narrations(*said)], 2)
    asked = clip.shape[2] + 1
    labels = np.full_like(ids, -100)
    labels[:, :, asked:] = ids[:, :, asked:]
    for place, part_told in zip((asked + 1, asked + 3), told, strict=True):
        labels[:, :, place] = np.where(part_told, ids[:, :, place], -100)
    answers = ids[:, -1, asked:] if text.is_decoder_only else ids[:, -1, asked:-1]
    answers = _framed(answers, [], text.end)
    is_there = np.ones(ids.shape[1:], bool)
    if not demonstration_clips:
        labels[:, :-1] = -100
        is_there[:-1, : clip.shape[2]] = False
    if text.is_decoder_only:
        is_there = is_there.reshape(-1)
        ids, labels = ids.reshape(batch_size, -1)[:, is_there], labels.reshape(batch_size, -1)[:, is_there]
        ids, labels = _framed(ids, text.start, text.end), _framed(labels, [-100] * len(text.start), text.end)
    else:
        labels = _framed(labels[:, -1, asked:-1], [], text.end)
        # The decoder's text begins without a space.
        labels[:, 0] = answers[:, 0] = text.subject
        is_there[-1, asked:] = False
        ids = _framed(ids.reshape(batch_size, -1)[:, is_there.reshape(-1)], [], text.end)
    clips = slice(None) if demonstration_clips else slice(-1, None)
    return Episodes(*map(torch.from_numpy, (ids, labels, answers)), tuple(parts), clips)


def _framed(rows: np.ndarray, start: list[int], end: list[int]) -> np.ndarray:
    sides = [np.broadcast_to(np.array(side, dtype=rows.dtype), (len(rows), len(side))) for side in (start, end)]
    return np.concatenate([sides[0], rows, sides[1]], 1)
