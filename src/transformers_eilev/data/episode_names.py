"""Words that verbs and nouns have in one prompt alone, so that only its examples tell what they mean."""

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from .narrations import NO_LABELS, phrases_of_label, third_person


_SOMETHING = re.compile(r"\bsomething\b", re.IGNORECASE)
# Said after a verb and part of it, wherever they stand: "picks up a cup".
_PARTICLES = r"(?: (?:up|down|out|off|away))?"


class EpisodeNames:
    r"""
    Gives the verbs and nouns of an episode, which is a context and its query, new words: for `rename` of
    [`InContextDataset`]. What a word means can then only be learned from the clips and texts before it.

    In a share of the episodes, each verb and each noun of the context gets a word, drawn without replacement; actions
    of one `structured_verb` get one word for it, whatever words their narrators use, and so for the noun. The query's
    verb and noun get those that they have in the context; one that the context lacks keeps its word, which nothing
    could tell. A word that is replaced is so wherever it stands in the episode, unless it is used for two verbs or two
    nouns: then it is where it is an action's own. An action without a label ("" or "[other]") is named as those that
    are called the same. "a" and "an" before a word follow the new one; all else stays.

    Args:
        verb_words (`Sequence[str]`): to draw from, in the form that narrations have: "daxes".
        noun_words (`Sequence[str]`): to draw from. None may be a verb's. There should be no word of the narrations
            among either.
        share (`float`, *optional*, defaults to 0.7): of the episodes, from 0 to 1; the others stay as they are.
        find (`Callable[[dict, str], tuple[str | None, str | None]]`, *optional*): of a row and its cleaned narration,
            the words in it for verb and noun; "" for one that the narrator leaves open ("something"), `None` for one
            that isn't found. By default [`words_by_label`]; [`KnownWords`] where the words are known beforehand.
        skip_missing (`bool`, *optional*, defaults to `False`): leave a narration whose verb or noun isn't found with
            its own word for it, which may tell a reader what the new one stands for.

    Raises:
        ValueError: for values out of range, words that are empty or come twice; on a call, if a verb or noun isn't
            found in its narration, with the clip's name, and if there are more of them than words.
    """

    def __init__(
        self,
        verb_words: Sequence[str],
        noun_words: Sequence[str],
        *,
        share: float = 0.7,
        find: Callable[[dict, str], tuple[str | None, str | None]] | None = None,
        skip_missing: bool = False,
    ):
        if not 0 <= share <= 1:
            raise ValueError(f"`share` must be from 0 to 1, but is {share}")
        for name, words in (("verb_words", verb_words), ("noun_words", noun_words)):
            if isinstance(words, str) or not all(isinstance(word, str) and word.strip() for word in words):
                raise ValueError(f"`{name}` must be a list of words, none empty, but is {words!r}")
        words = [*verb_words, *noun_words]
        if len(set(words)) < len(words):
            twice = next(word for place, word in enumerate(words) if word in words[:place])
            raise ValueError(f"`verb_words` and `noun_words` have {twice!r} twice; a word must mean one thing")
        self.verb_words = list(verb_words)
        self.noun_words = list(noun_words)
        self.share = share
        self.find = find or words_by_label
        self.skip_missing = skip_missing

    def __call__(self, narrations: Sequence[str], rows: Sequence[dict], rng: np.random.Generator) -> list[str]:
        """
        Args:
            narrations (`Sequence[str]`): cleaned, of the context, in order, and of the query.
            rows (`Sequence[dict]`): their actions: `structured_verb`, `structured_noun`, `frame_path`.
            rng (`np.random.Generator`): the only source of chance.

        Returns:
            `list[str]`: the narrations with their new words.
        """
        if rng.random() >= self.share:
            return list(narrations)
        found = [self._find(row, narration) for row, narration in zip(rows, narrations, strict=True)]
        renamings = []
        for kind, texts, words in zip(("verb", "noun"), zip(*found), (self.verb_words, self.noun_words)):
            renamings.append(_name_all(kind, texts, [row.get(f"structured_{kind}") for row in rows], words, rng))
        common = _unambiguous([pair for renaming in renamings for pair in renaming])
        renamed = []
        for narration, *own in zip(narrations, *renamings):
            renamed.append(_replace(narration, common | {text: word for text, word in own if text}))
        return renamed

    def _find(self, row: dict, narration: str) -> tuple[str, str]:
        said = []
        for kind, text in zip(("verb", "noun"), self.find(row, narration), strict=True):
            if text is None or not re.search(_whole(text), narration, re.IGNORECASE):
                if not self.skip_missing:
                    raise ValueError(
                        f"The narration of {row.get('frame_path')!r}, {narration!r}, does not say its {kind}, "
                        f"{row.get(f'structured_{kind}')!r}, in a form that is known; set `skip_missing` to leave its "
                        "word as it is"
                    )
                text = ""
            said.append(text.lower())
        return tuple(said)


