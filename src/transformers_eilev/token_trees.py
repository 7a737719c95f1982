"""Many continuations of one text as trees of tokens: what they begin with alike is read once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TokenTree:
    """
    Tokens to read in one forward pass, each of which sees itself and those before it on its way from the text's end;
    and the tokens that are told after them.

    Attributes:
        tokens (`torch.LongTensor` of shape `(rows, num_tokens)`): to read, of one row for all texts, or one for each.
        depths (`torch.LongTensor` of shape `(num_tokens,)`): how many tokens of the tree stand before each.
        sees (`torch.BoolTensor` of shape `(num_tokens, num_tokens)`): whether the first index sees the second.
        told_after (`torch.LongTensor` of shape `(num_told,)`): after which of the tokens, in ascending order; -1 is
            the end of the text itself.
        told (`torch.LongTensor` of shape `(rows, num_told)`): tokens whose likelihood is asked for.
        paths (`torch.LongTensor` of shape `(2, any)`): pairs of a continuation and a place in `told`, which together
            make up each continuation.
        continuations (`list[int]`): which ones the tree holds; `paths` counts within them.
    """

    tokens: torch.LongTensor
    depths: torch.LongTensor
    sees: torch.BoolTensor
    told_after: torch.LongTensor
    told: torch.LongTensor
    paths: torch.LongTensor
    continuations: list[int]

    def to(self, device) -> "TokenTree":
        """The same on another device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if torch.is_tensor(value)}
        return TokenTree(**moved, continuations=self.continuations)


def build_trees(
    continuations: Sequence[Sequence[int]], *, given: Sequence[int] = (), size: int
) -> Iterator[TokenTree]:
    """
    Trees of so many continuations each: neighbours in alphabetical order, which share most.

    Args:
        continuations (`Sequence[Sequence[int]]`): their tokens, at least one each.
        given (`Sequence[int]`, *optional*): tokens that stand before all of them, and are not asked for.
        size (`int`): continuations in a tree.
    """
    order = sorted(range(len(continuations)), key=lambda index: tuple(continuations[index]))
    for start in range(0, len(order), size):
        yield _build_tree(continuations, order[start : start + size], list(given))


def _build_tree(continuations, chosen: list[int], given: list[int]) -> TokenTree:
    places = {(): -1}  # of the texts that are read, by their tokens
    tokens, parents = [], []

    def place_of(text: tuple[int, ...]) -> int:
        if text not in places:
            parent = place_of(text[:-1])
            places[text] = len(tokens)
            tokens.append(text[-1])
            parents.append(parent)
        return places[text]

    for end in range(len(given)):
        place_of(tuple(given[: end + 1]))
    told: dict[tuple[int, int], list[int]] = {}  # (after which, what) -> continuations, with repeats for none
    for number, index in enumerate(chosen):
        text = (*given, *continuations[index])
        for end in range(len(given), len(text)):
            told.setdefault((place_of(text[:end]), text[end]), []).append(number)
    edges = sorted(told)
    sees = torch.eye(len(tokens), dtype=torch.bool)
    depths = []
    for place, parent in enumerate(parents):
        depths.append(0 if parent < 0 else depths[parent] + 1)
        if parent >= 0:
            sees[place] |= sees[parent]
    return TokenTree(
        tokens=torch.tensor([tokens], dtype=torch.long),
        depths=torch.tensor(depths, dtype=torch.long),
        sees=sees,
        told_after=torch.tensor([place for place, _ in edges], dtype=torch.long),
        told=torch.tensor([[token for _, token in edges]], dtype=torch.long),
        paths=torch.tensor([(number, e) for e, edge in enumerate(edges) for number in told[edge]]).T,
        continuations=chosen,
    )


def chains(continuations: torch.LongTensor, *, given: Sequence[int] = ()) -> TokenTree:
    """
    One continuation for each text, as a tree without branches.

    Args:
        continuations (`torch.LongTensor` of shape `(rows, length)`): any token where a row is shorter.
        given (`Sequence[int]`, *optional*): as in [`build_trees`].
    """
    rows, length = continuations.shape
    before = torch.tensor([list(given)], dtype=torch.long, device=continuations.device).expand(rows, -1)
    tokens = torch.cat([before, continuations[:, :-1]], dim=1)
    places = torch.arange(tokens.shape[1], device=tokens.device)
    told_after = torch.arange(length, device=tokens.device) + len(given) - 1
    return TokenTree(
        tokens=tokens,
        depths=places,
        sees=places.unsqueeze(1) >= places,
        told_after=told_after,
        told=continuations,
        paths=torch.empty(2, 0, dtype=torch.long),
        continuations=[],
    )


__all__ = ["TokenTree", "build_trees", "chains"]
