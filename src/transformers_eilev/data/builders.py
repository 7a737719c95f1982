"""
Ego4D's and EPIC-KITCHENS' narrated actions as data sets of `datasets`, from a download on disk.

`load_dataset` has run no scripts since `datasets` 4, so these builders are classes of a package, and `load_ego4d` and
`load_epic_kitchens` are their doors. They hold annotations and the paths of videos, never frames: those are the clip
store's, whose extraction can be resumed.

An annotation file is parsed once, into small Parquet files in the cache, from which everything else is read: the
cached data set, by any number of processes, and streams, by any number of nodes and workers.
"""

import csv
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from .. import __version__
from .actions import ACTION_COLUMNS, ActionReport, InvalidActionError, NarratedAction
from .ego4d import Ego4dFiles, Ego4dReport, find_ego4d_files, find_videos, iter_ego4d_actions
from .epic_kitchens import (
    ANNOTATION_FILES,
    EPIC_ACTION_COLUMNS,
    NOUN_CLASSES_FILE,
    VERB_CLASSES_FILE,
    VIDEO_INFO_FILE,
    EpicKitchensReport,
    find_epic_video,
    iter_epic_kitchens_actions,
)
from .files import atomic_file, write_text
from .splits import SPLITS, read_split_file, split_by_video


logger = logging.getLogger(__name__)

# Rows of a shard: what one process, node or worker takes at a time.
SHARD_SIZE = 1_000

_COLUMNS = """\
    video_uid: the video.
    clip_index: number of the action among its video's.
    frame_path: "video_uid|clip_index", unique; the name of the clip in a clip store.
    narration_timestamp_sec: when it was narrated, in seconds of the video.
    narration_text: the narration.
    structured_verb, structured_noun: its labels, "" where there is none.
    video_path: the video file, "" where it is not on disk.
"""


@dataclass
class NarratedActionsConfig(datasets.BuilderConfig):
    """
    What the configurations of both sets share.

    Args:
        data_dir (`str`, *optional*): the folder of the download.
        keep_missing_videos (`bool`): keep actions whose video is not on disk, with an empty `video_path`.
    """

    version: str = "1.0.0"
    keep_missing_videos: bool = False

    def create_config_id(self, config_kwargs: dict, custom_features=None) -> str:
        """The name of the cache: another for other contents of the files, not only for other arguments."""
        content = json.dumps([__version__, self.describe_content()], sort_keys=True)
        config_kwargs = {name: value for name, value in config_kwargs.items() if value is not None}
        config_kwargs["content"] = hashlib.sha256(content.encode()).hexdigest()
        return super().create_config_id(config_kwargs, custom_features)

    def describe_content(self) -> dict[str, Any]:
        """What the rows are made from: hashes of files, and the videos on disk."""
        raise NotImplementedError


@dataclass
class Ego4dConfig(NarratedActionsConfig):
    """
    Configuration of [`Ego4dNarratedActions`].

    Args:
        annotation_file (`str`, *optional*): `fho_main.json`, if it is not where the download puts it.
        video_dirs (`list[str]`, *optional*): folders of videos, if they are elsewhere, the one to prefer first.
        release (`str`, *optional*): such as "v2_1"; by default the newest.
        video_kind (`str`, *optional*): "full_scale" or "video_540ss"; by default both, "full_scale" first.
        split_files (`dict[str, str]`, *optional*): files such as the original's `fho_main_train.json` by split. By
            default the actions are split by video with the original's algorithm.
        train_val_share, train_share, split_seed: of that algorithm, see [`split_by_video`].
    """

    annotation_file: str | None = None
    video_dirs: Sequence[str] | None = None
    release: str | None = None
    video_kind: str | None = None
    split_files: Mapping[str, str] | None = None
    train_val_share: float = 0.75
    train_share: float = 0.75
    split_seed: int = 42

    def find_files(self) -> Ego4dFiles:
        """The annotation file and the folders of videos that this means."""
        files = Ego4dFiles(annotation_file=None, video_dirs=())
        if self.data_dir is not None:
            files = find_ego4d_files(self.data_dir, version=self.release, video_kind=self.video_kind)
        annotation_file = self.annotation_file or files.annotation_file
        if annotation_file is None or not Path(annotation_file).is_file():
            raise FileNotFoundError(
                f"There is no annotation file {annotation_file or 'fho_main.json'} for `data_dir` {self.data_dir!r}"
            )
        video_dirs = files.video_dirs if self.video_dirs is None else _as_list(self.video_dirs)
        return Ego4dFiles(
            annotation_file=Path(annotation_file), video_dirs=tuple(Path(folder) for folder in video_dirs)
        )

    def describe_content(self) -> dict[str, Any]:
        files = self.find_files()
        return {
            "annotations": _hash_file(files.annotation_file),
            "splits": {name: _hash_file(path) for name, path in (self.split_files or {}).items()},
            "videos": sorted(find_videos(files.video_dirs).items()),
        }


