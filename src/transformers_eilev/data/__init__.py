"""
Ego4D and EPIC-KITCHENS from their own files to training samples, and a synthetic set of the same shape.

Nothing heavy happens at import: each name is loaded when it is first asked for.
"""

from ..lazy_names import lazy_names


_MODULE_OF = {
    "ACTION_COLUMNS": "actions",
    "ActionReport": "actions",
    "BalancedContextSampler": "context_samplers",
    "ClipStoreWriter": "clip_store",
    "ContextSampler": "context_samplers",
    "DataCollatorForVideoNarration": "collator",
    "EPIC_ACTION_COLUMNS": "epic_kitchens",
    "Ego4dConfig": "builders",
    "Ego4dNarratedActions": "builders",
    "Ego4dReport": "ego4d",
    "EpicKitchensAction": "epic_kitchens",
    "EpicKitchensConfig": "builders",
    "EpicKitchensNarratedActions": "builders",
    "EpicKitchensReport": "epic_kitchens",
    "EpisodeNames": "episode_names",
    "FrameLoader": "narrated_clips",
    "InContextDataset": "in_context",
    "InContextSampler": "context_samplers",
    "InvalidActionError": "actions",
    "KnownWords": "episode_names",
    "NarratedAction": "actions",
    "ORDER_FREE_VERBS": "synthetic",
    "PROMPTS": "narrations",
    "PresampledContexts": "presampled_contexts",
    "SyntheticConfig": "synthetic",
    "action_to_sentence": "standard_sentences",
    "build_narration": "plain_narrations",
    "clean_narration_text": "narrations",
    "count_by_video": "splits",
    "extract_clips": "extraction",
    "hold_out_rare_pairs": "splits",
    "iter_ego4d_actions": "ego4d",
    "iter_epic_kitchens_actions": "epic_kitchens",
    "load_clip_store": "clip_store",
    "load_ego4d": "builders",
    "load_epic_kitchens": "builders",
    "load_fho_words": "fho_words",
    "load_narrated_clips": "narrated_clips",
    "make_synthetic_dataset": "synthetic",
    "parse_narration": "plain_narrations",
    "read_actions": "action_files",
    "read_ego4d_actions": "ego4d",
    "read_epic_kitchens_actions": "epic_kitchens",
    "read_frame_folders": "clip_store",
    "read_split_file": "splits",
    "split_by_video": "splits",
    "store_own_clips": "own_clips",
    "upsample": "context_samplers",
    "words_by_label": "episode_names",
    "write_actions_csv": "action_files",
    "write_contexts": "presampled_contexts",
    "write_frame_folders": "clip_store",
    "write_split_files": "splits",
}

__getattr__, __dir__, __all__ = lazy_names(__name__, _MODULE_OF)
