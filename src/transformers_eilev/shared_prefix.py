"""
Attention over keys and values that many rows of a batch share, without a copy of them for each row.

A prompt's beginning that many texts have in common (the demonstrations) is read once. Its keys and values stay as they
are, one row; what follows is each text's own. Attention over the two is one softmax over the scores of both, so that
the outcome is that of attention over a copy (the idea is Hydragen's, https://arxiv.org/abs/2402.05099). The same
serves the beams of an encoder-decoder language model, which share what their text's encoder said.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface, Cache, DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import sdpa_mask


# Of this very module: a copy of it, as remote code has one, registers its own.
ATTENTION = f"{__name__}.attend"
# Scores that are held at a time: 64 MiB in float32.
MAX_SCORES = 1 << 24


class SharedPrefixLayer(DynamicLayer):
    """
    One layer's keys and values: of a prefix, which are only referred to, and each row's own after them.

    Args:
        prefix_keys, prefix_values (`torch.Tensor` of shape `(prefixes, num_heads, prefix_length, head_dim)`): a batch
            has as many rows as there are prefixes, or a multiple: the first rows share the first prefix.
    """

    def __init__(self, prefix_keys: torch.Tensor, prefix_values: torch.Tensor):
        super().__init__()
        self.prefix_keys, self.prefix_values = prefix_keys, prefix_values

    @property
    def own_length(self) -> int:
        """Tokens after the prefix."""
        return super().get_seq_length()

    def get_seq_length(self) -> int:
        return self.prefix_keys.shape[-2] + self.own_length

    def crop(self, tokens_to_remove: int) -> None:
        if abs(tokens_to_remove) > self.own_length:
            raise ValueError(
                f"{abs(tokens_to_remove)} tokens can't be removed: the rows have {self.own_length} of their own, and "
                "the prefix is shared"
            )
        super().crop(tokens_to_remove)

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        # Beams stay with their text, and so with their prefix.
        if self.own_length:
            super().reorder_cache(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.own_length:
            super().batch_repeat_interleave(repeats)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        if len(self.prefix_keys) > 1:
            self.prefix_keys, self.prefix_values = self.prefix_keys[indices], self.prefix_values[indices]
        if self.own_length:
            super().batch_select_indices(indices)


class SharedPrefixCache(DynamicCache):
    """
    A cache whose rows share a beginning.

    Args:
        prefix (`Cache`): of the shared beginning, of one row or as many as there will be prefixes; not copied, and not
            changed.
    """

    def __init__(self, prefix: Cache):
        Cache.__init__(self, layers=[SharedPrefixLayer(layer.keys, layer.values) for layer in prefix.layers])

    @classmethod
    def without_prefix(cls, cache: Cache) -> "SharedPrefixCache":
        """A cache of which all is each row's own."""
        layers = [SharedPrefixLayer(layer.keys[:1, :, :0], layer.values[:1, :, :0]) for layer in cache.layers]
        return cls._of([_filled(layer, own.keys, own.values) for layer, own in zip(layers, cache.layers)])

    def fork(self) -> "SharedPrefixCache":
        """Another cache that goes on from here: nothing is copied, and what it gets is its own."""
        layers = []
        for layer in self.layers:
            forked = SharedPrefixLayer(layer.prefix_keys, layer.prefix_values)
            layers.append(_filled(forked, layer.keys, layer.values) if layer.own_length else forked)
        return self._of(layers)

    def as_prefix(self) -> "SharedPrefixCache":
        """A cache that goes on from here, and for which all that there is is prefix. Copied if there are two parts."""
        layers = []
        for layer in self.layers:
            parts = [(layer.prefix_keys, layer.prefix_values)] if layer.prefix_keys.shape[-2] else []
            parts += [(layer.keys, layer.values)] if layer.own_length else []
            rows = max(len(keys) for keys, _ in parts)
            parts = [[_repeat(part, rows) for part in pair] for pair in parts]
            joined = parts[0] if len(parts) == 1 else [torch.cat(pair, dim=-2) for pair in zip(*parts)]
            layers.append(SharedPrefixLayer(*joined))
        return self._of(layers)

    @property
    def has_prefix(self) -> bool:
        """Whether any token is shared."""
        return self.layers[0].prefix_keys.shape[-2] > 0

    @classmethod
    def _of(cls, layers: list[SharedPrefixLayer]) -> "SharedPrefixCache":
        cache = cls.__new__(cls)
        Cache.__init__(cache, layers=layers)
        return cache


