"""
Twenty clips whose metrics can be worked out on paper.

`ROWS` has, for each clip: prediction, reference, length of the longest common subsequence, words of the prediction
and of the reference (for ROUGE-L, without case and punctuation), n-grams of the prediction that the reference has, and
all of its n-grams, for n from 1 to 4 (for BLEU, with case, the full stop by itself), whether verb and noun are right.
"""

from fractions import Fraction


ROWS = [
    # To the letter.
    ("The camera wearer washes the cup.", "The camera wearer washes the cup.",
        (6, 6, 6), (7, 6, 5, 4), (7, 6, 5, 4), (1, 1)),
    ("The camera wearer opens the drawer.", "The camera wearer opens the drawer.",
        (6, 6, 6), (7, 6, 5, 4), (7, 6, 5, 4), (1, 1)),
    ("The camera wearer cuts the bread.", "The camera wearer cuts the bread.",
        (6, 6, 6), (7, 6, 5, 4), (7, 6, 5, 4), (1, 1)),
    ("The camera wearer washes the plate.", "The camera wearer washes the plate.",
        (6, 6, 6), (7, 6, 5, 4), (7, 6, 5, 4), (1, 1)),
    ("The camera wearer picks up the knife.", "The camera wearer picks up the knife.",
        (7, 7, 7), (8, 7, 6, 5), (8, 7, 6, 5), (1, 1)),
    (" The camera wearer washes the cup.\n", "The camera wearer washes the cup.",
        (6, 6, 6), (7, 6, 5, 4), (7, 6, 5, 4), (1, 1)),
    ("The camera wearer opens the fridge.", "The camera wearer opens the fridge.",
        (6, 6, 6), (7, 6, 5, 4), (7, 6, 5, 4), (1, 1)),
    # Without the full stop.
    ("The camera wearer cuts the bread", "The camera wearer cuts the bread.",
        (6, 6, 6), (6, 5, 4, 3), (6, 5, 4, 3), (1, 1)),
    # "the" twice, of which the reference has one; no n-gram that begins with the first.
    ("the camera wearer washes the cup.", "The camera wearer washes the cup.",
        (6, 6, 6), (6, 5, 4, 3), (7, 6, 5, 4), (0, 0)),
    # Another noun: lost are "plate"; "the plate", "plate ."; all but the first 3 and 2 longer ones.
    ("The camera wearer washes the plate.", "The camera wearer washes the cup.",
        (5, 6, 6), (6, 4, 3, 2), (7, 6, 5, 4), (1, 0)),
    # Another verb: "The camera wearer" and "the drawer ." are left.
    ("The camera wearer opens the drawer.", "The camera wearer closes the drawer.",
        (5, 6, 6), (6, 4, 2, 0), (7, 6, 5, 4), (0, 1)),
    # Both: "The camera wearer", "the" and "." are left.
    ("The camera wearer cuts the bread.", "The camera wearer opens the fridge.",
        (4, 6, 6), (5, 2, 1, 0), (7, 6, 5, 4), (0, 0)),
    # A verb of two words.
    ("The camera wearer picks up the knife.", "The camera wearer washes the knife.",
        (5, 7, 6), (6, 4, 2, 0), (8, 7, 6, 5), (0, 1)),
    # A word more: "The camera wearer opens the" and "drawer ." are left.
    ("The camera wearer opens the top drawer.", "The camera wearer opens the drawer.",
        (6, 7, 6), (7, 5, 3, 2), (8, 7, 6, 5), (1, 0)),
    # The same words: in order are "the camera wearer"; of two, "washes the" and "camera wearer".
    ("The cup washes the camera wearer.", "The camera wearer washes the cup.",
        (3, 6, 6), (7, 2, 0, 0), (7, 6, 5, 4), (0, 0)),
    # "Washes" with another letter for BLEU: "cup", "." and "cup ." are left.
    ("Washes cup.", "The camera wearer washes the cup.",
        (2, 2, 6), (2, 1, 0, 0), (3, 2, 1, 0), (0, 0)),
    # Nothing but the full stop.
    ("A dog runs.", "The camera wearer cuts the bread.",
        (0, 3, 6), (1, 0, 0, 0), (4, 3, 2, 1), (0, 0)),
    # "The", "the" and "." once each.
    ("The the the the.", "The camera wearer washes the plate.",
        (2, 4, 6), (3, 0, 0, 0), (5, 4, 3, 2), (0, 0)),
    # Empty.
    ("", "The camera wearer opens the drawer.",
        (0, 0, 6), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0)),
    (" \n", "The camera wearer washes the cup.",
        (0, 0, 6), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0)),
]  # fmt: skip
PREDICTIONS, REFERENCES = ([row[place] for row in ROWS] for place in (0, 1))

