"""The verbs and nouns of a synthetic world: how they move and look, what they are called, how often they come."""

from dataclasses import dataclass, field

import numpy as np

from . import actions
from .actions import BackwardsMotion, MadeUpMotion, Motion
from .config import SyntheticConfig


# First numbers after the seed of `np.random.default_rng`, out of the way of video numbers.
WORLD_STREAM = 2**31 - 1

_CONSONANTS, _VOWELS, _ENDINGS = (
    ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "t", "v", "w", "z"),
    "aeiou",
    "bdgkmnpt",
)


@dataclass(frozen=True)
class Verb:
    """A motion and its words.

    Attributes:
        name (`str`): as the EPIC layout's class key.
        structured (`str`): as in the FHO taxonomy.
        words (`tuple[tuple[str, str], ...]`): synonyms as (third person, imperative), the usual one first.
        motion (`Motion`): what it looks like.
        pnr (`float`): phase of the point of no return.
        needs (`str`): trait of the nouns it is done to, "" for all.
        backwards (`str`): name of the verb that is the same motion backwards, "" if there is none.
    """

    name: str
    structured: str
    words: tuple[tuple[str, str], ...]
    motion: Motion
    pnr: float
    needs: str = ""
    backwards: str = ""


def _pair(forwards, backwards, motion, pnr, needs=""):
    (name, structured, words), (other_name, other_structured, other_words) = forwards, backwards
    yield Verb(name, structured, words, motion, pnr, needs, other_name)
    yield Verb(other_name, other_structured, other_words, BackwardsMotion(motion), 1 - pnr, needs, name)


VERBS: tuple[Verb, ...] = (
    *_pair(
        ("take", "take_(pick,_grab,_get)", (("picks up", "pick up"), ("takes", "take"), ("grabs", "grab"))),
        ("put", "put_(place,_leave,_drop)", (("puts down", "put down"), ("places", "place"), ("drops", "drop"))),
        actions.take,
        0.45,
    ),
    *_pair(
        ("open", "open", (("opens", "open"), ("uncovers", "uncover"))),
        ("close", "close", (("closes", "close"), ("covers", "cover"))),
        actions.open_,
        0.4,
        "opens",
    ),
    *_pair(
        ("fold", "fold", (("folds", "fold"), ("doubles up", "double up"))),
        ("unfold", "unfold", (("unfolds", "unfold"), ("spreads", "spread"))),
        actions.fold,
        0.4,
        "folds",
    ),
    *_pair(
        ("push", "push", (("pushes", "push"), ("shoves", "shove"))),
        ("pull", "pull", (("pulls", "pull"), ("drags", "drag"))),
        actions.push,
        0.4,
    ),
    *_pair(
        ("insert", "insert", (("inserts", "insert"), ("packs", "pack"))),
        ("remove", "remove", (("removes", "remove"), ("unpacks", "unpack"))),
        actions.insert,
        0.6,
        "packs",
    ),
    Verb(
        "cut",
        "cut_(trim,_slice,_chop)",
        (("cuts", "cut"), ("slices", "slice"), ("chops", "chop")),
        actions.cut,
        0.3,
        "cuts",
    ),
    Verb("mix", "mix", (("mixes", "mix"), ("stirs", "stir")), actions.mix, 0.3, "holds"),
    Verb("wash", "wash", (("washes", "wash"), ("rinses", "rinse")), actions.wash, 0.3),
    Verb("pour", "pour", (("pours from", "pour from"), ("empties", "empty")), actions.pour, 0.4, "pours"),
    Verb("wipe", "wipe", (("wipes", "wipe"), ("dries", "dry")), actions.wipe, 0.3),
    Verb("hit", "hit_(knock,_hit,_hammer)", (("hits", "hit"), ("knocks", "knock")), actions.hit, 0.3),
    Verb("press", "press", (("presses", "press"), ("squeezes", "squeeze")), actions.press, 0.5),
    Verb("shake", "shake", (("shakes", "shake"), ("jiggles", "jiggle")), actions.shake, 0.3),
    Verb(
        "turn", "turn_(spin,_rotate,_flip,_turn_over)", (("turns", "turn"), ("rotates", "rotate")), actions.turn, 0.4
    ),
)


@dataclass(frozen=True)
class Noun:
    """An appearance and its words.

    Attributes:
        name (`str`): as the EPIC layout's class key, and of the painter in `objects`.
        structured (`str`): as in the FHO taxonomy.
        words (`tuple[str, ...]`): synonyms, the usual one first.
        size (`float`): side of its sprite in widths of the view.
        traits (`tuple[str, ...]`): what can be done to it, see `Verb.needs`.
        colours (`tuple[str, ...]`): in which it comes, () for anything from the palette, in patterns.
        shape (`int`): seed of a made-up shape; -1 for the painter of its name.
    """

    name: str
    structured: str
    words: tuple[str, ...]
    size: float
    traits: tuple[str, ...]
    colours: tuple[str, ...] = ()
    shape: int = -1