@dataclass
class EpicKitchensConfig(NarratedActionsConfig):
    """
    Configuration of [`EpicKitchensNarratedActions`].

    Args:
        annotation_files (`dict[str, str]`, *optional*): CSV files by split. By default `EPIC_100_train.csv` is "train"
            and `EPIC_100_validation.csv` is "val", of `data_dir`, as far as they are there.
        video_dirs (`list[str]`, *optional*): folders of videos, by default `data_dir`.
        classes_dir (`str`, *optional*): where the files of the classes are, if not beside the first CSV.
        video_info_file (`str`, *optional*): `EPIC_100_video_info.csv`, if it is not there.
        labels, sentence_column, max_sec_outside: see [`iter_epic_kitchens_actions`].
    """

    annotation_files: Mapping[str, str] | None = None
    video_dirs: Sequence[str] | None = None
    classes_dir: str | None = None
    video_info_file: str | None = None
    labels: str = "class"
    sentence_column: str | None = None
    max_sec_outside: float | None = None

    def find_annotation_files(self) -> dict[str, Path]:
        """The CSV file of each split."""
        if self.annotation_files is not None:
            return {split: Path(path) for split, path in self.annotation_files.items()}
        folder = Path(self.data_dir or "")
        paths = {split: folder / name for split, name in zip(("train", "val"), ANNOTATION_FILES)}
        found = {split: path for split, path in paths.items() if path.is_file()}
        if self.data_dir is None or not found:
            raise FileNotFoundError(f"There is no {' or '.join(ANNOTATION_FILES)} in `data_dir` {self.data_dir!r}")
        return found

    def find_video_dirs(self) -> list[str]:
        """The folders to look for videos in."""
        if self.video_dirs is None:
            return [] if self.data_dir is None else [self.data_dir]
        return _as_list(self.video_dirs)

    def describe_content(self) -> dict[str, Any]:
        paths = self.find_annotation_files()
        beside = next(iter(paths.values())).parent
        classes_dir = Path(self.classes_dir or beside)
        others = [classes_dir / name for name in (VERB_CLASSES_FILE, NOUN_CLASSES_FILE)]
        others.append(Path(self.video_info_file or beside / VIDEO_INFO_FILE))
        return {
            "annotations": {split: _hash_file(path) for split, path in paths.items()},
            "others": [_hash_file(path) if path.is_file() else None for path in others],
            "videos": _find_epic_videos(paths.values(), self.find_video_dirs()),
        }


