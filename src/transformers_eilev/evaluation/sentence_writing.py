"""One sentence for all actions of a verb and a noun, or of a phrase, written by a language model and checked."""

import copy
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

from ..data.narrations import SUBJECT, phrases_of_label, third_person
from ..data.standard_sentences import action_to_sentence, before_noun, words_of_noun, words_of_verb
from ..weight_hashes import PartsHash
from .prediction_journal import PredictionJournal
from .results import fingerprint_of


INSTRUCTION = (
    f'Write one short sentence about what is done in a video. Begin with "{SUBJECT}", use the present tense, and name '
    "what is given and nothing else. Answer with the sentence alone."
)
_ARTICLES = frozenset(["a", "an", "the", "his", "her", "its", "their", "some"])
# What a sentence may say beside what it must. No "on" and "off", which turn a verb into another.
_PREPOSITIONS = [
    "at",
    "away",
    "down",
    "from",
    "in",
    "into",
    "of",
    "onto",
    "out",
    "over",
    "through",
    "to",
    "up",
    "with",
]
_GRAMMAR = _ARTICLES.union(_PREPOSITIONS)
# What a sentence may stand in.
_AROUND = " \t\n\"'*“”"


@dataclass(frozen=True)
class ActionWords:
    """
    What a sentence is to be written of: a verb and a noun, or a phrase.

    Attributes:
        verb, noun (`str`): labels, such as "take_(pick,_grab,_get)", "put-down", "board:chopping".
        phrase (`str`): in EPIC-KITCHENS' manner, such as "put down knife in drawer"; goes before the labels.
        rule (`str`): the sentence that rules make of it. By default that of the labels.

    Raises:
        ValueError: if there is no such sentence: a verb that says nothing, or a phrase without `rule`.
    """

    verb: str = ""
    noun: str = ""
    phrase: str = ""
    rule: str = ""

    def __post_init__(self):
        # Of a phrase not by the labels: they may be other words ("take" for "pick up").
        rule = self.rule or ("" if self.phrase else action_to_sentence(self.verb, self.noun))
        if not rule:
            raise ValueError(f"No sentence can be made of {self}: it needs a verb, or a phrase with its `rule`")
        object.__setattr__(self, "rule", rule)

    def question(self) -> str:
        """What a model is told of it: all words of its labels, in their base form."""
        if self.phrase:
            return f"Action: {self.phrase}"
        said = [("Verb", self.verb), *([("Noun", self.noun)] if words_of_noun(self.noun) else [])]
        return "\n".join(f"{kind}: {' / '.join(dict.fromkeys(phrases_of_label(label)))}" for kind, label in said)


# Each serves for pairs and for phrases.
THREE_SHOT = (
    ActionWords("put-down", "board:chopping", "put down chopping board", f"{SUBJECT} puts down the chopping board."),
    ActionWords("turn-on", "tap", "turn on tap", f"{SUBJECT} turns on the tap."),
    ActionWords("sit", "chair", "sit on chair", f"{SUBJECT} sits on the chair."),
)


@dataclass(frozen=True)
class WrittenSentence:
    """
    A sentence, and who wrote it.

    Attributes:
        sentence (`str`): such as "The camera wearer takes the cup."
        by (`str`): "model", or "rule" where the model's answer failed the check.
        answer (`str`): all that the model said.
        fault (`str`): what was wrong with it, "" if nothing.
    """

    sentence: str
    by: str
    answer: str
    fault: str