NOUNS: tuple[Noun, ...] = (
    Noun("apple", "apple", ("apple",), 0.21, ("cuts", "packs"), ("red", "green", "yellow", "dark red")),
    Noun(
        "banana",
        "banana_(banana,_plantain)",
        ("banana", "plantain"),
        0.3,
        ("cuts", "packs"),
        ("yellow", "green", "brown"),
    ),
    Noun("carrot", "carrot", ("carrot",), 0.32, ("cuts", "packs"), ("orange", "purple", "yellow")),
    Noun(
        "bread",
        "bread_(bread,_bun,_chapati,_flatbread,_loaf,_roti,_tortilla)",
        ("bread", "loaf"),
        0.31,
        ("cuts", "packs"),
        ("brown", "beige", "dark brown"),
    ),
    Noun("ball", "ball_(ball,_baseball,_basketball)", ("ball",), 0.22, ("packs",)),
    Noun("bottle", "bottle_(bottle,_flask)", ("bottle", "flask"), 0.34, ("opens", "pours", "packs")),
    Noun(
        "box",
        "container_(box,_can,_carton,_case,_casing,_container,_crate,_holder,_jar,_jerrycan,_keg,_pack,_package,"
        "_packaging,_packet,_storage,_tank,_tin)",
        ("box", "container"),
        0.3,
        ("opens", "packs"),
    ),
    Noun("pot", "pot", ("pot",), 0.32, ("opens", "pours", "holds")),
    Noun("cup", "cup_(cup,_mug,_tumbler)", ("cup", "mug"), 0.24, ("pours", "holds", "packs")),
    Noun("bowl", "bowl", ("bowl",), 0.31, ("pours", "holds")),
    Noun("pan", "pan_(frypan,_pan,_saucepan)", ("pan", "frypan"), 0.38, ("pours", "holds")),
    Noun(
        "book",
        "book_(book,_booklet,_magazine,_manual,_notebook,_novel,_page,_textbook)",
        ("book", "notebook"),
        0.28,
        ("opens", "packs"),
    ),
    Noun("phone", "phone_(cellphone,_phone,_smartphone)", ("phone", "cellphone"), 0.24, ("packs",)),
    Noun("cloth", "cloth_(cloth,_fabric,_garment,_kanga,_rag)", ("cloth", "rag"), 0.33, ("folds", "packs", "cuts")),
    Noun(
        "paper",
        "paper_(chart,_craft,_newspaper,_note,_paper,_papercraft,_poster,_receipt)",
        ("paper", "newspaper"),
        0.31,
        ("folds", "packs", "cuts"),
        ("white", "beige", "light blue", "pink"),
    ),
    Noun(
        "bag",
        "bag_(bag,_grocery,_nylon,_polythene,_pouch,_sachet,_sack,_suitcase)",
        ("bag", "pouch"),
        0.33,
        ("opens", "folds", "pours"),
    ),
    Noun("hammer", "hammer_(hammer,_mallet)", ("hammer", "mallet"), 0.34, ("packs",)),
    Noun("scissors", "scissors", ("scissors",), 0.28, ("packs",)),
)

ORDER_FREE_VERBS: tuple[str, ...] = tuple(
    verb.name for number, verb in enumerate(VERBS) if verb.backwards not in {other.name for other in VERBS[:number]}
)
"""Names of the verbs without the second of each pair such as open and close: 14 of the 19.

The two verbs of a pair are one motion played forwards and backwards. A model whose vision sees each frame of a clip by
itself, with nothing that says when it was, cannot know one from the other and can only guess.
"""

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (196, 44, 40),
    "blue": (42, 86, 178),
    "green": (58, 140, 66),
    "yellow": (236, 196, 52),
    "white": (236, 234, 228),
    "black": (44, 44, 50),
    "orange": (236, 128, 36),
    "purple": (116, 62, 140),
    "pink": (232, 150, 170),
    "light blue": (140, 190, 222),
    "grey": (146, 150, 154),
    "brown": (136, 88, 50),
    "dark brown": (92, 56, 32),
    "beige": (214, 184, 138),
    "dark red": (128, 24, 34),
}
PATTERNS = ("plain", "stripes", "dots", "checks", "bands")


@dataclass(frozen=True)
class Look:
    """One way in which a noun comes: colours, pattern, size."""

    colour: str
    second: str
    pattern: str
    size: float