class NarratedActionsBuilder(datasets.ArrowBasedBuilder):
    """What both builders share: rows parsed once into Parquet, and read from there."""

    columns = ACTION_COLUMNS
    cache_name = ""
    summary = ""

    def __init__(self, *args, **kwargs):
        # By default that of this module, the same for both.
        kwargs.setdefault("dataset_name", self.cache_name)
        super().__init__(*args, **kwargs)

    def read_rows(self) -> tuple[dict[str, pa.Table], ActionReport]:
        """The rows of each split, from the set's own files, and what became of the others."""
        raise NotImplementedError

    @property
    def report(self) -> list[str] | None:
        """
        How many actions there are, and how many were left out and why, a line each, once the data set is prepared or
        streamed; after that also when it comes from the cache.
        """
        path = self._rows_dir / "report.json"
        return json.loads(path.read_text(encoding="utf-8"))["lines"] if path.is_file() else None

    @property
    def _rows_dir(self) -> Path:
        # Beside the data set's own folder, which is replaced as a whole when it is prepared.
        return Path(f"{self.cache_dir}.rows")

    def _info(self):
        return datasets.DatasetInfo(
            description=f"{self.summary}\n\nColumns:\n{_COLUMNS}",
            features=datasets.Features({name: datasets.Value(kind) for name, kind in self.columns.items()}),
        )

    def _split_generators(self, dl_manager):
        report_file = self._rows_dir / "report.json"
        # Written last: where it is, everything is.
        if not report_file.is_file():
            tables, report = self.read_rows()
            if not any(map(len, tables.values())):
                raise ValueError(f"{self.cache_name}: no action is left. {report}")
            self._rows_dir.mkdir(parents=True, exist_ok=True)
            for split, table in tables.items():
                with atomic_file(self._rows_dir / f"{split}.parquet") as file:
                    pq.write_table(table, file, row_group_size=SHARD_SIZE, compression="zstd")
            lines = [*report.lines(), *(f"{split}: {len(table):,} actions" for split, table in tables.items())]
            # `datasets` can't read a split without rows.
            splits = [split for split, table in tables.items() if len(table)]
            content = json.dumps({"splits": splits, "lines": lines}, ensure_ascii=False)
            write_text(report_file, content)
        generators = []
        for split in json.loads(report_file.read_text(encoding="utf-8"))["splits"]:
            path = self._rows_dir / f"{split}.parquet"
            # A list is what `datasets` shares out among processes, nodes and workers.
            arguments = {"path": str(path), "shards": list(range(pq.read_metadata(path).num_row_groups))}
            generators.append(datasets.SplitGenerator(name=split, gen_kwargs=arguments))
        return generators

    def _generate_tables(self, path: str, shards: list[int]):
        with pq.ParquetFile(path) as file:
            for shard in shards:
                yield (shard, 0), file.read_row_group(shard)

    def _table(self, actions: Iterable[NarratedAction]) -> pa.Table:
        schema = self.info.features.arrow_schema
        actions, tables = iter(actions), [schema.empty_table()]
        while batch := [action.to_row() for action in islice(actions, 10_000)]:
            tables.append(pa.Table.from_pylist(batch, schema=schema))
        return pa.concat_tables(tables)


class Ego4dNarratedActions(NarratedActionsBuilder):
    """
    The narrated actions of Ego4D's FHO annotations that the original uses, split into train, val and test.

    Configurations: "default", "full_scale" and "video_540ss", for the videos to point at; [`Ego4dConfig`] has all
    options. See [`load_ego4d`].
    """

    BUILDER_CONFIG_CLASS = Ego4dConfig
    BUILDER_CONFIGS = [
        Ego4dConfig(name="default", description="The videos that are there, full-scale ones first."),
        Ego4dConfig(name="full_scale", description="Full-scale videos alone.", video_kind="full_scale"),
        Ego4dConfig(name="video_540ss", description="Videos of 540 pixels alone.", video_kind="video_540ss"),
    ]
    DEFAULT_CONFIG_NAME = "default"
    cache_name = "ego4d_narrated_actions"
    summary = "Narrated actions of Ego4D's forecasting, hands and objects benchmark (fho_main.json)."

    def read_rows(self) -> tuple[dict[str, pa.Table], ActionReport]:
        config, report = self.config, Ego4dReport()
        files = config.find_files()
        arguments = {"annotation_file": files.annotation_file, "video_dirs": files.video_dirs}
        actions = iter_ego4d_actions(**arguments, keep_missing_videos=config.keep_missing_videos, report=report)
        table = self._table(actions)
        video_uids = table["video_uid"].to_pylist()
        split_of = self._split_of_videos(Counter(video_uids))
        rows = {split: [] for split in config.split_files or SPLITS}
        for row, video_uid in enumerate(video_uids):
            if video_uid in split_of:
                rows[split_of[video_uid]].append(row)
            else:
                report.filter("not in a split file", video_uid)
                report.kept -= 1
        return {split: table.take(pa.array(numbers, pa.int64())) for split, numbers in rows.items()}, report

    def _split_of_videos(self, num_actions: Mapping[str, int]) -> dict[str, str]:
        config = self.config
        if config.split_files is None:
            splits = split_by_video(
                num_actions,
                train_val_share=config.train_val_share,
                train_share=config.train_share,
                seed=config.split_seed,
            )
        else:
            splits = {split: read_split_file(path)[1] for split, path in config.split_files.items()}
        split_of = {}
        for split, videos in splits.items():
            for video_uid in videos:
                if split_of.setdefault(video_uid, split) != split:
                    raise ValueError(f"`split_files`: {video_uid} is in {split_of[video_uid]!r} and in {split!r}")
        return split_of


