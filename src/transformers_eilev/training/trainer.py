"""transformers' `Trainer` for texts with clips."""

import time

import torch
import torch.nn.functional as F
from transformers import Trainer
from transformers.utils import is_peft_available

from ..data.collator import DataCollatorForVideoNarration
from .callbacks import EpochSampler, ExactResume, Samples, Throughput
from .sharding import prepare_for_fsdp


if is_peft_available():
    from peft import PeftModel
else:
    PeftModel = ()


class VideoNarrationTrainer(Trainer):
    r"""
    [`~transformers.Trainer`] for [`VideoBlip2ForConditionalGeneration`] and adapters of it.

    What is its own:

    - Clips come through the loader as uint8 and are normalized on the device: a quarter of the bytes.
    - The vocabulary head runs where there is something to predict, and not over the examples before it.
    - The order of samples, contexts, questions, augmentation and dropout derive from (seed, epoch, index) or (seed,
      step): a run that is killed and resumed is the run that was not.
    - `eval_loss` is the mean over all tokens to predict, whatever the batches and processes; beside it
      `eval_token_accuracy`, the share of them that come first of all the vocabulary.
    - Logs say clips, tokens and samples a second, the share of time spent waiting for data, and the peak memory.
    - The processor is saved with the model.

    Args:
        model (`PreTrainedModel` or `PeftModel`): with its parts frozen that shall not learn (see `freeze`).
        args ([`VideoNarrationTrainingArguments`]): or `TrainingArguments` with `remove_unused_columns=False`.
        processor ([`VideoBlip2Processor`]): of the model.
        train_dataset, eval_dataset ([`InContextDataset`], *optional*): or other map-style data sets of features that
            [`DataCollatorForVideoNarration`] takes. The `set_epoch` of the first, if it has one, is called.
        kwargs: as for `Trainer`.

    Raises:
        ValueError: if several GPUs would be used without one process for each; if the two data sets are one.
    """

    def __init__(self, model, args, *, processor, train_dataset=None, eval_dataset=None, callbacks=(), **kwargs):
        if args.n_gpu > 1:
            raise ValueError(
                f"{args.n_gpu} GPUs need one process each: start with `torchrun --nproc_per_node={args.n_gpu}` or "
                "`accelerate launch`, or choose one by CUDA_VISIBLE_DEVICES"
            )
        self.processor = processor
        self._throughput = Throughput()
        self._seed = args.seed if args.data_seed is None else args.data_seed
        if train_dataset is not None and eval_dataset is train_dataset:
            raise ValueError("`eval_dataset` must be a data set of its own: `train_dataset` draws anew in each epoch")
        self._train_sampler = None
        learns_epoch = []
        if train_dataset is not None:
            multiple = 1 if args.dataloader_drop_last else args.per_device_train_batch_size * args.world_size
            self._train_sampler = EpochSampler(len(train_dataset), self._seed, multiple)
            learns_epoch = [item for item in (train_dataset, self._train_sampler) if hasattr(item, "set_epoch")]
            train_dataset = Samples(train_dataset)
        if isinstance(eval_dataset, dict):
            eval_dataset = {name: Samples(dataset) for name, dataset in eval_dataset.items()}
        elif eval_dataset is not None:
            eval_dataset = Samples(eval_dataset)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=TrainingCollator(
                processor,
                pad_to_multiple_of=8 if args.fp16 or args.bf16 else None,
                normalize=False,
                max_length=max_length_of(model.config),
            ),
            compute_metrics=_mean_over_tokens,
            callbacks=[ExactResume(args.seed, learns_epoch), self._throughput, *callbacks],
            **kwargs,
        )
        if self.is_fsdp_enabled:
            prepare_for_fsdp(model, self.accelerator.state.fsdp_plugin)

    def _get_train_sampler(self, train_dataset=None):
        return self._train_sampler

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """As `Trainer`'s, on the clock; none for a run that is resumed at its end."""
        if self.state.global_step >= self.state.max_steps:
            return [], None  # `Trainer` asks whether it is at its end after a step alone
        start = time.perf_counter()
        batches = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._throughput.count(batches[0], time.perf_counter() - start)
        return batches

    def get_eval_dataloader(self, eval_dataset=None):
        """As `Trainer`'s, of all samples: `dataloader_drop_last` is for training."""
        drop_last, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.dataloader_drop_last = drop_last

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """As `Trainer`'s, of clips normalized on the device."""
        return super().compute_loss(model, self._model_inputs(inputs), return_outputs, num_items_in_batch)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """
        Of each text the sum of the losses of its tokens, how many of them were predicted, and how many there are: as
        "logits", of shape (batch_size, 3), which is gathered and averaged over the whole data set.
        """
        inputs = self._model_inputs(self._prepare_inputs(inputs))
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(**inputs).logits
        labels = inputs["labels"]
        if self.processor.is_decoder_only:
            # The token at a place is predicted by the one before it.
            labels = labels[:, -logits.shape[1] :][:, 1:]
            logits = logits[:, :-1]
        wanted = labels != -100
        logits, targets = logits[wanted].float(), labels[wanted]
        per_token = torch.stack(
            [
                F.cross_entropy(logits, targets, reduction="none"),
                (logits.argmax(-1) == targets).float(),
                torch.ones_like(targets, dtype=torch.float32),
            ],
            dim=1,
        )
        sums = torch.zeros(len(labels), 3, device=labels.device)
        sums.index_add_(0, wanted.nonzero()[:, 0], per_token)
        return None, sums, sums[:, 2]

    def _model_inputs(self, inputs: dict) -> dict:
        pixel_values = inputs.get("pixel_values")
        if pixel_values is not None and pixel_values.dtype == torch.uint8:
            inputs = {**inputs, "pixel_values": self.processor.video_processor.normalize_frames(pixel_values)}
        return {**inputs, "use_cache": False}

    def log(self, logs, start_time=None):
        """As `Trainer`'s; with the loss, what it costs."""
        if "loss" in logs:
            logs = {**logs, **self._throughput.measure(self.accelerator)}
        super().log(logs, start_time)

    def save_model(self, output_dir=None, _internal_call=False):
        """The model, and its processor beside it; beside an adapter also the configs of the model it belongs to."""
        folder = output_dir or self.args.output_dir
        if self.args.should_save:
            # Not as `processing_class`: by its tokenizer `Trainer` would change where the model's generation ends.
            self.processor.save_pretrained(folder)
            if self.args.push_to_hub:  # checkpoints are pushed from there
                self.processor.save_pretrained(self.args.output_dir)
            model = self.accelerator.unwrap_model(self.model)
            if isinstance(model, PeftModel):
                # By these the auto classes and `pipeline` know the model, and don't look at the adapter's base, which
                # may be a plain BLIP-2.
                model.get_base_model().config.save_pretrained(folder)
                model.get_base_model().generation_config.save_pretrained(folder)
        super().save_model(output_dir, _internal_call)


