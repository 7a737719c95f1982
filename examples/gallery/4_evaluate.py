# %% [markdown]
"""
# 4. Evaluate

A right answer after narrated clips may come from the clips, or from their words alone. Some queries, each asked in
several ways, tell which.
"""

# %%
import tempfile
from pathlib import Path

import torch
from IPython.display import Image, Markdown, display
from stand_in_videos import make_videos
from transformers import AutoModelForImageTextToText, AutoProcessor

from transformers_eilev import embedded_checkpoint
from transformers_eilev.data import extract_clips, load_narrated_clips
from transformers_eilev.evaluation import (
    CONDITIONS,
    EvaluationQueries,
    NarrationMetrics,
    RunSettings,
    VideoBlipNarrator,
    describe_cells,
    evaluate_generation,
    make_table,
    plot_bars,
    plot_shots,
    read_predictions,
    save_figure,
    summarize,
)


temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)

# %% [markdown]
# ## Clips
#
# Rendered videos of a world that no training showed stand in for yours. The clip of every narrated action is cut out.

# %%
actions = make_videos(folder / "videos", minutes=40)
report = extract_clips(actions, folder / "clips", num_frames=4, size=48, num_workers=0, progress=False)
clips = load_narrated_clips(folder / "clips")
print(report.num_clips, "clips of", report.num_videos, "videos")

# %% [markdown]
# ## Queries
#
# Clips to ask about, each after 0, 2 and 4 others. "balanced": both verbs and both nouns of a context come as often,
# so that words alone don't tell the answer.

# %%
queries = EvaluationQueries(clips, shots=(0, 2, 4), kind="balanced", num_queries=40)
conditions = ["in_context", "text_only", "shuffled", "unseen_pair"]
for name in conditions:
    print(f"{name:12}", CONDITIONS[name].summary)

# %% [markdown]
# ## Runs
#
# Two models: EILEV, and its control, which learned from as many clips one at a time.

# %%
metrics = NarrationMetrics(["exact", "verb", "noun"])
records = []
for name, asked in [("eilev-synthetic-opt", conditions), ("video-blip-synthetic-opt", ["in_context"])]:
    checkpoint = embedded_checkpoint(name)
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    settings = RunSettings(output_dir=folder / name, dataset="new words", conditions=asked, progress=False)
    narrator = VideoBlipNarrator(model, processor, name=name, num_beams=1)
    records += evaluate_generation(narrator, queries, settings, metrics=metrics)

# %% [markdown]
# Each run leaves what was said:

# %%
predictions = list(read_predictions(folder / "eilev-synthetic-opt" / "in_context-4"))
for line in predictions[:5]:
    print(f"{line['reference']:40} {line['narration']}")

# %% [markdown]
# ## A table
#
# Shares of narrations that are right to the letter, with 95 % bootstrap intervals over the queries, by number of
# narrated clips before.

# %%
cells = summarize(records, "exact")
display(Markdown(make_table(cells)))

# %% [markdown]
# ## Pictures

# %%
[picture, _] = save_figure(plot_shots(cells), folder / "shots", description=describe_cells(cells))
display(Image(picture, width=700))

# %%
at_four = [cell for cell in cells if cell.shots == 4]
[picture, _] = save_figure(plot_bars(at_four), folder / "bars", description=describe_cells(at_four))
display(Image(picture, width=700))

# %% [markdown]
# EILEV is right where clips are shown with their narrations. Without the clips it is right about as often as who
# guesses among the words that don't stand together, and with exchanged clips no more often. So it is the clips that it
# goes by.

# %%
right = {(cell.model, cell.condition, cell.shots): cell.mean for cell in cells}
eilev = "eilev-synthetic-opt"

assert right[eilev, "in_context", 4] > right[eilev, "text_only", 4] + 0.2
assert right[eilev, "in_context", 4] > right[eilev, "shuffled", 4] + 0.2
assert right[eilev, "in_context", 4] > right["video-blip-synthetic-opt", "in_context", 4] + 0.2

# %% [markdown]
# All of it as scripts, for any model, with more metrics, and for several processes: `examples/evaluation`.
