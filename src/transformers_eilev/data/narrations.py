"""
Narrations as text for a model: the questions they answer, Ego4D's annotators' marks cleaned away, and EPIC-KITCHENS'
telegram style ("put down knife in drawer") made into sentences.
"""

import re
import string
from collections.abc import Collection, Sequence


# The questions of the original's training, of which one is drawn for each clip.
PROMPTS = (
    "What is the camera wearer doing?",
    "Question: What is the camera wearer doing?",
    "What is the camera wearer doing? An answer to the question is",
    "Q: What is the camera wearer doing? A:",
    "Given the video, answer the following question. What is the camera wearer doing?",
    "Based on the video, respond to this question: What is the camera wearer doing? Answer:",
    "Use the provided video to answer the question: What is the camera wearer doing?",
    'What is the answer to the following question? "What is the camera wearer doing?"',
    'The question "What is the camera wearer doing?" can be answered using the video. The answer is',
)
# VideoBLIP's only one.
VIDEO_BLIP_PROMPT = "Question: What is the camera wearer doing? Answer:"

SUBJECT = "The camera wearer"

# Labels that say nothing of what an action is.
NO_LABELS = (None, "", "[other]")

# What the original takes for an action of the camera wearer; also "#C Cuts", whose numbers existing extractions count.
CAMERA_WEARER = re.compile(r"#C\s+C", re.IGNORECASE)

_SUBJECT_MARK = re.compile(r"#C\s+C\b", re.IGNORECASE)
_CAMERA_MARK = re.compile(r"#C\s+(?=C)", re.IGNORECASE)
_END_OF_TEXT = re.compile(r"<\|eos\|>\Z", re.IGNORECASE)
_UNSURE_AT_END = re.compile(r"#unsure\.?\Z", re.IGNORECASE)
_UNSURE = re.compile(r"#unsure", re.IGNORECASE)


def clean_narration_text(narration_text: str) -> str:
    """A narration of Ego4D as a sentence: "#C C picks a cup #unsure" becomes "The camera wearer picks a cup."

    As the original, but for one thing: only a "C" that stands by itself is the camera wearer. The original makes "The
    camera weareramera falls." of "#C Camera falls", here it is "Camera falls."

    Args:
        narration_text (`str`): as annotated. A sentence that is clean already stays as it is.

    Returns:
        `str`: the sentence; "" if the text has no more than space, "<|eos|>" and "#unsure".
    """
    text = _END_OF_TEXT.sub("", narration_text.strip()).strip()
    text = _UNSURE_AT_END.sub("", text).strip()
    text = _UNSURE.sub("something", text)
    if _SUBJECT_MARK.match(text):
        text = _SUBJECT_MARK.sub(SUBJECT, text, count=1)
    else:
        text = re.sub(r"\A" + _CAMERA_MARK.pattern, "", text, flags=re.IGNORECASE)
    if text and text[-1] not in string.punctuation:
        text += "."
    return text


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_IRREGULAR = {"be": "is", "do": "does", "go": "goes", "have": "has"}
_VOWELS = frozenset("aeiou")

# Where one of these stands, a noun phrase begins behind it: prepositions, and particles of verbs ("put down knife").
_OPENERS = _words(
    "about above across against along among apart around aside at away back before behind below beneath beside "
    "between by down for from in inside into near next of off on onto open out outside over past through to together "
    "toward towards under underneath up upon using via with within without"
)
# A noun phrase that begins with one of these needs no article.
_DETERMINERS = _words(
    "a all an another any anything both each everything few half her hers herself him himself his it its itself many "
    "more most much my no nothing one other's several some something that the their them themselves these they this "
    "those you your two three four five six seven eight nine ten"
)
_ADVERBS = _words("again almost also already further more now still then there too twice once well")
# "continue washing pan": what follows these stays as it is, and its object comes next.
_ASPECT_VERBS = _words("begin continue end finish keep resume start stop try")
_LEADING_WORDS = _words("and now then to")
_DANGLING_WORDS = _words("a an and of or the")
# "cut into small pieces": what a thing becomes has no article.
_PARTS = _words("bits chunks cubes half halves parts pieces quarters slices squares strips")
# "ball of dough", but "lid of the pot".
_MEASURES = _words(
    "ball bag bar bit block bottle bowl box bunch can carton clove cup cube drop fillet glass handful head jar jug "
    "kind layer leaf leaves loaf lot lump mixture mug pack package packet pair piece pile pinch plate portion pot "
    "rest sheet slice spoon spoonful sprig stack stick strip tablespoon teaspoon tin tub type"
)


def third_person(verb: str) -> str:
    """The form of a verb that goes with "the camera wearer": "put" becomes "puts", "wash" "washes", "dry" "dries"."""
    lower = verb.lower()
    if lower in _IRREGULAR:
        return _IRREGULAR[lower]
    if lower.endswith(("s", "sh", "ch", "x", "z", "o")):
        return verb + "es"
    if lower.endswith("y") and lower[-2:-1] not in _VOWELS:
        return verb[:-1] + "ies"
    return verb + "s"