class EpicKitchensNarratedActions(NarratedActionsBuilder):
    """
    EPIC-KITCHENS-100's narrated actions, with sentences for narrations, split as its files are.

    Configurations: "default", whose labels are the keys of the verb and noun classes, and "annotated", whose labels
    are the annotators' words, as the original's; [`EpicKitchensConfig`] has all options. See [`load_epic_kitchens`].
    """

    BUILDER_CONFIG_CLASS = EpicKitchensConfig
    BUILDER_CONFIGS = [
        EpicKitchensConfig(name="default", description="Verb and noun classes as labels."),
        EpicKitchensConfig(name="annotated", description="The annotators' words as labels.", labels="annotated"),
    ]
    DEFAULT_CONFIG_NAME = "default"
    columns = EPIC_ACTION_COLUMNS
    cache_name = "epic_kitchens_narrated_actions"
    summary = """\
Narrated actions of EPIC-KITCHENS-100. Beside the columns below:
    narration_id, participant_id, narration: as annotated.
    start_sec, stop_sec: the action's segment, in seconds of the video.
    verb_class, noun_class: numbers of the classes."""

    def read_rows(self) -> tuple[dict[str, pa.Table], ActionReport]:
        config, paths = self.config, self.config.find_annotation_files()

        def read(files: list[Path], report: EpicKitchensReport) -> Iterable[NarratedAction]:
            return iter_epic_kitchens_actions(
                files,
                video_dirs=config.find_video_dirs(),
                classes_dir=config.classes_dir or next(iter(paths.values())).parent,
                video_info_file=config.video_info_file,
                labels=config.labels,
                sentence_column=config.sentence_column,
                max_sec_outside=config.max_sec_outside,
                keep_missing_videos=config.keep_missing_videos,
                report=report,
            )

        # All in one reading, which numbers a video's actions through, even if two files have some of them.
        report, files = EpicKitchensReport(), list(paths.values())
        table = self._table(read(files, report))
        bounds = [
            0,
            *(sum(1 for _ in read(files[:i], EpicKitchensReport())) for i in range(1, len(files))),
            len(table),
        ]
        return {split: table.slice(a, b - a) for split, a, b in zip(paths, bounds[:-1], bounds[1:])}, report