EXACT = Fraction(7, 20)
VERB, NOUN = Fraction(10, 20), Fraction(10, 20)
NUM_EMPTY, NUM_UNPARSABLE = 2, 5

# F1 = 2 LCS / (words of both): 12 / 12 nine times (once 14 / 14), 10 / 12, 10 / 12, 8 / 12, 10 / 13, 12 / 13, 6 / 12,
# 4 / 8, 0 / 9, 4 / 10, and 0 of what is empty.
ROUGE_L = [*[Fraction(1)] * 9, *map(Fraction, ["5/6", "5/6", "2/3", "10/13", "12/13", "1/2"])]
ROUGE_L += map(Fraction, ["1/2", "0", "2/5", "0", "0"])
ROUGE_L_MEAN = Fraction(
    9 * 390 + 325 + 325 + 260 + 300 + 360 + 195 + 195 + 0 + 156,  # 390 = 2 * 3 * 5 * 13
    20 * 390,
)

# Sums over the rows: 6 * 7 + 8 + 6 + 6 + 6 + 6 + 5 + 6 + 7 + 7 + 2 + 1 + 3 = 105 words that are right, and so on.
BLEU_HITS, BLEU_TOTALS = (105, 75, 55, 39), (119, 101, 83, 65)
# Nineteen references of 7 words with the full stop, one of 8.
BLEU_PREDICTED_LENGTH, BLEU_REFERENCE_LENGTH = 119, 141

# Classes A to E, in the order in which each query's scores rank them, and the right one. E is never first nor right.
RANKED = [
    *[("ABCDE", "A")] * 5,
    *[("BACDE", "A")] * 2,
    ("CBADE", "A"),
    *[("BACDE", "B")] * 3,
    *[("ABCDE", "B")] * 2,
    ("ACDEB", "B"),
    *[("CABDE", "C")] * 2,
    ("ACBDE", "C"),
    ("BADCE", "C"),
    ("ADBCE", "D"),
    ("BACED", "D"),
]
LABELS = ["ABCDE".index(label) for _, label in RANKED]
# The first of five classes gets 5, the last 1.
SCORES = [[5 - order.index(name) for name in "ABCDE"] for order, _ in RANKED]

# 2 * right / (times right + times predicted): A is right 8 times and first 10 times, 5 times both.
#    A: 2 * 5 / (8 + 10)   B: 2 * 3 / (6 + 7)   C: 2 * 2 / (4 + 3)   D: 0 / (2 + 0)   E: does not occur
F1 = {"A": Fraction(10, 18), "B": Fraction(6, 13), "C": Fraction(4, 7), "D": Fraction(0)}
# (455 + 378 + 468) / 819 / 4
MACRO_F1 = Fraction(1301, 4 * 819)
# First: 5 + 3 + 2; second: 2 + 2 + 1 + 1 more; third: 1; fourth: 1; fifth: the last 2.
TOP_K = {k: Fraction(right, 20) for k, right in ((1, 10), (2, 16), (3, 17), (4, 18), (5, 20))}
