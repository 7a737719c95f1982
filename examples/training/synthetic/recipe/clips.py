"""The clips of the worlds, from rendered videos to a clip store, as those of Ego4D are made."""

from pathlib import Path

from transformers_eilev.data import (
    SyntheticConfig,
    extract_clips,
    load_clip_store,
    load_ego4d,
    load_epic_kitchens,
    make_synthetic_dataset,
)

from .tokenizer import IMAGE_SIZE


NUM_STORED_FRAMES = 8


def make_clips(output_dir: Path, config: SyntheticConfig, *, num_workers: int = 2) -> None:
    """Renders the videos of a world and cuts their clips out; goes on where it was stopped.

    Args:
        output_dir (`Path`): gets "videos" and "clips", a clip store.
        config ([`SyntheticConfig`]): the world.
        num_workers (`int`): processes that render and read.
    """
    make_synthetic_dataset(output_dir / "videos", config, num_workers=num_workers, progress=True)
    load = load_ego4d if config.layout == "ego4d" else load_epic_kitchens
    for split, actions in load(output_dir / "videos").items():
        extract_clips(
            actions,
            output_dir / "clips",
            split=split,
            num_frames=NUM_STORED_FRAMES,
            size=IMAGE_SIZE,
            num_workers=num_workers,
        )


def open_clips(output_dir: Path, *, decode: bool = True):
    """All clips that `make_clips` made, whatever their split, as a `datasets.Dataset`; with `decode=False` frames stay
    encoded, as evaluations take them."""
    import datasets

    splits = load_clip_store(output_dir / "clips")
    clips = datasets.concatenate_datasets([splits[name] for name in sorted(splits)])
    return clips if decode else clips.cast_column("frames", datasets.List(datasets.Image(decode=False)))