def load_ego4d(
    data_dir: str | os.PathLike | None = None,
    config: str = "default",
    *,
    split: str | None = None,
    streaming: bool = False,
    num_proc: int | None = None,
    cache_dir: str | os.PathLike | None = None,
    **options,
):
    """
    Ego4D's narrated actions, from a download on disk.

    `load_dataset("ego4d_fho", ...)` is not to be had: beside files, `datasets` finds only builders in a private table
    of its own. With an entry of ours there it would list all of `data_dir` first, thousands of videos, and break when
    the table changes.

    Args:
        data_dir (`str` or `os.PathLike`, *optional*): the folder that `ego4d -o` was given, or its `v2` or `v2_1`.
        config (`str`, *optional*): "default", "full_scale" or "video_540ss".
        split (`str`, *optional*): "train", "val", "test", "all", or an expression such as "train[:10%]+val".
        streaming (`bool`, *optional*): read rows as they are asked for, rather than mapping a cached file.
        num_proc (`int`, *optional*): processes that write the cache. The JSON is parsed by one.
        cache_dir (`str` or `os.PathLike`, *optional*): by default that of `datasets`.
        options: fields of [`Ego4dConfig`], such as `split_files` or `keep_missing_videos`.

    Returns:
        `DatasetDict`, or `IterableDatasetDict` if streaming, without splits that have no action; with a `split`,
        `Dataset` or `IterableDataset`. How many actions were left out and why is logged, each time: as a warning, if
        some are faulty or their video is missing.

    Raises:
        FileNotFoundError: no such folder, annotation file or video folder.
        ValueError: an annotation or split file that is none, by name and place, or no action that is left.
    """
    builder = _builder(Ego4dNarratedActions, data_dir, config, cache_dir, options)
    return _load(builder, split=split, streaming=streaming, num_proc=num_proc)


def load_epic_kitchens(
    data_dir: str | os.PathLike | None = None,
    config: str = "default",
    *,
    split: str | None = None,
    streaming: bool = False,
    num_proc: int | None = None,
    cache_dir: str | os.PathLike | None = None,
    **options,
):
    """
    EPIC-KITCHENS-100's narrated actions, from annotation files and videos on disk.

    Args:
        data_dir (`str` or `os.PathLike`, *optional*): the folder of `EPIC_100_train.csv` and the other files.
        config (`str`, *optional*): "default" or "annotated", see [`EpicKitchensNarratedActions`].
        split, streaming, num_proc, cache_dir: as for [`load_ego4d`]; the splits are "train" and "val".
        options: fields of [`EpicKitchensConfig`], such as `video_dirs` or `keep_missing_videos`.

    Returns and raises what [`load_ego4d`] does.
    """
    builder = _builder(EpicKitchensNarratedActions, data_dir, config, cache_dir, options)
    return _load(builder, split=split, streaming=streaming, num_proc=num_proc)


# ------------------------------------------------------------------------------------------------------------ details


def _builder(builder_class, data_dir, config: str, cache_dir, options: dict) -> NarratedActionsBuilder:
    data_dir = None if data_dir is None else os.path.abspath(os.path.expanduser(data_dir))
    cache_dir = None if cache_dir is None else os.fspath(cache_dir)
    options = {name: value for name, value in options.items() if value is not None}
    return builder_class(config_name=config, data_dir=data_dir, cache_dir=cache_dir, **options)


def _load(builder: NarratedActionsBuilder, *, split: str | None, streaming: bool, num_proc: int | None):
    if streaming:
        dataset = builder.as_streaming_dataset(split=split)
        if split is None:
            dataset = datasets.IterableDatasetDict(dataset)
    else:
        builder.download_and_prepare(num_proc=num_proc)
        dataset = builder.as_dataset(split=split)
    if builder.report:
        complaints = any(line.startswith(("skipped", "videos: not")) for line in builder.report)
        logger.log(logging.WARNING if complaints else logging.INFO, "\n".join(builder.report))
    return dataset


def _as_list(folders) -> list[str]:
    return [os.fspath(path) for path in ([folders] if isinstance(folders, str | os.PathLike) else folders)]


def _hash_file(path: str | os.PathLike) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _find_epic_videos(paths: Iterable[Path], video_dirs: list[str]) -> list[tuple[str, str]]:
    """The video file of each video that the CSV files name, as far as their lines can be read."""
    video_ids = set()
    for path in paths:
        # What is wrong with a file or a line the reader will say.
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file, suppress(csv.Error):
            for row in csv.DictReader(file):
                video_ids.add(row.get("video_id") or "")
    found = []
    for video_id in sorted(video_ids):
        with suppress(InvalidActionError):
            found.append((video_id, find_epic_video(video_dirs, video_id)))
    return found


__all__ = [
    "Ego4dConfig",
    "Ego4dNarratedActions",
    "EpicKitchensConfig",
    "EpicKitchensNarratedActions",
    "load_ego4d",
    "load_epic_kitchens",
]