def _filled(layer: DynamicLayer, keys: torch.Tensor, values: torch.Tensor) -> DynamicLayer:
    """A layer with own keys and values, referred to: caches grow by concatenation, which leaves them as they are."""
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer


class _SharedCrossLayer(DynamicLayer):
    """Keys and values of what the encoder said of each text, for all beams of the text."""

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Beams stay with their text."""


class SharedCrossAttentionCache(EncoderDecoderCache):
    """
    An encoder-decoder's cache whose rows share what their text's encoder said.

    Args:
        cross (`Cache`): of the attention to the encoder, a row for each text; not copied, and not changed.
    """

    def __init__(self, cross: Cache):
        shared = DynamicCache()
        Cache.__init__(
            shared, layers=[_filled(_SharedCrossLayer(), layer.keys, layer.values) for layer in cross.layers]
        )
        super().__init__(DynamicCache(), shared)


class AttentionTurns:
    """
    Which attention the decoder of a language model runs: its own or `attend`, where the cache is shared. That stands
    in its config, for all threads: those who want the one wait until none runs the other.
    """

    def __init__(self):
        self._condition = threading.Condition()
        self._is_shared, self._num_running = False, 0
        self._own: str | None = None

    def __reduce__(self):
        return AttentionTurns, ()  # of a copy of the model, nobody runs anything

    @contextmanager
    def take(self, language_model, past_key_values) -> Iterator[dict]:
        """
        Within, the language model may be run with this cache.

        Yields:
            `dict`: what to hand to the language model besides.
        """
        is_shared = isinstance(past_key_values, (SharedPrefixCache, SharedCrossAttentionCache))
        if torch.compiler.is_compiling() and not is_shared:
            yield {}
            return
        config = language_model.get_decoder().config
        with self._condition:
            self._condition.wait_for(lambda: not self._num_running or self._is_shared == is_shared)
            self._num_running += 1
            self._is_shared = is_shared
            if is_shared and self._num_running == 1:
                self._own = config._attn_implementation
                config._attn_implementation = ATTENTION
        try:
            yield {"shared_cache": past_key_values} if is_shared else {}
        finally:
            with self._condition:
                self._num_running -= 1
                if is_shared and not self._num_running:
                    config._attn_implementation = self._own
                self._condition.notify_all()


def attend(
    module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.BoolTensor | None,
    *,
    scaling: float | None = None,
    position_bias: torch.Tensor | None = None,
    shared_cache: Cache | None = None,
    tree_distances: torch.LongTensor | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """
    Attention as transformers' `AttentionInterface` has it, over shared and own keys and values.

    Args:
        query (`torch.Tensor` of shape `(batch_size, num_heads, query_length, head_dim)`).
        key, value (`torch.Tensor` of shape `(rows, num_heads, length, head_dim)`): each row's own; for fewer rows than
            `batch_size`, which is then a multiple, each of them serves the queries of several.
        attention_mask (`torch.BoolTensor`, *optional*): of a shape that can be expanded to `(batch_size, 1,
            query_length, prefix_length + length)`, False where nothing is to be seen.
        position_bias (`torch.Tensor`, *optional*): T5's, of shape `(1, num_heads, query_length, length)`.
        shared_cache (`SharedPrefixCache`, *optional*): whose prefix is attended to, before `key` and `value`.
        tree_distances (`torch.LongTensor` of shape `(query_length, length)`, *optional*): how many tokens lie between
            two, where that is not told by their places: T5's bias is then chosen by them.

    Returns:
        `torch.Tensor` of shape `(batch_size, query_length, num_heads, head_dim)`, and None.
    """
    if key.shape[1] != query.shape[1]:
        raise ValueError(
            f"Shared prefixes are for language models with as many keys as heads, but {type(module).__name__} has "
            f"{key.shape[1]} for {query.shape[1]} heads"
        )
    pairs = [(key, value)]
    if isinstance(shared_cache, SharedPrefixCache):
        layer = shared_cache.layers[module.layer_idx]
        if layer.prefix_keys.shape[-2]:
            pairs.insert(0, (layer.prefix_keys, layer.prefix_values))
    if tree_distances is not None and position_bias is not None and module.is_causal:
        # Its first column holds the bias of each distance.
        position_bias = position_bias[..., 0][..., tree_distances.clamp(min=0)]
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.shape[2] >= query.shape[3]:
        # The scores would be larger than a copy of the keys.
        return _attend_to_copy(query, pairs, attention_mask, position_bias, scaling).transpose(1, 2), None
    query = query * scaling
    length = sum(keys.shape[-2] for keys, _ in pairs)
    step = max(1, MAX_SCORES // (query.shape[0] * query.shape[1] * length))
    outputs = [
        _attend_block(query[:, :, rows], pairs, _rows_of(attention_mask, rows), _rows_of(position_bias, rows))
        for rows in (slice(start, start + step) for start in range(0, query.shape[2], step))
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _attend_to_copy(query, pairs, attention_mask, position_bias, scaling) -> torch.Tensor:
    """With PyTorch's kernels, for many queries: shape (batch_size, num_heads, query_length, head_dim)."""
    pairs = [[_repeat(part, len(query)) for part in pair] for pair in pairs]
    keys, values = pairs[0] if len(pairs) == 1 else (torch.cat(parts, dim=-2) for parts in zip(*pairs))
    mask = attention_mask
    if position_bias is not None:
        mask = position_bias.to(query.dtype)
        if attention_mask is not None:
            mask = mask.masked_fill(~attention_mask, torch.finfo(query.dtype).min)
    return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scaling)