class TrainingCollator(DataCollatorForVideoNarration):
    """
    [`DataCollatorForVideoNarration`] that says how far from its end a text has something to predict, and takes the
    labels from samples that are repeated to fill a batch.

    Args:
        processor ([`VideoBlip2Processor`]): of the model.
        max_length (`int`, *optional*): positions that the language model has, if they are limited.
        kwargs: as for [`DataCollatorForVideoNarration`].

    Raises:
        ValueError: on a call, for texts that are longer.
    """

    def __init__(self, processor, *, max_length: int | None = None, **kwargs):
        super().__init__(processor, **kwargs)
        self.max_length = max_length

    def __call__(self, features):
        batch = super().__call__(features)
        if self.max_length is not None and batch["input_ids"].shape[1] > self.max_length:
            raise ValueError(
                f"A text of {batch['attention_mask'].sum(1).max()} tokens (of {batch['input_ids'].shape[1]} with "
                f"padding) is longer than the {self.max_length} positions of the language model: give fewer examples"
            )
        if "labels" in batch:
            for row, feature in enumerate(features):
                if feature.get("is_repeated"):
                    batch["labels"][row] = -100
        if "labels" in batch and self.processor.is_decoder_only:
            learned = (batch["labels"] != -100).any(dim=0).nonzero()
            first = learned[0].item() if len(learned) else batch["labels"].shape[1] - 1
            # One more: the first token is predicted by the one before it.
            batch["logits_to_keep"] = batch["labels"].shape[1] - max(first - 1, 0)
        return batch


def max_length_of(config) -> int | None:
    """How many positions the language model has; T5's are not limited."""
    return config.text_config.max_position_embeddings if config.use_decoder_only_language_model else None


def _mean_over_tokens(prediction) -> dict[str, float]:
    loss, correct, tokens = prediction.predictions.astype("float64").sum(axis=0).tolist()
    if not tokens:
        raise ValueError("No text of the evaluation has a token to predict")
    return {"loss": loss / tokens, "token_accuracy": correct / tokens}


__all__ = ["TrainingCollator", "VideoNarrationTrainer", "max_length_of"]