class KnownWords:
    """
    Finds the verb and the noun of a narration, whatever their labels: the first known verb in it, and the first known
    noun behind it. For `find` of [`EpisodeNames`].

    Args:
        verbs (`Iterable[str]`): as narrations have them, such as "picks up".
        nouns (`Iterable[str]`): likewise.
    """

    def __init__(self, verbs: Iterable[str], nouns: Iterable[str]):
        self._verbs, self._nouns = _any_of(verbs), _any_of(nouns)

    @classmethod
    def of_synthetic(cls, config=None):
        """
        The words of the synthetic set.

        Args:
            config ([`SyntheticConfig`], *optional*): what it was made with: made-up verbs and nouns derive from it.
        """
        from .synthetic.config import SyntheticConfig
        from .synthetic.world import World

        world = World(config or SyntheticConfig())
        verbs = [third for verb in world.verbs for third, _ in verb.words]
        return cls(verbs, [word for noun in world.nouns for word in noun.words])

    def __call__(self, row: dict, narration: str) -> tuple[str | None, str | None]:
        """The words for verb and noun; "" for "something", `None` for what isn't found."""
        return _search(narration, self._verbs, self._nouns)


def words_by_label(row: dict, narration: str) -> tuple[str | None, str | None]:
    """
    Finds the verb and the noun of a narration by their labels. The verb is one of the words that `structured_verb`
    has, such as "take_(pick,_grab,_get)" or "put-down", in the third person or as it is, with a particle behind it
    ("picks up"); the noun one that `structured_noun` has, such as "cup_(cup,_mug)" or "board:chopping", or its plural,
    behind the verb if it can be.

    Args:
        row (`dict`): of the action; only `structured_verb` and `structured_noun` are read, where they are there.
        narration (`str`): its text, cleaned.

    Returns:
        `tuple`: the words as they stand there; "" for "something" and where there is no label, `None` for what isn't
        found.
    """
    verb, noun = (row.get(name) for name in ("structured_verb", "structured_noun"))
    verbs = nouns = None
    if verb not in NO_LABELS:
        phrases = [phrase.split(" ", 1) for phrase in phrases_of_label(verb)]
        verbs = _any_of({" ".join([form, *rest]) for head, *rest in phrases for form in (head, third_person(head))})
        verbs = re.compile(verbs.pattern.removesuffix(_END) + _PARTICLES + _END, re.IGNORECASE)
    if noun not in NO_LABELS:
        # The plural is made as the third person is.
        nouns = _any_of({form for phrase in phrases_of_label(noun) for form in (phrase, third_person(phrase))})
    return _search(narration, verbs, nouns)


# ------------------------------------------------------------------------------------------------------------ details

_START, _END = r"(?<!\w)", r"(?!\w)"


def _whole(text: str) -> str:
    return f"{_START}{re.escape(text)}{_END}"


def _any_of(forms: Iterable[str]) -> re.Pattern:
    """The longest of them that begins first, as whole words."""
    forms = sorted(forms, key=lambda form: (-len(form), form))
    return re.compile(f"{_START}(?:{'|'.join(map(re.escape, forms))}){_END}", re.IGNORECASE)


def _search(narration: str, verbs: re.Pattern | None, nouns: re.Pattern | None) -> tuple[str | None, str | None]:
    verb = verbs and verbs.search(narration)
    noun = nouns and (nouns.search(narration, verb.end() if verb else 0) or nouns.search(narration))
    if verb and noun and noun.start() < verb.end() and verb.start() < noun.end():
        noun = None  # one word can't be both
    open_noun = "" if nouns is None or _SOMETHING.search(narration) else None
    return verb.group() if verb else None if verbs else "", noun.group() if noun else open_noun


def _name_all(kind: str, texts: Sequence[str], labels: Sequence, words: Sequence[str], rng) -> list[tuple[str, str]]:
    """For each action, the text that names it and the one that shall, the same where none shall."""
    called = {text: label for text, label in zip(texts, labels) if label not in NO_LABELS}
    # A tuple, for an action without a label that is called as none with one is: equal to no label.
    keys = [label if label not in NO_LABELS else called.get(text, (text,)) for text, label in zip(texts, labels)]
    named = list(dict.fromkeys(key for key, text in zip(keys[:-1], texts) if text))
    pool = words if keys[-1] in named else [word for word in words if word.lower() != texts[-1]]
    if len(named) > len(pool):
        raise ValueError(f"An episode has {len(named)} {kind}s, but `{kind}_words` has {len(pool)} words for them")
    drawn = [pool[place] for place in rng.choice(len(pool), len(named), replace=False)] if named else []
    new = dict(zip(named, drawn))
    return [(text, new.get(key, text)) for text, key in zip(texts, keys)]


def _unambiguous(renamings: Iterable[tuple[str, str]]) -> dict[str, str]:
    words = {}
    for text, word in renamings:
        words.setdefault(text, set()).add(word)
    return {text: next(iter(new)) for text, new in words.items() if text and len(new) == 1}


def _replace(narration: str, words: dict[str, str]) -> str:
    if not words:
        return narration

    def replacement(match: re.Match) -> str:
        article, text = match.groups()
        word = words[text.lower()]
        if word == text.lower():
            return match.group()
        if article:
            letter, space = article[0], article.lstrip("aAnN")
            article = letter + ("n" if word[0] in "aeiouAEIOU" else "") + space
        return (article or "") + word

    texts = "|".join(re.escape(text) for text in sorted(words, key=lambda text: (-len(text), text)))
    return re.sub(rf"{_START}(an?\s+)?({texts}){_END}", replacement, narration, flags=re.IGNORECASE)


__all__ = ["EpisodeNames", "KnownWords", "words_by_label"]