def _repeat(states: torch.Tensor, batch_size: int) -> torch.Tensor:
    """(rows, ...) to (batch_size, ...)."""
    return states if len(states) == batch_size else states.repeat_interleave(batch_size // len(states), dim=0)


def _attend_block(query, pairs, attention_mask, position_bias) -> torch.Tensor:
    """For some of the queries: of shape (batch_size, num_heads, query_length, head_dim)."""
    scores = torch.cat([_scores(query, keys) for keys, _ in pairs], dim=-1)
    if position_bias is not None:
        scores = scores + position_bias
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    outputs = [
        _mix(part, values)
        for part, (_, values) in zip(weights.split([keys.shape[-2] for keys, _ in pairs], dim=-1), pairs)
    ]
    return sum(outputs[1:], outputs[0])


def _scores(query, keys) -> torch.Tensor:
    """(rows * n, heads, queries, dim) and (rows, heads, length, dim) to (rows * n, heads, queries, length)."""
    return _ungroup(_group(query, len(keys)) @ keys.mT, query.shape)


def _mix(weights, values) -> torch.Tensor:
    """(rows * n, heads, queries, length) and (rows, heads, length, dim) to (rows * n, heads, queries, dim)."""
    return _ungroup(_group(weights, len(values)) @ values, weights.shape)


def _group(states, num_rows: int) -> torch.Tensor:
    """(rows * n, heads, queries, dim) to (rows, heads, n * queries, dim)."""
    if len(states) == num_rows:
        return states
    return states.unflatten(0, (num_rows, -1)).transpose(1, 2).flatten(2, 3)


def _ungroup(states, shape) -> torch.Tensor:
    """The way back, to `shape[:3]`."""
    if len(states) == shape[0]:
        return states
    return states.unflatten(2, (-1, shape[2])).transpose(1, 2).flatten(0, 1)


def _rows_of(mask, rows: slice):
    """The part of a mask or bias that belongs to some of the queries; one for all stays as it is."""
    return mask if mask is None or mask.shape[-2] == 1 else mask[..., rows, :]


def _mask(*args, allow_is_causal_skip=True, **kwargs):
    """Without a mask `attend` would see all."""
    return sdpa_mask(*args, allow_is_causal_skip=False, **kwargs)


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, _mask)


__all__ = ["AttentionTurns", "SharedCrossAttentionCache", "SharedPrefixCache", "attend"]
