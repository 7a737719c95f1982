"""`transformers-eilev data ...`: from annotations and videos to a store of clips, and a set to try it all on."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .errors import in_one_line


app = typer.Typer(no_args_is_help=True, help="Ego4D, EPIC-KITCHENS and a synthetic set: annotations, splits, clips.")


class Source(StrEnum):
    """Whose files a folder holds."""

    EGO4D = "ego4d"
    EPIC_KITCHENS = "epic-kitchens"


DataDir = Annotated[Path, typer.Argument(help="Folder of the download: Ego4D's, or that of EPIC-KITCHENS' CSV files.")]
SourceOption = Annotated[Source, typer.Option(help="Whose files these are.")]
VideoDirs = Annotated[
    list[Path] | None, typer.Option(help="Folder of videos, if they are elsewhere; may be repeated.")
]


@app.command()
def synthetic(
    output_dir: Annotated[Path, typer.Argument(help="Where to write the set.")],
    hours: Annotated[float, typer.Option(help="Hours of video.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Everything random derives from it.")] = 0,
    first_video: Annotated[
        int, typer.Option(help="Number of the first video: behind another set's last, for more of the same world.")
    ] = 0,
    layout: Annotated[str, typer.Option(help="ego4d or epic_kitchens: whose folders and schema.")] = "ego4d",
    image_size: Annotated[int, typer.Option(help="Width and height in pixels.")] = 224,
    fps: Annotated[int, typer.Option(help="Frames a second.")] = 10,
    codec: Annotated[str, typer.Option(help="h264, or vp9 as Ego4D's, which is slower.")] = "h264",
    video_sec: Annotated[float, typer.Option(help="Length of a video in seconds.")] = 240.0,
    verb_skew: Annotated[float, typer.Option(help="Zipf exponent of the verbs.")] = 0.8,
    noun_skew: Annotated[float, typer.Option(help="Zipf exponent of the nouns.")] = 0.8,
    synonyms: Annotated[float, typer.Option(help="How often a video uses another word for the same.")] = 0.4,
    homonyms: Annotated[float, typer.Option(help="Share of videos in which words have swapped their meanings.")] = 0.0,
    rare_pairs: Annotated[int, typer.Option(help="Number of (verb, noun) pairs made rare.")] = 12,
    made_up_verbs: Annotated[int, typer.Option(help="Number of motions with made-up words.")] = 0,
    made_up_nouns: Annotated[int, typer.Option(help="Number of objects with made-up words.")] = 0,
    verbs: Annotated[
        list[str] | None, typer.Option(help="A verb to use, such as cut; may be repeated; all of them by default.")
    ] = None,
    order_free: Annotated[
        bool,
        typer.Option("--order-free", help="Only verbs that frames show whatever their order: not close, but open."),
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help='Narrations of valid actions are "#C C <verb>s the <noun>", no more.')
    ] = False,
    unlabelled_share: Annotated[float, typer.Option(help="Share of valid actions that lack a label.")] = 0.06,
    quirk_share: Annotated[
        float, typer.Option(help="Share of actions that are rejected, invalid or narrate somebody else.")
    ] = 0.15,
    num_distractors: Annotated[tuple[int, int], typer.Option(help="Fewest and most other things there.")] = (3, 6),
    zoom: Annotated[float, typer.Option(help="How much closer the camera looks at the hands, 1 to 3.")] = 1.0,
    num_workers: Annotated[int, typer.Option(help="Processes that render.")] = 1,
):
    """
    Renders first-person videos with narrations, in the layout of Ego4D or EPIC-KITCHENS.

    Every other step runs on it as on the real sets. A run that was stopped goes on where it stopped.
    """
    from ..data import SyntheticConfig, make_synthetic_dataset
    from ..data.synthetic import ORDER_FREE_VERBS

    with in_one_line():
        if verbs and order_free:
            raise ValueError(f"--verbs and --order-free exclude each other, got --order-free and --verbs {verbs}")
        only = ORDER_FREE_VERBS if order_free else tuple(verbs or ()) or None
        shares = dict.fromkeys(("colour_share", "hand_share", "place_share", "habit_share"), 0.0) if plain else {}
        config = SyntheticConfig(
            hours=hours,
            seed=seed,
            first_video=first_video,
            layout=layout,
            image_size=image_size,
            fps=fps,
            codec=codec,
            video_sec=video_sec,
            verb_skew=verb_skew,
            noun_skew=noun_skew,
            synonyms=synonyms,
            homonyms=homonyms,
            rare_pairs=rare_pairs,
            made_up_verbs=made_up_verbs,
            made_up_nouns=made_up_nouns,
            verbs=only,
            unlabelled_share=unlabelled_share,
            quirk_share=quirk_share,
            num_distractors=num_distractors,
            zoom=zoom,
            **shares,
        )
        summary = make_synthetic_dataset(output_dir, config, num_workers=num_workers, progress=True)
    typer.echo(
        f"{summary.num_actions} narrated actions in {summary.num_videos} videos, and {summary.num_missing} videos "
        f"missing on purpose, in {summary.directory}"
    )


@app.command()
def extract(
    data_dir: DataDir,
    output_dir: Annotated[Path, typer.Argument(help="Where to write the clips.")],
    source: SourceOption = Source.EGO4D,
    video_dirs: VideoDirs = None,
    split: Annotated[
        list[str] | None, typer.Option(help="train, val or test; may be repeated; all by default.")
    ] = None,
    num_frames: Annotated[int, typer.Option(help="Frames of a clip.")] = 8,
    size: Annotated[int, typer.Option(help="Height and width of the frames: twice the model's image size.")] = 448,
    encoding: Annotated[str | None, typer.Option(help="jpeg, png or webp.")] = None,
    layout: Annotated[str, typer.Option(help="parquet, or frame_folders as the original's.")] = "parquet",
    num_workers: Annotated[int | None, typer.Option(help="Processes; one for each CPU by default.")] = None,
    shard: Annotated[str, typer.Option(help="i/n: the videos of the i-th (from 0) of n jobs alone.")] = "0/1",
):
    """
    Cuts the clip of every narrated action out of its video.

    A run that was stopped goes on where it stopped. After an array of jobs with --shard, one run without it merges
    what they made.
    """
    from ..data import extract_clips

    with in_one_line():
        job = _parse_shard(shard)
        splits = _load(source, data_dir, video_dirs)
        if unknown := set(split or ()) - set(splits):
            raise ValueError(f"There is no split {sorted(unknown)}; there are {sorted(splits)}")
        for name in split or splits:
            report = extract_clips(
                splits[name],
                output_dir,
                split=name,
                num_frames=num_frames,
                size=size,
                encoding=encoding,
                layout=layout,
                num_workers=num_workers,
                shard=job,
            )
            typer.echo(
                f"{name}: {report.num_clips} clips ({report.num_partial} of them partial) of {report.num_videos} "
                f"videos, {report.num_failed} failed, {len(report.refused)} rows refused; logs in {output_dir}/logs"
            )


@app.command()
def split(
    data_dir: DataDir,
    output_dir: Annotated[Path, typer.Argument(help="Where to write fho_main_train.json, _val and _test.")],
    train_val_share: Annotated[float, typer.Option(help="Share of the actions that is not test.")] = 0.75,
    train_share: Annotated[float, typer.Option(help="Share of those that is train.")] = 0.75,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 42,
):
    """Splits Ego4D by video into train, val and test, as the original does, and writes the original's files."""
    from ..data import count_by_video, read_ego4d_actions, split_by_video, write_split_files

    with in_one_line():
        actions, report = read_ego4d_actions(data_dir)
        counts = count_by_video(actions)
        splits = split_by_video(counts, train_val_share=train_val_share, train_share=train_share, seed=seed)
        paths = write_split_files(splits, output_dir)
    typer.echo(report)
    for path, (name, videos) in zip(paths, splits.items()):
        typer.echo(f"{name}: {sum(videos.values())} actions in {len(videos)} videos, {path}")


@app.command()
def info(data_dir: DataDir, source: SourceOption = Source.EGO4D, video_dirs: VideoDirs = None):
    """Says how many narrated actions there are, and how many are left out and why."""
    with in_one_line():
        splits = _load(source, data_dir, video_dirs)
    for name, actions in splits.items():
        videos = len(set(actions["video_uid"]))
        typer.echo(f"{name}: {len(actions)} actions in {videos} videos")


def _load(source: Source, data_dir: Path, video_dirs):
    """The actions by split; what was left out is logged."""
    from ..data import load_ego4d, load_epic_kitchens

    load = load_ego4d if source is Source.EGO4D else load_epic_kitchens
    return load(data_dir, video_dirs=[str(folder) for folder in video_dirs] if video_dirs else None)


def _parse_shard(shard: str) -> tuple[int, int]:
    try:
        index, count = map(int, shard.split("/"))
    except ValueError:
        raise ValueError(f"--shard must be i/n, such as 0/8, but is {shard!r}") from None
    return index, count
