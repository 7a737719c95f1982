"""What the synthetic set is to be like."""

import math
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from typing import Any


LAYOUTS = ("ego4d", "epic_kitchens")
CODECS = ("h264", "vp9")
VIDEO_FOLDERS = ("full_scale", "video_540ss")
# Places on a table where something that nobody touches may stand.
DISTRACTOR_SPOTS = 8


@dataclass(frozen=True)
class SyntheticConfig:
    """Options of the synthetic set. The same options give the same annotations, byte for byte, and the same frames.

    By default the set is as varied and as untidy as the real ones; `for_small_models` has less to learn.

    Raises:
        TypeError, ValueError: a field that is not such a value, by name.
    """

    hours: float = field(
        default=1.0, metadata={"help": "Hours of video on disk; videos missing on purpose are extra."}
    )
    seed: int = field(default=0, metadata={"help": "Everything random derives from it."})
    first_video: int = field(
        default=0,
        metadata={
            "help": "Number of the first video. Of one seed all videos are of one world, so that a set that begins "
            "behind another's last video is of the same things, and has no video of it."
        },
    )
    layout: str = field(default="ego4d", metadata={"help": f"Folder layout and schema, one of {', '.join(LAYOUTS)}."})
    image_size: int = field(default=224, metadata={"help": "Width and height of the videos in pixels, even."})
    fps: int = field(default=10, metadata={"help": "Frames per second."})
    codec: str = field(default="h264", metadata={"help": f"One of {', '.join(CODECS)}; Ego4D's own is vp9, slower."})
    video_sec: float = field(default=240.0, metadata={"help": "Length of a video in seconds."})
    action_sec: float = field(default=5.8, metadata={"help": "Mean time from one action to the next in seconds."})
    video_folder: str = field(
        default="full_scale", metadata={"help": f"Ego4D's folder of videos, one of {', '.join(VIDEO_FOLDERS)}."}
    )
    missing_share: float = field(
        default=0.05, metadata={"help": "Videos that are annotated and not on disk, per video on disk."}
    )
    redacted_share: float = field(default=0.03, metadata={"help": "Share of the time that is blank."})
    quirk_share: float = field(
        default=0.15, metadata={"help": "Share of actions that are rejected, invalid or narrate somebody else."}
    )
    unlabelled_share: float = field(
        default=0.06,
        metadata={
            "help": 'Share of valid actions that lack a label: a third have the verb "[other]", a sixth no verb, '
            "half no noun. Half as many again have no critical frames, whence readers take the noun."
        },
    )
    verbs: tuple[str, ...] | None = field(
        default=None,
        metadata={
            "help": "Names of the verbs to use, such as ORDER_FREE_VERBS, in any order; all of them if None. "
            "Those made up are extra."
        },
    )
    verb_skew: float = field(default=0.8, metadata={"help": "Zipf exponent of the verbs; 0 draws them alike."})
    noun_skew: float = field(default=0.8, metadata={"help": "Zipf exponent of the nouns; 0 draws them alike."})
    plausible: bool = field(
        default=True, metadata={"help": "Only do to things what is done to them: no bread is poured."}
    )
    rare_pairs: int = field(default=12, metadata={"help": "Number of (verb, noun) pairs made rare."})
    rare_pair_weight: float = field(default=0.03, metadata={"help": "By what factor the rare pairs are rarer."})
    synonyms: float = field(
        default=0.4, metadata={"help": "Probability that a video calls a motion or an object by another of its words."}
    )
    homonyms: float = field(
        default=0.0,
        metadata={"help": "Share of videos in which some words have swapped their meanings; labels keep theirs."},
    )
    colour_share: float = field(default=0.2, metadata={"help": "Share of narrations that say the object's colour."})
    hand_share: float = field(default=0.2, metadata={"help": "Share of narrations that say which hand does it."})
    place_share: float = field(
        default=0.15, metadata={"help": "Share of narrations that say where it is done; none says hand and place."}
    )
    habit_share: float = field(
        default=1.0,
        metadata={
            "help": 'Share of narrations written as annotators do: articles other than "the", marks such as #unsure, '
            'odd openings, spaces and stops at the end. The others are "#C C <verb>s the <noun>", with colour, hand '
            "and place by their own shares."
        },
    )
    made_up_verbs: int = field(default=0, metadata={"help": "Number of motions of no name, with words made up."})
    made_up_nouns: int = field(default=0, metadata={"help": "Number of objects of no name, with words made up."})
    looks_per_noun: int = field(default=4, metadata={"help": "In how many colours and patterns a noun comes."})
    num_distractors: tuple[int, int] = field(
        default=(3, 6),
        metadata={
            "help": f"Fewest and most other things on each table, up to {DISTRACTOR_SPOTS}; what nobody touches."
        },
    )
    zoom: float = field(
        default=1.0,
        metadata={
            "help": "How much closer than usual the camera looks at hands and object, from 1 to 3. What is shown is "
            "drawn larger, not blown up. Boxes of hands, objects and tools follow."
        },
    )

    @classmethod
    def for_small_models(cls, **options: Any) -> "SyntheticConfig":
        """
        Of a set for a small model, or for one that sees frames without their order: `ORDER_FREE_VERBS`, one word for
        each thing and every valid narration "#C C <verb>s the <noun>", no gaps, few other things, a near camera.

        Args:
            options (`Any`): whatever else there is, or shall be otherwise.

        Example:

        ```python
        >>> SyntheticConfig.for_small_models(hours=2.0, image_size=64)
        ```
        """
        from .world import ORDER_FREE_VERBS

        plain = {"verbs": ORDER_FREE_VERBS, "rare_pairs": 0, "num_distractors": (0, 2), "zoom": 1.6}
        return cls(**{**plain, **dict.fromkeys(_UNTIDY_SHARES, 0.0), **options})

    def __post_init__(self):
        for name in (*_COUNTS, "image_size", "fps", "looks_per_noun"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise TypeError(f"{name} must be an integer, got {value!r}")
        for name in (*_NUMBERS, *_SHARES):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"{name} must be a number, got {value!r}")
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} must be finite and not negative, got {value!r}")
        if not isinstance(self.plausible, bool):
            raise TypeError(f"plausible must be True or False, got {self.plausible!r}")
        self._check_choices()
        self._check_ranges()
        self._check_distractors()
        if self.verbs is not None:
            self._check_verbs()

    def _check_choices(self):
        for name, choices in (("layout", LAYOUTS), ("codec", CODECS), ("video_folder", VIDEO_FOLDERS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")

    def _check_ranges(self):
        for name in _SHARES:
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)!r}")
        for name in _COUNTS:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)!r}")
        if self.redacted_share > 0.5:
            raise ValueError(f"redacted_share must be at most 0.5, got {self.redacted_share!r}")
        if self.rare_pair_weight > 1:
            raise ValueError(f"rare_pair_weight must be at most 1, got {self.rare_pair_weight!r}")
        if self.image_size % 2 or not 32 <= self.image_size <= 2048:
            raise ValueError(f"image_size must be even and from 32 to 2048, got {self.image_size!r}")
        if not 2 <= self.fps <= 60:
            raise ValueError(f"fps must be from 2 to 60, got {self.fps!r}")
        if not 1 <= self.looks_per_noun <= 16:
            raise ValueError(f"looks_per_noun must be from 1 to 16, got {self.looks_per_noun!r}")
        if not 2 <= self.action_sec <= 60:
            raise ValueError(f"action_sec must be from 2 to 60, got {self.action_sec!r}")
        if self.video_sec < 2 * self.action_sec:
            raise ValueError(
                f"video_sec must be at least twice action_sec={self.action_sec!r}, got {self.video_sec!r}"
            )
        if self.hours <= 0:
            raise ValueError(f"hours must be positive, got {self.hours!r}")
        if self.hand_share + self.place_share > 1:
            raise ValueError(
                f"place_share must be at most 1 with hand_share={self.hand_share!r} added, got {self.place_share!r}"
            )
        if not 1 <= self.zoom <= 3:
            raise ValueError(f"zoom must be from 1 to 3, got {self.zoom!r}")

    def _check_distractors(self):
        value = self.num_distractors
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise TypeError(f"num_distractors must be a pair (fewest, most), got {value!r}")
        if any(isinstance(count, bool) or not isinstance(count, Integral) for count in value):
            raise TypeError(f"num_distractors must be a pair of integers, got {value!r}")
        if not 0 <= value[0] <= value[1] <= DISTRACTOR_SPOTS:
            raise ValueError(
                f"num_distractors must be (fewest, most) with 0 <= fewest <= most <= {DISTRACTOR_SPOTS}, got {value!r}"
            )
        object.__setattr__(self, "num_distractors", tuple(int(count) for count in value))

    def _check_verbs(self):
        from .world import VERBS

        value, names = self.verbs, [verb.name for verb in VERBS]
        if not isinstance(value, (tuple, list)) or not all(isinstance(name, str) for name in value):
            raise TypeError(f"verbs must be a tuple of names or None, got {value!r}")
        if unknown := [name for name in value if name not in names]:
            raise ValueError(f"verbs must be among {', '.join(names)}, got {', '.join(map(repr, unknown))}")
        if not value or len(set(value)) != len(value):
            raise ValueError(f"verbs must be at least one name, and each of them once, got {value!r}")
        # In the order of the world, so that the same verbs in another order are the same options.
        object.__setattr__(self, "verbs", tuple(name for name in names if name in value))

    @property
    def num_videos(self) -> int:
        """Videos on disk."""
        return max(1, round(self.hours * 3600 / self.video_sec))

    @property
    def num_missing(self) -> int:
        """Videos that are annotated and not on disk."""
        return math.ceil(self.num_videos * self.missing_share)

    @property
    def num_frames(self) -> int:
        """Frames of one video."""
        return round(self.video_sec * self.fps)

    @property
    def duration_sec(self) -> float:
        """Length of one video."""
        return self.num_frames / self.fps

    @property
    def scale(self) -> int:
        """Pixels in which a length of 1 is drawn: the width of the view, if the camera looks no closer than usual."""
        return round(self.image_size * self.zoom)

    def to_dict(self) -> dict:
        """The options as JSON has them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


# What makes a set untidy.
_UNTIDY_SHARES = (
    *("synonyms", "colour_share", "hand_share", "place_share", "habit_share"),
    *("quirk_share", "unlabelled_share", "missing_share", "redacted_share"),
)
_COUNTS = ("seed", "first_video", "rare_pairs", "made_up_verbs", "made_up_nouns")
_NUMBERS = ("hours", "video_sec", "action_sec", "verb_skew", "noun_skew", "rare_pair_weight", "zoom")
_SHARES = (
    *("missing_share", "redacted_share", "quirk_share", "unlabelled_share", "synonyms", "homonyms"),
    *("colour_share", "hand_share", "place_share", "habit_share"),
)