@dataclass
class World:
    """Everything that all the videos of a set share, derived from the seed.

    Attributes:
        verbs, nouns (`tuple`): with the made-up ones last.
        looks (`list[list[Look]]`): of each noun.
        pair_weights (`np.ndarray`): how often each pair is drawn, of shape (verbs, nouns), summing to 1.
        rare_pairs (`list[tuple[int, int]]`): indices of the pairs that were made rare.
    """

    config: SyntheticConfig
    verbs: tuple[Verb, ...] = field(init=False)
    nouns: tuple[Noun, ...] = field(init=False)
    looks: list[list[Look]] = field(init=False)
    pair_weights: np.ndarray = field(init=False)
    rare_pairs: list[tuple[int, int]] = field(init=False)

    def __post_init__(self):
        config = self.config
        words = _made_up_words(np.random.default_rng([config.seed, WORLD_STREAM, 0]), config)
        rng = np.random.default_rng([config.seed, WORLD_STREAM, 1])
        known = tuple(verb for verb in VERBS if config.verbs is None or verb.name in config.verbs)
        self.verbs = known + tuple(_made_up_verb(next(words), rng) for _ in range(config.made_up_verbs))
        rng = np.random.default_rng([config.seed, WORLD_STREAM, 2])
        self.nouns = NOUNS + tuple(_made_up_noun(next(words), rng) for _ in range(config.made_up_nouns))
        self.looks = [
            _draw_looks(noun, np.random.default_rng([config.seed, WORLD_STREAM, 3, number]), config.looks_per_noun)
            for number, noun in enumerate(self.nouns)
        ]
        self._weigh_pairs(np.random.default_rng([config.seed, WORLD_STREAM, 4]))

    def _weigh_pairs(self, rng: np.random.Generator) -> None:
        config = self.config
        verb_weights = zipf(len(self.verbs), config.verb_skew)[rng.permutation(len(self.verbs))]
        noun_weights = zipf(len(self.nouns), config.noun_skew)[rng.permutation(len(self.nouns))]
        weights = verb_weights[:, None] * noun_weights[None, :]
        if config.plausible:
            for row, verb in enumerate(self.verbs):
                for column, noun in enumerate(self.nouns):
                    if verb.needs and verb.needs not in noun.traits and noun.shape < 0:
                        weights[row, column] = 0
        possible = [(int(row), int(column)) for row, column in np.argwhere(weights > 0)]
        chosen = rng.permutation(len(possible))[: min(config.rare_pairs, len(possible) // 2)]
        self.rare_pairs = sorted(possible[index] for index in chosen)
        for row, column in self.rare_pairs:
            weights[row, column] *= config.rare_pair_weight
        self.pair_weights = weights / weights.sum()


def zipf(count: int, exponent: float) -> np.ndarray:
    """Weights of `count` ranks, of shape (count,), summing to 1."""
    weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    return weights / weights.sum()


def _made_up_words(rng: np.random.Generator, config: SyntheticConfig):
    known = {word.split()[0] for verb in VERBS for pair in verb.words for word in pair}
    known |= {word for noun in NOUNS for word in noun.words}
    while True:
        syllables = int(rng.integers(1, 3))
        word = "".join(str(rng.choice(_CONSONANTS)) + str(rng.choice(list(_VOWELS))) for _ in range(syllables))
        word += str(rng.choice(list(_ENDINGS)))
        if word not in known:
            known.add(word)
            yield word


def _made_up_verb(word: str, rng: np.random.Generator) -> Verb:
    first = int(rng.integers(1, 4))
    second = first + int(rng.integers(1, 3)) if rng.random() < 0.5 else max(1, first - 1)
    motion = MadeUpMotion(
        (first, second), round(float(rng.uniform(0, 3.14)), 3), round(float(rng.uniform(-60, 60)), 1)
    )
    return Verb(word, word, ((word + "s", word),), motion, 0.4)


def _made_up_noun(word: str, rng: np.random.Generator) -> Noun:
    return Noun(
        word, word, (word,), round(float(rng.uniform(0.24, 0.33)), 3), ("packs",), (), int(rng.integers(2**31))
    )


def _draw_looks(noun: Noun, rng: np.random.Generator, count: int) -> list[Look]:
    """Different colours first; what grows or is baked has no pattern."""
    names = list(noun.colours or PALETTE)
    order = [names[index] for index in rng.permutation(len(names))]
    looks = []
    for number in range(count):
        colour = order[number % len(order)]
        others = [name for name in PALETTE if name != colour]
        second = others[int(rng.integers(len(others)))]
        pattern = "plain" if noun.colours else PATTERNS[int(rng.integers(len(PATTERNS)))]
        looks.append(Look(colour, second, pattern, round(float(rng.uniform(0.85, 1.12)), 3)))
    return looks
