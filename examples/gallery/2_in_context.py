# %% [markdown]
"""
# 2. In context

EILEV learns in its prompt: it narrates a clip in the words of the narrated clips before it. Nothing is trained here.
"""

# %%
import tempfile
from pathlib import Path

import torch
from IPython.display import display
from pictures import contact_sheet, table
from stand_in_videos import make_videos, write_list
from transformers import AutoModelForImageTextToText, AutoProcessor

from transformers_eilev import ClipSpan, embedded_checkpoint
from transformers_eilev.data import clean_narration_text
from transformers_eilev.in_context import (
    ClipEncoder,
    DemonstrationFinder,
    InContextSession,
    narrate_video,
    read_demonstrations,
)


checkpoint = embedded_checkpoint("eilev-synthetic-opt")
processor = AutoProcessor.from_pretrained(checkpoint)
model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
clips = Path("../narration")

# %% [markdown]
# ## Two demonstrations
#
# One clip shows a motion, one a thing, and neither motion nor thing was ever shown in training. The third clip has
# both.

# %%
demonstrations = [
    (str(clips / "wams_the_carrot.mp4"), "The camera wearer wams the carrot."),
    (str(clips / "inserts_the_fedan.mp4"), "The camera wearer inserts the fedan."),
]
query = str(clips / "wams_the_fedan.mp4")
texts = [narration for _, narration in demonstrations] + ["?"]
display(contact_sheet(processor, [clip for clip, _ in demonstrations] + [query], texts))

# %% [markdown]
# A session keeps what the model has read of the demonstrations: each further clip costs hardly more than without them.

# %%
alone = InContextSession(model, processor)
session = InContextSession(model, processor, demonstrations)
[before], [after] = alone.narrate([query]), session.narrate([query])
print("alone:     ", before)
print("in context:", after)

assert before != after == "The camera wearer wams the fedan."

# %% [markdown]
# ## Candidates
#
# How likely is each of some sentences? The higher (the nearer to 0), the likelier.

# %%
candidates = [
    "The camera wearer wams the fedan.",
    "The camera wearer inserts the fedan.",
    "The camera wearer wams the carrot.",
    "The camera wearer inserts the carrot.",
]
[scores] = session.score([query], candidates)
ranked = sorted(zip(scores.tolist(), candidates), reverse=True)
display(table(["mean log-likelihood of a token", "candidate"], [(f"{score:.1f}", text) for score, text in ranked]))

assert ranked[0][1] == "The camera wearer wams the fedan."

# %% [markdown]
# ## A library of demonstrations
#
# Narrated clips of your own stand in a list: a file, a narration and, for a part of a longer video, its start and end
# in seconds. Here some rendered videos stand in for yours: four to choose from, and one to narrate.

# %%
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
actions = make_videos(folder / "videos", minutes=25)
to_narrate = actions[-1]["video_path"]
write_list(folder / "mine.csv", [action for action in actions if action["video_path"] != to_narrate])
library = read_demonstrations(folder / "mine.csv")

print(len(library), "narrated clips, such as")
for own in library[:3]:
    print(f"{own.start:5.1f} to {own.end:5.1f} s  {own.narration}")

# %% [markdown]
# Of these, the nearest to a clip make its prompt, the nearest one last: nearest by what the Q-Former makes of clips
# here; `by` has other ways.

# %%
encoder = ClipEncoder(model, processor)
finder = DemonstrationFinder(library, num_examples=4, by="qformer", encoder=encoder)
for own in finder.find(query):
    print(own.narration)

# %% [markdown]
# ## A long video, as subtitles
#
# The session asks the finder for each stretch of the video, which is read once, from start to end.

# %%
found = InContextSession(model, processor, finder=finder, encoder=encoder)
subtitles = folder / "video.srt"
narrations = list(
    narrate_video(
        to_narrate,
        lambda clips, spans: found.narrate(clips, return_scores=True),
        every=11.0,
        num_frames=4,
        output=subtitles,
    )
)
print("\n".join(subtitles.read_text().splitlines()[:11]))

# %% [markdown]
# Who rendered the video knows what is done in it. Alone, the checkpoint has no name for what is new. After what was
# found it has some: those that the finder found a clip of, which it often does not, out of three clips of each thing.

# %%
stretches = [ClipSpan(to_narrate, said.start, said.end) for said in narrations]
annotated = [action for action in actions if action["video_path"] == to_narrate]
rows = []
for said, said_alone in zip(narrations, alone.narrate(stretches)):
    middle = (said.start + said.end) / 2
    nearest = min(annotated, key=lambda action: abs(action["narration_timestamp_sec"] - middle))
    rows.append((clean_narration_text(nearest["narration_text"]), said.text, said_alone))
display(table(["annotated", "after what was found", "alone"], rows[:8]))

right, right_alone = (sum(row[0] == row[column] for row in rows) for column in (1, 2))
print(f"to the letter, of {len(rows)}: {right} after what was found, {right_alone} alone")

assert right > right_alone

# %% [markdown]
# The same from a shell:
#
# ```bash
# transformers-eilev narrate-video video.mp4 --every 11 --demonstrations mine.csv --choose qformer --shots 4 \
#     --output video.srt
# ```
#
# A prompt has room for some words. Clips that shall stay learned are trained on: [train](3_train.ipynb).
