"""
Texts with clips that a model has read once, to go on from as often as one likes: generating, or telling how likely
each of many continuations is.
"""

from collections.abc import Sequence

import torch
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.blip_2.modeling_blip_2 import BaseModelOutputWithVisionQformerOutputs

from .shared_prefix import SharedCrossAttentionCache, SharedPrefixCache
from .token_trees import TokenTree, build_trees, chains


# Logits that are held at a time: 8 MiB in float32.
MAX_LOGITS = 1 << 21
# With these settings `generate` reads the whole of a text itself.
_READS_ITSELF = {"assistant_model", "cache_implementation", "past_key_values", "prefill_chunk_size", "use_cache"}


class ReadPrompts:
    """
    What [`~VideoBlip2ForConditionalGeneration.read_prompts`] returns: a batch of texts as the model has read them.

    Attributes:
        input_ids, attention_mask (`torch.LongTensor` of shape `(batch_size, sequence_length)`): of the texts, padded
            so that each ends in the last column.
        log_probs (`torch.FloatTensor` of shape `(batch_size, vocab_size)`): of the token after each text.
        features (`list[tuple[torch.Tensor, ...]]`): of each text's clips, in parts of shape `(num_videos,
            num_query_tokens, hidden_size)`.
    """

    # Tokens that a continuation begins with, and that nobody asks for.
    lead: tuple[int, ...] = ()

    def __init__(self, model, input_ids, attention_mask, log_probs, features):
        self.model = model
        self.input_ids, self.attention_mask = input_ids, attention_mask
        self.log_probs, self.features = log_probs, features

    def __len__(self) -> int:
        return len(self.input_ids)

    def select(self, rows: torch.LongTensor) -> "ReadPrompts":
        """Some of the texts, by their rows."""
        raise NotImplementedError

    def generate(self, **kwargs):
        """
        [`~VideoBlip2ForConditionalGeneration.generate`] after these texts, with its settings, and without reading them
        again. All beams of a text share what was read of it. Only for settings that need a cache of their own (a
        static one, none, drafts of an assistant, ...) are the texts read again, from their clips' features.

        Returns:
            What `generate` does of the texts themselves: a decoder-only model's tokens begin with `input_ids`.

        Raises:
            ValueError: if text and answer may be longer than the language model can read.
        """
        config = kwargs.get("generation_config") or self.model.generation_config
        check_length(self.model, self.input_ids.shape[1], kwargs.get("max_new_tokens", config.max_new_tokens) or 0)
        needs = config.cache_implementation is not None or config.use_cache is False
        if needs or any(kwargs.get(name) is not None for name in _READS_ITSELF):
            clips = as_inputs(torch.cat([part for parts in self.features for part in parts]))
            return self.model.generate(self.input_ids, attention_mask=self.attention_mask, **clips, **kwargs)
        return self._generate(**kwargs)

    def _generate(self, **kwargs):
        raise NotImplementedError

    def _hidden_states(self, tree: TokenTree) -> torch.Tensor:
        """Of each token of a tree, read after each text: (batch_size, num_tokens, hidden_size)."""
        raise NotImplementedError

    def _texts(self, rows: torch.LongTensor) -> tuple:
        features = [self.features[row] for row in rows.tolist()]
        return self.input_ids[rows], self.attention_mask[rows], self.log_probs[rows], features

    @torch.no_grad()
    def score(
        self,
        class_input_ids: torch.LongTensor,
        class_attention_mask: torch.LongTensor | None = None,
        *,
        given: Sequence[Sequence[int]] | None = None,
        class_batch_size: int | None = 256,
    ) -> torch.FloatTensor:
        """
        How likely each of many continuations of the texts is.

        What continuations begin with alike is read once, all of them see one copy of what was read of their text, and
        logits are computed of those tokens alone that another follows.

        Args:
            class_input_ids (`torch.LongTensor` of shape `(num_classes, class_length)`): padded on the right.
            class_attention_mask (`torch.LongTensor` of shape `(num_classes, class_length)`, *optional*): 0 for
                padding; by default where the padding token stands at the end.
            given (`Sequence[Sequence[int]]`, *optional*): for each text tokens that follow it before a continuation,
                such as the verb's when nouns are asked for; they don't count.
            class_batch_size (`int`, *optional*, defaults to 256): continuations at a time, which bounds the memory;
                all if `None`.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, num_classes)`: the mean log-likelihood of the tokens of each.

        Raises:
            ValueError: if a continuation has no token, or is padded on the left; if `given` is not of as many texts.
        """
        if class_batch_size is not None and class_batch_size < 1:
            raise ValueError(f"`class_batch_size` must be at least 1, but is {class_batch_size}")
        rows = _rows_of(class_input_ids, class_attention_mask, self.model.config.text_config)
        given = [()] * len(self) if given is None else [tuple(tokens) for tokens in given]
        if len(given) != len(self):
            raise ValueError(f"There are {len(self)} texts, but `given` has {len(given)}")
        check_length(self.model, self.input_ids.shape[1], max(map(len, rows)) + max(map(len, given)))
        if len(set(given)) == 1:
            return self._score(rows, given[0], class_batch_size or len(rows))
        scores = torch.empty(len(self), len(rows), device=self.input_ids.device)
        for tokens in dict.fromkeys(given):
            same = torch.tensor([i for i, other in enumerate(given) if other == tokens], device=scores.device)
            scores[same] = self.select(same)._score(rows, tokens, class_batch_size or len(rows))
        return scores

    def _score(self, rows: list[list[int]], given: tuple[int, ...], size: int) -> torch.Tensor:
        device = self.input_ids.device
        totals = torch.empty(len(self), len(rows), device=device)
        for tree in build_trees(rows, given=(*self.lead, *given), size=size):
            tree = tree.to(device)
            told = self._tell(tree)
            sums = told.new_zeros(len(self), len(tree.continuations))
            sums.index_add_(1, tree.paths[0], told[:, tree.paths[1]])
            totals[:, tree.continuations] = sums
        return totals / torch.tensor([len(row) for row in rows], device=device)

    @torch.no_grad()
    def log_likelihood(self, input_ids: torch.LongTensor, attention_mask: torch.Tensor) -> torch.FloatTensor:
        """
        How likely one continuation of each text is.

        Args:
            input_ids, attention_mask (`torch.Tensor` of shape `(batch_size, length)`): of the continuations, padded on
                the right.

        Returns:
            `torch.FloatTensor` of shape `(batch_size,)`: the mean log-likelihood of its tokens; 0 of one without any.
        """
        told = self._tell(chains(input_ids, given=self.lead))
        return told.masked_fill(attention_mask == 0, 0).sum(-1) / attention_mask.sum(-1).clamp(min=1)

    def _tell(self, tree: TokenTree) -> torch.Tensor:
        """Log-likelihoods of what the tree asks for, of shape (batch_size, num_told), in float32."""
        told = tree.told.expand(len(self), -1)
        num_at_end = int((tree.told_after < 0).sum())
        parts = [self.log_probs.gather(1, told[:, :num_at_end])]
        if tree.tokens.shape[1]:
            hidden_states = self._hidden_states(tree)
            # So many tokens' logits at a time.
            step = max(1, MAX_LOGITS // (len(self) * self.log_probs.shape[-1]))
            for start in range(0, tree.tokens.shape[1], step):
                after = (tree.told_after >= start) & (tree.told_after < start + step)
                logits = _logits(self.model.language_model, hidden_states[:, start : start + step])
                places = tree.told_after[after] - start
                chosen = logits[torch.arange(len(self), device=logits.device).unsqueeze(1), places, told[:, after]]
                parts.append(chosen - logits.logsumexp(-1)[:, places])
        return torch.cat(parts, dim=1)


class _ContinuedPrompts(ReadPrompts):
    """Of a decoder-only language model: its cache."""

    def __init__(self, model, input_ids, attention_mask, log_probs, features, cache: SharedPrefixCache):
        super().__init__(model, input_ids, attention_mask, log_probs, features)
        self.cache = cache

    def select(self, rows):
        cache = self.cache.fork()
        cache.batch_select_indices(rows)
        return _ContinuedPrompts(self.model, *self._texts(rows), cache)

    def _generate(self, **kwargs):
        cache = self.cache.fork()
        # `generate` begins with the token that it goes on after.
        cache.crop(-1)
        return self.model.generate(self.input_ids, attention_mask=self.attention_mask, past_key_values=cache, **kwargs)

    def _hidden_states(self, tree):
        batch_size, num_tokens = len(self), tree.tokens.shape[1]
        # What is each text's own becomes prefix, where all is: the tree then grows beside it, and not in a copy of it.
        cache = self.cache.fork() if self.cache.has_prefix else self.cache.as_prefix()
        seen = self.attention_mask.bool()[:, None, None].expand(-1, 1, num_tokens, -1)
        mask = torch.cat([seen, tree.sees.expand(batch_size, 1, -1, -1)], dim=-1)
        language_model = self.model.language_model
        with self.model.attention_turns.take(language_model, cache) as shared:
            return language_model.get_decoder()(
                inputs_embeds=language_model.get_input_embeddings()(tree.tokens).expand(batch_size, -1, -1),
                attention_mask=mask,
                position_ids=self.attention_mask.sum(-1, keepdim=True) + tree.depths,
                past_key_values=cache,
                use_cache=True,
                **shared,
            ).last_hidden_state


class _EncodedPrompts(ReadPrompts):
    """Of an encoder-decoder: what the encoder said, and keys and values of the attention to it."""

    def __init__(self, model, input_ids, attention_mask, log_probs, features, hidden_states, cross: DynamicCache):
        super().__init__(model, input_ids, attention_mask, log_probs, features)
        self.hidden_states, self.cross = hidden_states, cross
        self.lead = (model.config.text_config.decoder_start_token_id,)

    def select(self, rows):
        cross = SharedCrossAttentionCache(self.cross).cross_attention_cache
        cross.batch_select_indices(rows)
        return _EncodedPrompts(self.model, *self._texts(rows), self.hidden_states[rows], cross)

    def _generate(self, **kwargs):
        return self.model.generate(
            self.input_ids,  # for penalties of what stands in the text
            encoder_outputs=BaseModelOutput(last_hidden_state=self.hidden_states),
            attention_mask=self.attention_mask,
            past_key_values=SharedCrossAttentionCache(self.cross),
            **kwargs,
        )

    def _hidden_states(self, tree):
        cache = SharedCrossAttentionCache(self.cross)
        language_model = self.model.language_model
        with self.model.attention_turns.take(language_model, cache) as shared:
            return language_model.get_decoder()(
                inputs_embeds=language_model.get_input_embeddings()(tree.tokens).expand(len(self), -1, -1),
                attention_mask=tree.sees.expand(len(self), 1, -1, -1),
                encoder_hidden_states=self.hidden_states,
                encoder_attention_mask=self.attention_mask,
                past_key_values=cache,
                use_cache=True,
                tree_distances=tree.depths.unsqueeze(1) - tree.depths,
                **shared,
            ).last_hidden_state


class CommonBeginning:
    """
    What texts have in common that differ in nothing but their last clip: demonstrations, and the question before them.
    For a decoder-only language model, which reads it once.

    Args:
        model ([`VideoBlip2ForConditionalGeneration`]).
        features (`torch.FloatTensor` of shape `(num_videos, num_query_tokens, hidden_size)`): of the clips in it.
    """

    def __init__(self, model, features: torch.Tensor):
        self.model, self.features = model, features
        self._read: ReadPrompts | None = None

    @torch.no_grad()
    def go_on(self, input_ids: torch.LongTensor, features: torch.Tensor) -> ReadPrompts:
        """
        Reads texts from their last clip on.

        Args:
            input_ids (`torch.LongTensor` of shape `(1, sequence_length)`): of any of the texts, all of it.
            features (`torch.FloatTensor` of shape `(batch_size, num_query_tokens, hidden_size)`): of each text's last
                clip.
        """
        config = self.model.config
        clips = (input_ids[0] == config.video_token_id).nonzero().flatten()
        start = int(clips[-config.num_query_tokens])
        if start and (self._read is None or not torch.equal(self._read.input_ids, input_ids[:, :start])):
            self._read = None  # before another takes as much memory
            self._read = self.model.read_prompts(input_ids[:, :start], **as_inputs(self.features))
        rest = input_ids[:, start:].expand(len(features), -1)
        return self.model.read_prompts(rest, prefix=self._read if start else None, **as_inputs(features))


def as_inputs(features: torch.Tensor) -> dict:
    """Features of clips, of shape `(num_videos, num_query_tokens, hidden_size)`, as the model takes them."""
    if not len(features):
        return {}
    return {"mm_encoder_outputs": {"video": BaseModelOutputWithVisionQformerOutputs(pooler_output=features)}}


@torch.no_grad()
def read_prompts(model, input_ids, attention_mask=None, prefix: ReadPrompts | None = None, **clips) -> ReadPrompts:
    """See [`~VideoBlip2ForConditionalGeneration.read_prompts`]."""
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    if model.config.is_encoder_decoder:
        if prefix is not None:
            raise ValueError("An encoder reads all of a text at once, so no prefix of it can have been read before")
        return _encode(model, input_ids, attention_mask, clips)
    return _continue(model, input_ids, attention_mask, prefix, clips)


def _continue(model, input_ids, attention_mask, prefix, clips) -> ReadPrompts:
    # Padding to the left, so that every row ends with its last token and continues after it.
    order = attention_mask.argsort(dim=1, stable=True)
    input_ids, attention_mask = input_ids.gather(1, order), attention_mask.gather(1, order)
    cache, num_read = DynamicCache(), 0
    if prefix is not None:
        if len(prefix) not in (1, len(input_ids)):
            raise ValueError(
                f"`prefix` has {len(prefix)} texts, but must have one, or as many as go on: {len(input_ids)}"
            )
        cache, num_read = prefix.cache.as_prefix(), prefix.input_ids.shape[1]
        before = [part.expand(len(input_ids), -1) for part in (prefix.input_ids, prefix.attention_mask)]
        input_ids = torch.cat([before[0], input_ids], dim=1)
        attention_mask = torch.cat([before[1], attention_mask], dim=1)
    outputs = model(
        input_ids=input_ids[:, num_read:],
        attention_mask=attention_mask,
        position_ids=(attention_mask.cumsum(-1) - 1).clamp(min=0)[:, num_read:],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
        **clips,
    )
    log_probs = outputs.logits[:, -1].float().log_softmax(-1)
    features = _features_of(model, input_ids[:, num_read:], outputs.video_hidden_states)
    cache = outputs.past_key_values
    if prefix is None:
        cache = SharedPrefixCache.without_prefix(cache)
    else:
        before = prefix.features * (len(input_ids) // len(prefix))
        features = [(*shared, *own) for shared, own in zip(before, features)]
    return _ContinuedPrompts(model, input_ids, attention_mask, log_probs, features, cache)


def _encode(model, input_ids, attention_mask, clips) -> ReadPrompts:
    start = torch.full_like(input_ids[:, :1], model.config.text_config.decoder_start_token_id)
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    outputs = model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        decoder_input_ids=start,
        past_key_values=cache,
        use_cache=True,
        **clips,
    )
    log_probs = outputs.logits[:, -1].float().log_softmax(-1)
    cross = outputs.past_key_values.cross_attention_cache
    features = _features_of(model, input_ids, outputs.video_hidden_states)
    hidden_states = outputs.encoder_last_hidden_state
    return _EncodedPrompts(model, input_ids, attention_mask, log_probs, features, hidden_states, cross)


def _features_of(model, input_ids, features) -> list[tuple[torch.Tensor, ...]]:
    """Of each text's clips."""
    config = model.config
    if features is None:
        shape = (0, config.num_query_tokens, config.text_config.hidden_size)
        features = torch.empty(shape, dtype=model.dtype, device=input_ids.device)
    num_tokens = (input_ids == config.video_token_id).sum(-1)
    return [(own,) for own in features.split((num_tokens // config.num_query_tokens).tolist())]


def check_length(model, num_tokens: int, num_more: int = 1) -> None:
    """
    Whether a text and what comes after it are not longer than the language model can read.

    Raises:
        ValueError: if they are, with the numbers.
    """
    # T5 has none.
    longest = getattr(model.config.text_config, "max_position_embeddings", None)
    if longest is not None and num_tokens + num_more > longest:
        raise ValueError(
            f"A text of {num_tokens} tokens and {num_more} more are longer than the {longest} that the language model "
            "can read: give fewer or shorter demonstrations, or ask for less"
        )


def _logits(language_model, hidden_states) -> torch.Tensor:
    """Of what the decoder gives, in float32."""
    if getattr(language_model.config, "scale_decoder_outputs", False):
        hidden_states = hidden_states * language_model.config.d_model**-0.5
    return language_model.get_output_embeddings()(hidden_states).float()


def _rows_of(input_ids, attention_mask, text_config) -> list[list[int]]:
    """The tokens of each continuation, without its padding."""
    if attention_mask is None and input_ids.ndim == 2:
        # A padding token that no other token follows.
        attention_mask = (input_ids != text_config.pad_token_id).flip(1).cummax(1).values.flip(1).long()
    attention_mask = torch.ones(0) if attention_mask is None else attention_mask
    if input_ids.ndim != 2 or input_ids.shape != attention_mask.shape:
        raise ValueError(
            "`class_input_ids` and `class_attention_mask` must both be of shape (num_classes, class_length), but are "
            f"of shapes {tuple(input_ids.shape)} and {tuple(attention_mask.shape)}"
        )
    lengths = attention_mask.sum(-1)
    if (empty := (lengths == 0).nonzero().flatten().tolist()) or not input_ids.numel():
        raise ValueError(f"Every class needs at least one token; those at {empty} have none")
    wrong = ((input_ids < 0) | (input_ids >= text_config.vocab_size)) & attention_mask.bool()
    if wrong.any():
        raise ValueError(f"Classes have tokens that the model has not: {input_ids[wrong].tolist()[:10]}")
    left = (attention_mask.cumprod(-1).sum(-1) != lengths).nonzero().flatten().tolist()
    if left:
        raise ValueError(f"Classes are padded on the right; those at {left} are not")
    return [row[:length] for row, length in zip(input_ids.tolist(), lengths.tolist())]


__all__ = ["CommonBeginning", "ReadPrompts", "as_inputs", "check_length", "read_prompts"]