class SentenceWriter:
    """
    Has a language model write sentences, and puts the rules' in the place of those that fail [`check_sentence`].

    Args:
        model (`PreTrainedModel`): a causal language model that follows instructions. The original's was
            `meta-llama/Llama-2-7b-chat-hf`.
        tokenizer (`PreTrainedTokenizerBase`): its own. Its chat template is used if it has one, else plain text.
        batch_size (`int`, *optional*, defaults to 16): actions at a time.
        max_new_tokens (`int`, *optional*, defaults to 40): of an answer.
        examples (`Sequence[ActionWords]`, *optional*, defaults to `THREE_SHOT`): shown in the prompt, their `rule` as
            the answer.

    Raises:
        ValueError: if the model has an encoder, or the tokenizer neither a padding token nor an end of text.
    """

    def __init__(
        self,
        model,
        tokenizer,
        *,
        batch_size: int = 16,
        max_new_tokens: int = 40,
        examples: Sequence[ActionWords] = THREE_SHOT,
    ):
        for name, value in (("batch_size", batch_size), ("max_new_tokens", max_new_tokens)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, but is {value}")
        if model.config.is_encoder_decoder:
            raise ValueError(f"{model.config.model_type} has an encoder; a causal language model is wanted")
        self.tokenizer = copy.deepcopy(tokenizer)
        if self.tokenizer.pad_token is None:
            if self.tokenizer.eos_token is None:
                raise ValueError("The tokenizer has no token to pad with: neither `pad_token` nor `eos_token`")
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model = model
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self.examples = tuple(examples)

    def write(
        self,
        actions: Iterable[ActionWords],
        folder: str | os.PathLike,
        *,
        overwrite: bool = False,
        progress: Callable[[int], Any] = lambda number: None,
    ) -> dict[ActionWords, WrittenSentence]:
        """
        Writes a sentence for each distinct action. What is done is kept batch by batch, and gone on from, by the same
        batches, in the next call of the same model and actions.

        Args:
            actions (`Iterable[ActionWords]`): each is asked for once, however often it comes.
            folder (`str`): for `settings.json` and `predictions.jsonl`, a line for each action: its words, and what
                [`WrittenSentence`] has.
            overwrite (`bool`, defaults to `False`): drop what other settings have left in `folder`.
            progress (`Callable[[int], Any]`, *optional*): told how many more there are, after each batch.

        Raises:
            ValueError: if `folder` has sentences of other settings, a model, prompt or actions, with what differs.
        """
        actions = list(dict.fromkeys(actions))
        expected = [{"index": index, **asdict(action)} for index, action in enumerate(actions)]
        settings = {**self.settings(), "actions": fingerprint_of(expected)}
        journal = PredictionJournal(folder, expected, settings, batch_size=self.batch_size, overwrite=overwrite)
        missing = journal.prepare()

        def predict(batch: Sequence[int]) -> list[dict[str, str]]:
            chosen = [actions[index] for index in batch]
            return [asdict(judge(action, answer)) for action, answer in zip(chosen, self.answer(chosen))]

        journal.complete(missing, predict, progress=progress)
        names = [field.name for field in fields(WrittenSentence)]
        written = (WrittenSentence(**{name: line[name] for name in names}) for line in journal.finish())
        return dict(zip(actions, written))

    def settings(self) -> dict[str, Any]:
        """All that decides the answers but the actions, as JSON takes it. The model's weights are hashed."""
        generation = self.model.generation_config.to_diff_dict()
        return {
            "model": self.model.name_or_path,
            "weights": PartsHash()({"model": self.model}),
            "generation_config": {name: value for name, value in generation.items() if name != "transformers_version"},
            "prompt": [self.prompt(action) for action in (THREE_SHOT[0], replace(THREE_SHOT[0], phrase=""))],
            "max_new_tokens": self.max_new_tokens,
        }

    def prompt(self, action: ActionWords) -> str:
        """The whole text that the model is given, special tokens of a chat included."""
        alike = [example if action.phrase else replace(example, phrase="") for example in self.examples]
        shown = [(example.question(), example.rule) for example in alike]
        if self.tokenizer.chat_template is None:
            turns = [f"{question}\nSentence: {sentence}" for question, sentence in shown]
            return "\n\n".join([INSTRUCTION, *turns, f"{action.question()}\nSentence:"])
        # No system message, which not all templates have.
        texts = [text for turn in shown for text in turn] + [action.question()]
        texts[0] = f"{INSTRUCTION}\n\n{texts[0]}"
        chat = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
        return self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)

    def answer(self, actions: Sequence[ActionWords]) -> list[str]:
        """What the model says of each action, by greedy decoding and in one batch."""
        inputs = self.tokenizer(
            [self.prompt(action) for action in actions],
            # A chat's template has them.
            add_special_tokens=self.tokenizer.chat_template is None,
            padding=True,
            padding_side="left",
            return_tensors="pt",
            return_token_type_ids=False,
        ).to(self.model.device)
        with torch.inference_mode():
            generated = self.model.generate(
                **inputs,
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        return self.tokenizer.batch_decode(generated[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def judge(action: ActionWords, answer: str) -> WrittenSentence:
    """The first sentence of an answer, or the rules' if it fails the check."""
    first = re.match(r"[^.!?\n]*", answer.strip(_AROUND)).group().strip(_AROUND)
    sentence = " ".join(first.split()) + "."
    fault = check_sentence(action, sentence)
    return WrittenSentence(action.rule if fault else sentence, "rule" if fault else "model", answer, fault)


def check_sentence(action: ActionWords, sentence: str) -> str:
    """
    What is wrong with a sentence about an action, "" if nothing is. It must begin with "The camera wearer", name the
    verb, by any word of its label in the third person, and the noun, by any word, plural or not; and nothing else may
    be in it but articles and prepositions. Of a phrase, it must have all words that the rules' sentence has.

    Args:
        action ([`ActionWords`]): what the sentence is about.
        sentence (`str`): to check.

    Returns:
        `str`: the first fault, in words, or "".
    """
    if not sentence.startswith(SUBJECT + " "):
        return f'does not begin with "{SUBJECT}"'
    said = frozenset(_split(sentence.removeprefix(SUBJECT)))
    allowed = set(_split(action.rule)) | _GRAMMAR
    for kind, forms in _wanted(action):
        if not any(form <= said for form in forms):
            return f"does not say the {kind}"
        allowed.update(*forms)
    more = sorted(said - allowed)
    return f"says {more[0]!r} as well" if more else ""


# ------------------------------------------------------------------------------------------------------------ details


def _wanted(action: ActionWords) -> list[tuple[str, list[frozenset[str]]]]:
    """What must be said, and of each the ways to say it, as sets of words: "turns the light on" is "turns on"."""
    if action.phrase:
        words = _split(action.rule.removeprefix(SUBJECT))
        return [(f"word {word!r}", [frozenset([word])]) for word in words if word not in _ARTICLES]
    verbs = [form for verb in words_of_verb(action.verb) for form in (verb, before_noun(verb))]
    # The plural is made as the third person is.
    nouns = [form for noun in words_of_noun(action.noun) for form in (noun, third_person(noun))]
    wanted = [
        (kind, [frozenset(_split(form)) - _ARTICLES for form in of_kind])
        for kind, of_kind in (("verb", verbs), ("noun", nouns))
    ]
    return [(kind, forms) for kind, forms in wanted if forms]


def _split(text: str) -> list[str]:
    return re.findall(r"[^\s.,;:!?\"“”]+", text.lower())


__all__ = [
    "INSTRUCTION",
    "THREE_SHOT",
    "ActionWords",
    "SentenceWriter",
    "WrittenSentence",
    "check_sentence",
    "judge",
]
