# %% [markdown]
"""
# 3. Train on ten clips of your own

From ten narrated clips to a model that has their words, without demonstrations: LoRA, small matrices beside the
frozen weights, on two CPU cores in some seconds.
"""

# %%
import tempfile
from pathlib import Path

import torch
from IPython.display import display
from pictures import contact_sheet, table
from stand_in_videos import NEW_VERBS, make_videos, write_list
from transformers import AutoModelForImageTextToText, AutoProcessor, PrinterCallback

from transformers_eilev import ClipSpan, embedded_checkpoint
from transformers_eilev.data import (
    FrameLoader,
    InContextDataset,
    InContextSampler,
    load_narrated_clips,
    store_own_clips,
)
from transformers_eilev.in_context import InContextSession, check_demonstrations, read_demonstrations
from transformers_eilev.training import (
    VideoNarrationTrainer,
    VideoNarrationTrainingArguments,
    add_lora,
    load_lora,
    merge_lora,
)


checkpoint = embedded_checkpoint("eilev-synthetic-opt")
processor = AutoProcessor.from_pretrained(checkpoint)
model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)

# %% [markdown]
# ## Ten clips and a list
#
# You have videos, and a list of what is done in them and when. Rendered videos stand in for yours: their "rek" and
# their "pob" are things that the checkpoint never saw. Ten clips are to train on; others of the same things are left
# to ask about.

# %%
actions = make_videos(folder / "videos", minutes=40)
about = [a for a in actions if a["structured_noun"] in ("rek", "pob") and a["structured_verb"] not in NEW_VERBS]
write_list(folder / "mine.csv", about[:10])
write_list(folder / "others.csv", about[10:])
mine, others = read_demonstrations(folder / "mine.csv"), read_demonstrations(folder / "others.csv")
check_demonstrations([*mine, *others])  # whether every video is there, and opens

rows = [(own.start, own.end, own.narration) for own in mine]
display(table(["start", "end", "narration"], rows))


# %%
def spans_of(demonstrations):
    return [ClipSpan(own.clip, own.start, own.end) for own in demonstrations]


display(contact_sheet(processor, spans_of(mine[:3]), [own.narration for own in mine[:3]]))


# %% [markdown]
# ## Before
#
# The checkpoint knows what is done, but not to what.


# %%
def narrate(model, demonstrations):
    return InContextSession(model, processor).narrate(spans_of(demonstrations))


def share_right(said, demonstrations):
    return sum(text == own.narration for text, own in zip(said, demonstrations)) / len(demonstrations)


before, before_others = narrate(model, mine), narrate(model, others)
print("right, of my ten:", share_right(before, mine))
print("right, of the others:", share_right(before_others, others))

assert share_right(before, mine) == share_right(before_others, others) == 0

# %% [markdown]
# ## Train
#
# The clips are cut out of their videos once. What comes of it is a store like that of a whole data set, and
# `examples/training/run_eilev.py --train_frames_dir` reads it, too.

# %%
store_own_clips(mine, folder / "clips", num_frames=4, size=48)
clips = load_narrated_clips(folder / "clips")

# %% [markdown]
# Each sample is a clip by itself, after `num_examples` others: here after none, as it will be asked about.

# %%
sampler = InContextSampler(clips["structured_verb"], clips["structured_noun"], num_examples=0)
samples = InContextDataset(clips, sampler, load_clip=FrameLoader(num_frames=4))
print(samples[0]["text"], "->", samples[0]["text_target"])

# %%
torch.manual_seed(0)
adapted = add_lora(model)
args = VideoNarrationTrainingArguments(
    output_dir=folder / "adapter",
    max_steps=20,
    per_device_train_batch_size=10,
    learning_rate=5e-4,
    logging_steps=5,
    save_strategy="no",
    report_to="none",
    use_cpu=True,
    disable_tqdm=True,
)
trainer = VideoNarrationTrainer(adapted, args, processor=processor, train_dataset=samples)
trainer.remove_callback(PrinterCallback)  # the losses are shown below
trainer.train()
losses = [(log["step"], f"{log['loss']:.2f}") for log in trainer.state.log_history if "loss" in log]
display(table(["step", "mean loss of the steps before"], losses))

# %% [markdown]
# ## After

# %%
adapted.eval()
after, after_others = narrate(adapted.get_base_model(), mine), narrate(adapted.get_base_model(), others)
rows = zip([own.narration for own in mine], before, after)
display(table(["my narration", "before", "after"], list(rows)))

assert share_right(after, mine) == 1

# %% [markdown]
# And clips that it was not trained on. (Rate and number of steps were chosen out of four pairs, in sight of some of
# these.)

# %%
rows = zip([own.narration for own in others], before_others, after_others)
display(table(["narration", "before", "after"], list(rows)))

assert share_right(after_others, others) > 0.5

# %% [markdown]
# ## Save, load, merge
#
# The adapter's folder is small, and names the checkpoint that it belongs to. Merged, it is a model like any other.

# %%
trainer.save_model()
loaded = load_lora(folder / "adapter", dtype=torch.float32).eval()
merged = merge_lora(folder / "adapter", dtype=torch.float32).eval()
merged.save_pretrained(folder / "merged")
processor.save_pretrained(folder / "merged")
again = AutoModelForImageTextToText.from_pretrained(folder / "merged")

assert narrate(loaded.get_base_model(), mine) == narrate(again, mine) == after
for name in ("adapter/adapter_model.safetensors", "merged/model.safetensors"):
    print(f"{name}: {(folder / name).stat().st_size / 1e6:.1f} MB")

# %% [markdown]
# How right a model is, and what its answers come from: [evaluate](4_evaluate.ipynb).
