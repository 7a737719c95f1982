"""Upload of a checkpoint's folder to the Hub."""

from huggingface_hub import HfApi

from .exporting import ExportedCheckpoint
from .weight_files import WEIGHT_PATTERNS


def upload_checkpoint(
    checkpoint: ExportedCheckpoint,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str = "Upload checkpoint",
) -> str:
    """
    Uploads what was exported; weights that the repository had before are deleted.

    Args:
        checkpoint ([`ExportedCheckpoint`]): of it those files alone, whatever else lies in its folder.
        repo_id (`str`): "user/name", which is made if there is none.
        private (`bool`, *optional*): Whether a new repository is; by default as its owner has set it.
        token (`str` or `bool`, *optional*): by default, of `hf auth login` or `HF_TOKEN`.
        commit_message (`str`): of the commit.

    Returns:
        `str`: the address of the last commit.

    Raises:
        huggingface_hub.errors.HfHubHTTPError: if the Hub refuses, say for want of a token that may write.
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    commit = api.upload_folder(
        repo_id=repo_id,
        folder_path=checkpoint.folder,
        commit_message=commit_message,
        allow_patterns=checkpoint.files,
        delete_patterns=WEIGHT_PATTERNS,
    )
    return commit.commit_url


__all__ = ["upload_checkpoint"]
