"""Where a model sees clips: their features, brought down to the plane."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from ..in_context.clip_features import ClipEncoder, ClipFeatures


# What a clip can be seen as.
FEATURES: dict[str, Callable[[ClipFeatures], Any]] = {
    "vision": lambda features: features.vision_embedding,
    "qformer": lambda features: features.qformer_embedding,
    "tokens": lambda features: features.video_hidden_states.float().flatten(),
}
METHODS = ("tsne", "umap")
# Neighbours of a clip, in both methods.
NUM_NEIGHBOURS = {"tsne": 30, "umap": 15}
# As t-SNE's authors do, to take noise away (https://lvdmaaten.github.io/tsne/).
_NUM_COMPONENTS = 50


def embed_clips(
    encoder: ClipEncoder,
    rows: Sequence[dict[str, Any]],
    load_clip: Callable[[dict], Any],
    *,
    features: str = "qformer",
    batch_size: int = 8,
    progress: bool = False,
) -> np.ndarray:
    """
    Features of narrated clips; those that are in the encoder's store are not computed again.

    Args:
        encoder ([`ClipEncoder`]): of the model.
        rows (`Sequence[dict]`): of clips, such as a `datasets.Dataset`.
        load_clip (`Callable`): gives a row's frames, such as a [`FrameLoader`].
        features (`str`, defaults to "qformer"): of the vision model ("vision": mean over frames and patches), of the
            Q-Former ("qformer": mean over its queries), or what stands in the text for the clip ("tokens": the
            projected queries, one after the other, in which place tells them apart).
        batch_size (`int`, defaults to 8): clips at a time.
        progress (`bool`, defaults to `False`): show a bar.

    Returns:
        `np.ndarray` of shape `(num_clips, size)`: float32.

    Raises:
        ValueError: for other `features`; a clip without frames, by its name.
    """
    if features not in FEATURES:
        raise ValueError(f"`features` must be of {[*FEATURES]}, but is {features!r}")
    found = []
    with tqdm(total=len(rows), unit="clip", disable=not progress) as bar:
        for begin in range(0, len(rows), batch_size):
            batch = [load_clip(rows[index]) for index in range(begin, min(begin + batch_size, len(rows)))]
            found += [FEATURES[features](clip).numpy() for clip in encoder.encode(batch, batch_size=batch_size)]
            bar.update(len(batch))
    return np.stack(found)


def project(
    embeddings: np.ndarray, *, method: str = "tsne", num_neighbours: int | None = None, seed: int = 0
) -> np.ndarray:
    """
    Brings points down to the plane, so that neighbours stay such. Distances in it mean little, and are no distances
    between data sets.

    Args:
        embeddings (`np.ndarray` of shape `(num_points, size)`): of which the 50 principal components are taken.
        method (`str`, defaults to "tsne"): scikit-learn's t-SNE, or "umap", umap-learn's.
        num_neighbours (`int`, *optional*): of a point, perplexity of t-SNE; by default 30, and 15 of UMAP. For few
            points it is less: a third of them.
        seed (`int`, defaults to 0): the same points and seed give the same plane.

    Returns:
        `np.ndarray` of shape `(num_points, 2)`.

    Raises:
        ValueError: for another method; with less than 6 points; if `num_neighbours` is less than 2.
        ImportError: without the library of the method.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be of {list(METHODS)}, but is {method!r}")
    if len(embeddings) < 6:
        raise ValueError(f"A map needs at least 6 clips, but there are {len(embeddings)}")
    num_neighbours = NUM_NEIGHBOURS[method] if num_neighbours is None else num_neighbours
    if num_neighbours < 2:
        raise ValueError(f"`num_neighbours` must be at least 2, but is {num_neighbours}")
    num_neighbours = min(num_neighbours, (len(embeddings) - 1) // 3 + 1)
    try:
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ImportError("Maps of clips need scikit-learn: pip install scikit-learn") from error
    num_components = min(_NUM_COMPONENTS, *embeddings.shape)
    points = PCA(num_components, svd_solver="full").fit_transform(embeddings.astype(np.float64))
    if method == "tsne":
        return TSNE(perplexity=num_neighbours, random_state=seed, init="pca").fit_transform(points)
    try:
        from umap import UMAP
    except ImportError as error:
        raise ImportError("`method` 'umap' needs umap-learn: pip install umap-learn") from error
    # In one thread, or the seed would not decide.
    return UMAP(n_neighbors=num_neighbours, random_state=seed, n_jobs=1).fit_transform(points)


def draw_clips(num_clips: int, max_clips: int | None, seed: Sequence[int]) -> list[int]:
    """
    Rows of a data set: all of them, or `max_clips` drawn at random, ascending.

    Args:
        num_clips (`int`): that there are.
        max_clips (`int`, *optional*): that are wanted.
        seed (`Sequence[int]`): what decides which.
    """
    if max_clips is None or max_clips >= num_clips:
        return list(range(num_clips))
    return sorted(np.random.default_rng(list(seed)).choice(num_clips, max_clips, replace=False).tolist())


__all__ = ["FEATURES", "METHODS", "draw_clips", "embed_clips", "project"]