def _is_gerund_of(word: str, verb: str) -> bool:
    stems = {verb, verb + verb[-1:], verb[:-1] if verb.endswith("e") else verb}
    return any(word == stem + "ing" for stem in stems)


def phrase_of_noun(noun: str) -> str:
    """EPIC-KITCHENS' noun as it is said: "board:chopping" becomes "chopping board"."""
    head, *modifiers = noun.split(":")
    return " ".join([*modifiers, head])


def phrases_of_label(label: str) -> list[str]:
    """What a label calls its class: "take_(pick,_grab)" is "take", "pick" and "grab"; "put-down" is "put down";
    "board:chopping" is "chopping board"."""
    parts = re.split(r"[(),]", str(label).lower().replace("_", " ").replace("-", " "))
    return [" ".join(phrase_of_noun(part.strip()).split()) for part in parts if part.strip()]


def phrase_to_sentence(
    phrase: str, *, verb: str = "", nouns: Sequence[str] = (), known_verbs: Collection[str] = ()
) -> str:
    """A narration of EPIC-KITCHENS as a sentence: "put down knife in drawer" becomes "The camera wearer puts down the
    knife in the drawer."

    By rule: the verb in the third person, "the" before each noun phrase that has no article. A phrase that does not
    begin with a verb ("tap on") is made anew from its labels.

    Args:
        phrase (`str`): the narration.
        verb (`str`): the annotated verb, such as "put-down"; tells verbs from nouns ("spoon rice", "spoon fell").
        nouns (`Sequence[str]`): the annotated nouns, such as "board:chopping".
        known_verbs (`Collection[str]`): other words that may be verbs, for phrases with several or another.

    Returns:
        `str`: the sentence, or "" if there is nothing to make one of.
    """
    words = phrase.split()
    while len(words) > 1 and words[0].lower() in _LEADING_WORDS:
        words = words[1:]
    if words:
        words[-1] = words[-1].rstrip(".,;:!?")
    words = [word for word in words if word]
    while len(words) > 1 and words[-1].lower() in _DANGLING_WORDS:
        words = words[:-1]
    label = [part for part in verb.lower().split("-") if part]
    head = label[0] if label else ""
    nouns_here = {part for noun in nouns for part in noun.lower().split(":")}
    verbs = ({*_ASPECT_VERBS, *known_verbs} - nouns_here) | {head}
    predicate = _begin(words, head, verbs) if words else None
    if predicate is None:
        if not head:
            return ""
        said, rest = [third_person(head), *label[1:]], phrase_of_noun(nouns[0]).split() if nouns else []
    else:
        said, rest = predicate
    return " ".join([SUBJECT, *said, *_with_articles(rest, verbs - nouns_here, nouns)]) + "."


def _begin(words: list[str], head: str, verbs: Collection[str]) -> tuple[list[str], list[str]] | None:
    """What a phrase's first words become, and the words behind them; None if it begins with no verb."""
    first = words[0].lower()
    if first == "still" and len(words) > 1:
        second = words[1].lower()
        if second.endswith("ing"):
            return ["is", "still", second], words[2:]
        return (["still", third_person(second)], words[2:]) if second in verbs else None
    if first in _ASPECT_VERBS and len(words) > 1 and words[1].lower().endswith("ing"):
        return [third_person(first), words[1].lower()], words[2:]
    if first in verbs:
        return [third_person(first)], words[1:]
    gerund_of = next((known for known in (head, *sorted(verbs)) if known and _is_gerund_of(first, known)), None)
    return ([third_person(gerund_of)], words[1:]) if gerund_of else None


def _with_articles(words: list[str], verbs: Collection[str], nouns: Sequence[str]) -> list[str]:
    """`words`, which follow a verb, with "the" where a noun phrase begins without one."""
    compounds = [set(noun.lower().split(":")) for noun in nouns if ":" in noun]
    said, due, index = [], True, 0
    while index < len(words):
        word = words[index].lower()
        following = words[index + 1].lower() if index + 1 < len(words) else ""
        compound = next((c for c in compounds if {w.lower() for w in words[index : index + len(c)]} == c), None)
        if compound and len(words) - index >= len(compound):
            said += ["the"] * due + words[index : index + len(compound)]
            due, index = False, index + len(compound)
            continue
        if word in ("and", "to") and following in verbs:
            said += [word, third_person(following) if word == "and" else following]
            due, index = True, index + 2
            continue
        if word == "of":
            due = not said or not {said[-1].lower(), said[-1].lower().removesuffix("s")} & _MEASURES
            said.append(word)
        elif word == "into" or (word in ("top", "front") and following == "of" and said[-1:] in (["on"], ["in"])):
            said.append(word)
            due = word == "into" and not _PARTS & {later.lower() for later in words[index + 1 : index + 4]}
        elif word in _OPENERS and following != "of" or word in ("out", "off"):
            said.append(word)
            due = True
        elif word in _DETERMINERS or word in _ADVERBS or word.endswith("ly") or word == "and":
            said.append(words[index])
            due = due and word not in _DETERMINERS and word != "and"
        else:
            said += ["the"] * due + [words[index]]
            due = False
        index += 1
    return said
