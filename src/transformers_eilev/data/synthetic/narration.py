"""What the narrator says, with the habits of narrators."""

from dataclasses import dataclass

import numpy as np

from .script import ActionScript, VideoScript
from .world import World


# Streams after (seed, video) that are not the number of an action.
_WORDS_STREAM, _TEXT_STREAM, _HABIT_STREAM = 2**30 + 1, 2**30 + 2, 2**30 + 7

REJECT_REASONS = ("object_not_visible", "incorrect_narration", "no_state_change", "camera_wearer_not_acting")


@dataclass(frozen=True)
class Vocabulary:
    """The words of one video.

    Attributes:
        verbs (`tuple[tuple[str, str], ...]`): of each verb of the world, (third person, imperative).
        nouns (`tuple[str, ...]`): of each noun of the world.
        whose (`str`): "his" or "her".
        swapped_verbs, swapped_nouns (`tuple[int, ...]`): those that another one's words are used for.
    """

    verbs: tuple[tuple[str, str], ...]
    nouns: tuple[str, ...]
    whose: str
    swapped_verbs: tuple[int, ...] = ()
    swapped_nouns: tuple[int, ...] = ()


@dataclass(frozen=True)
class Narration:
    """What is said and noted about one action.

    Attributes:
        text (`str`): as annotated in FHO, with its quirks.
        sentence (`str`): the plain imperative, as in EPIC-KITCHENS.
        verb_word, noun_word (`str`): the words used.
        quirk (`str`): "" for a valid action, else "rejected", "invalid" or "other_person".
        reject_reason (`str`): of a rejected one.
        structured_verb, structured_noun (`str`, *optional*): labels, which follow what is seen whatever it is called.
    """

    text: str
    sentence: str
    verb_word: str
    noun_word: str
    quirk: str
    reject_reason: str | None
    structured_verb: str | None
    structured_noun: str | None


def choose_words(world: World, script: VideoScript) -> Vocabulary:
    """The words that the narrator of a video sticks to, from (seed, video)."""
    config = world.config
    rng = np.random.default_rng([config.seed, script.number, _WORDS_STREAM])
    verbs = [_one_of(verb.words, rng, config.synonyms) for verb in world.verbs]
    nouns = [_one_of(noun.words, rng, config.synonyms) for noun in world.nouns]
    swapped_verbs = swapped_nouns = ()
    if rng.random() < config.homonyms:
        used = np.unique([action.verb for action in script.actions])
        swapped_verbs = _swap(verbs, used, rng)
        used = np.unique([action.noun for action in script.actions])
        swapped_nouns = _swap(nouns, used, rng)
    whose = ("his", "her")[int(rng.integers(2))]
    return Vocabulary(tuple(verbs), tuple(nouns), whose, swapped_verbs, swapped_nouns)


def _one_of(words, rng, probability):
    other = int(rng.integers(1, max(2, len(words))))
    return words[other] if rng.random() < probability and len(words) > 1 else words[0]


def _swap(words: list, used: np.ndarray, rng: np.random.Generator) -> tuple[int, ...]:
    """Hands the words of about half of those used round in a circle."""
    if len(used) < 2:
        return ()
    chosen = [int(index) for index in rng.permutation(used)[: max(2, len(used) // 2)]]
    moved = [words[index] for index in chosen[1:] + chosen[:1]]
    for index, word in zip(chosen, moved):
        words[index] = word
    return tuple(sorted(chosen))


def narrate(world: World, script: VideoScript, words: Vocabulary, action: ActionScript) -> Narration:
    """What is said about an action, from (seed, video, action)."""
    config = world.config
    rng = np.random.default_rng([config.seed, script.number, _TEXT_STREAM, action.index])
    verb, noun = world.verbs[action.verb], world.nouns[action.noun]
    third, imperative = words.verbs[action.verb]
    name = words.nouns[action.noun]
    # A stream of its own: whatever the share, all else that is said of the action is the same.
    habits = np.random.default_rng([config.seed, script.number, _HABIT_STREAM, action.index])
    plain = float(habits.random()) >= config.habit_share
    thing = _thing(name, world.looks[action.noun][action.look].colour, words.whose, config, plain, rng)
    where = _where(script.places[action.station], action.staging.side, words.whose, config, plain, rng)
    quirk = ""
    if rng.random() < config.quirk_share:
        quirk = ("rejected", "invalid", "other_person")[int(rng.choice(3, p=(0.5, 0.3, 0.2)))]
    structured_verb, structured_noun = verb.structured, noun.structured
    odd = float(rng.random())
    if odd < config.unlabelled_share / 3:
        structured_verb = "[other]"
    elif odd < config.unlabelled_share / 2:
        structured_verb = None
    elif odd < config.unlabelled_share:
        structured_noun = None
    text = _with_habits(f"{third} {thing}{where}", thing, quirk, plain, rng)
    reason = REJECT_REASONS[int(rng.integers(len(REJECT_REASONS)))] if quirk == "rejected" else None
    return Narration(text, f"{imperative} {name}", third, name, quirk, reason, structured_verb, structured_noun)


def _thing(name, colour, whose, config, plain, rng):
    article = ("the", "a", "the", whose)[int(rng.integers(4))]
    if plain:
        article = "the"
    if rng.random() < config.colour_share:
        name = f"{colour} {name}"
    if article == "a" and name.endswith("scissors"):
        article = "the"
    elif article == "a" and name[0] in "aeiou":
        article = "an"
    return f"{article} {name}"


def _where(place, side, whose, config, plain, rng):
    draw = float(rng.random())
    if draw < config.hand_share:
        whose = (whose, "the")[int(rng.integers(2))]
        return f" with {'the' if plain else whose} {'right' if side > 0 else 'left'} hand"
    if draw < config.hand_share + config.place_share:
        return f" on the {place}"
    return ""


def _with_habits(text, thing, quirk, plain, rng):
    """Markers, spaces and stops as annotators leave them, unless it is to be `plain`."""
    draw = float(rng.random())
    if quirk == "other_person":
        return f"#O A man X {text}"
    if plain:
        return f"#C C {text}"
    if draw < 0.01:
        text = text.replace(thing, "#Unsure", 1)
    elif draw < 0.03:
        text += " #unsure"
    elif draw < 0.04:
        text += " <|eos|>"
    opening = float(rng.random())
    if opening < 0.02:
        text = f"#C Camera wearer {text}"
    elif opening < 0.04:
        text = f"#c C {text}"
    elif opening < 0.06:
        text = f"#C  C {text}"
    else:
        text = f"#C C {text}"
    ending = float(rng.random())
    if ending < 0.3:
        return text + " "
    return text + "." if ending < 0.6 else text
