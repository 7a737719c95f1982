"""What the paper finds, and whether the small models show it: a sentence each, made of the numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers_eilev.evaluation.records import Cell, summarize

from .replication import CONTROL, EILEV, ablated


# Of shares: what is less than this apart counts as alike.
ALIKE = 0.05


@dataclass(frozen=True, kw_only=True)
class Point:
    """A number: of whom, of which set, under which condition, after how many clips."""

    model: str = EILEV
    dataset: str
    condition: str = "in_context"
    shots: int


@dataclass(frozen=True, kw_only=True)
class Claim:
    """
    What is found.

    Attributes:
        text (`str`): in words.
        paper (`str`): the paper's figures for it; "" if it has none.
        more, less (`Point`): the former's number shall be larger; or, if `is_alike`, both shall be alike.
    """

    text: str
    paper: str
    more: Point
    less: Point
    is_alike: bool = False


def make_claims(shots: int) -> list[Claim]:
    """
    The paper's findings, and what its own tables leave open.

    Args:
        shots (`int`): many.
    """
    held_out, novel, words = ({"dataset": name, "shots": shots} for name in ("held-out", "novel", "novel-words"))
    claims = [
        Claim(
            text="Narrated clips in the prompt help with rare actions",
            paper="STS-BE .328 without, .694 after 16",
            more=Point(**held_out),
            less=Point(dataset="held-out", shots=0),
        ),
        Claim(
            text="A model that was trained without context does not learn from one",
            paper=".531 without, .548 after 16",
            more=Point(model=CONTROL, **held_out),
            less=Point(model=CONTROL, dataset="held-out", shots=0),
            is_alike=True,
        ),
        Claim(
            text="In context, EILEV is better on rare actions than the same network trained without context",
            paper=".694 against .548 after 16",
            more=Point(**held_out),
            less=Point(model=CONTROL, **held_out),
        ),
        Claim(
            text="Without examples, EILEV is worse than the network trained without context",
            paper=".328 against .531",
            more=Point(model=CONTROL, dataset="held-out", shots=0),
            less=Point(dataset="held-out", shots=0),
        ),
        Claim(
            text="What was learned on one data set carries over to another",
            paper="EPIC-KITCHENS-100: .361 without, .870 after 16",
            more=Point(**novel),
            less=Point(dataset="novel", shots=0),
        ),
        Claim(
            text="Examples that share verb or noun help more than random ones",
            paper="",
            more=Point(**novel),
            less=Point(condition="random", **novel),
        ),
        Claim(
            text="With the clips exchanged among the narrations it is as good",
            paper=".688 against .694 after 16",
            more=Point(**novel),
            less=Point(condition="shuffled", **novel),
            is_alike=True,
        ),
        Claim(
            text="So it is where words alone don't tell the answer",
            paper="",
            more=Point(**words),
            less=Point(condition="shuffled", **words),
            is_alike=True,
        ),
        Claim(
            text="Narrations without their clips do not do",
            paper="",
            more=Point(**words),
            less=Point(condition="text_only", **words),
        ),
        Claim(
            text="Nor does the context without the clip that is asked about",
            paper="",
            more=Point(**words),
            less=Point(condition="no_query_clip", **words),
        ),
    ]
    findings = {
        "random": ("Training on random contexts, it learns less from a context", ".533 against .694 after 16"),
        "fixed_words": ("So it does if words always mean the same", "canonical verbs and nouns: .647 against .694"),
        "common": ("So it does if it is trained on common actions alone", ""),
        "shuffled": ("So it does if the clips are exchanged in training", ""),
    }
    for name, (text, paper) in findings.items():
        claims.append(Claim(text=text, paper=paper, more=Point(**words), less=Point(model=ablated(name), **words)))
    return claims


def judge_claims(records: Sequence[Mapping[str, Any]], shots: int, *, metric: str = "exact") -> str:
    """
    A Markdown list: of each finding whether it holds here, with the paper's figures and these.

    Args:
        records (`Sequence[Mapping]`): of all runs.
        shots (`int`): many.
        metric (`str`): by which.

    Findings about models that were not asked are left out.
    """
    cells = {
        Point(model=cell.model, dataset=cell.dataset, condition=cell.condition, shots=cell.shots): cell
        for cell in summarize(records, metric)
    }
    lines = []
    for claim in make_claims(shots):
        more, less = cells.get(claim.more), cells.get(claim.less)
        if more is None or less is None:
            continue
        paper = f" (paper: {claim.paper})" if claim.paper else ""
        lines.append(f"- {claim.text}{paper}: **{_verdict(claim, more, less)}**, {_compare(claim, more, less)}.\n")
    return "".join(lines)


def _verdict(claim: Claim, more: Cell, less: Cell) -> str:
    difference = more.mean - less.mean
    if claim.is_alike:
        return "holds" if abs(difference) < ALIKE else "does not hold"
    # By more than what counts as alike, and than seeds make of it.
    if difference >= ALIKE and more.min > less.max:
        return "holds"
    return "does not hold"


def _compare(claim: Claim, more: Cell, less: Cell) -> str:
    if (claim.more.model, claim.more.condition) == (claim.less.model, claim.less.condition):
        return f"{less.mean:.2f} after {less.shots}, {more.mean:.2f} after {more.shots} ({more.dataset})"
    return f"{more.mean:.2f} against {less.mean:.2f} after {more.shots} ({more.dataset})"


__all__ = ["Claim", "Point", "judge_claims", "make_claims"]
