# %% [markdown]
"""
# 1. Narrate

A clip goes in, a sentence about what the camera wearer does comes out. The checkpoint here comes with the package
and has seen rendered video alone; for your own footage take `kpyu/eilev-blip2-opt-2.7b` in its place.
"""

# %%
from pathlib import Path

import torch
from IPython.display import display
from pictures import contact_sheet
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

from transformers_eilev import ClipSpan, ClipWindow, VideoReadError, embedded_checkpoint, read_clip


checkpoint = embedded_checkpoint("eilev-synthetic-opt")
clips = Path("../narration")
narrate = pipeline("video-narration", model=checkpoint, dtype=torch.float32)

# %% [markdown]
# ## A file
#
# `wipes_the_carrot.mp4` lasts 8 seconds. This checkpoint looks at four frames of them, small ones:

# %%
display(contact_sheet(narrate.processor, [clips / "wipes_the_carrot.mp4"], [""]))

# %%
said = narrate(str(clips / "wipes_the_carrot.mp4"))
print(said)

assert said == [{"generated_text": "The camera wearer wipes the carrot."}]

# %% [markdown]
# ## A stretch of a file, or frames
#
# Wherever a clip is wanted, a path will do, an address, bytes, a stretch of a video in seconds, or the frames
# themselves. Several clips go through the model together.

# %%
frames = read_clip(clips / "wipes_the_carrot.mp4", ClipWindow(num_frames=4)).frames
print("frames, channels, height, width:", tuple(frames.shape))

for [narration] in narrate([ClipSpan(clips / "wipes_the_carrot.mp4", start=2.0, end=6.0), frames], batch_size=2):
    print(narration["generated_text"])

# %% [markdown]
# ## Model and processor
#
# The pipeline is a processor and a model of transformers, and `generate` is transformers' own. In a text, `<video>`
# stands for a clip. Here the model gives the three narrations that it finds most likely.

# %%
processor = AutoProcessor.from_pretrained(checkpoint)
model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)

inputs = processor(
    videos=[str(clips / "wipes_the_carrot.mp4")],
    text="<video>Question: What is the camera wearer doing? Answer:",
)
generated_ids = model.generate(**inputs, num_beams=3, num_return_sequences=3)
narrations = processor.batch_decode(processor.without_prompt(generated_ids, inputs), skip_special_tokens=True)
for narration in narrations:
    print(narration.strip())

# %% [markdown]
# ## What can't be read says so
#
# An error names the file and the reason, whatever is wrong with it.

# %%
try:
    narrate("1_narrate.py")
except VideoReadError as error:
    print(error)

# %% [markdown]
# ## What it does not know
#
# The next clip shows a motion and a thing that the checkpoint never saw. It says something all the same, and it is
# wrong:

# %%
[said] = narrate(str(clips / "wams_the_fedan.mp4"))
print(said["generated_text"])

assert said["generated_text"] != "The camera wearer wams the fedan."

# %% [markdown]
# Two narrated clips before it tell it the words: [in context](2_in_context.ipynb).
