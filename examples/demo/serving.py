"""What both pages have in common: their arguments, their model, and how they are served to strangers."""

import argparse
import html
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
from clip_files import UploadLimits
from narrator import Narrator
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from transformers_eilev.commands.loading import load_model, load_processor
from transformers_eilev.notices import notice_of


HERE = Path(__file__).resolve().parent
# In a Space the clips lie beside the page.
CLIPS = next(folder for folder in (HERE / "clips", HERE.parent / "narration") if folder.is_dir())
# One at a time: the model is one.
ONE_AT_A_TIME = {"concurrency_limit": 1, "concurrency_id": "model"}
# Whose conversations are kept, the latest ones: each has up to 32 clips' frames, 40 MB of 224x224 pixels.
MAX_VISITORS = 100
STYLE = """
.gradio-container, .gradio-container > main { width: 100% !important; max-width: 1240px !important; margin: auto }
#conversation video, #conversation img { height: 84px; width: auto }
#conversation .message .wrap { background: none }
#conversation .message-buttons { display: none }
/* A fault has its message: what it covers is what the visitor needs to mend it. */
[data-testid="status-tracker"]:has(.error) { display: none !important }
/* Needs a program from another host. */
button[aria-label="Trim video to selection"] { display: none }
#notice { border-left: 4px solid var(--color-accent); padding-left: 12px }
"""


def parse_arguments(description: str, model: str) -> argparse.Namespace:
    """The command line of a page whose default checkpoint is `model`."""
    limits = UploadLimits()
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=model, help="folder, model id, or name of a checkpoint in the package")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; a GPU if there is one")
    parser.add_argument(
        "--dtype", default="auto", help="float32, bfloat16, float16, or auto: what the checkpoint says"
    )
    parser.add_argument("--server_name", help="address to listen at; 127.0.0.1, or what GRADIO_SERVER_NAME says")
    parser.add_argument("--server_port", type=int, help="port to listen at; a free one from 7860 on")
    parser.add_argument("--max_waiting", type=int, default=16, help="visitors that may wait for the model")
    parser.add_argument("--max_bytes", type=int, default=limits.max_bytes, help="size of an uploaded file")
    parser.add_argument("--max_sec", type=float, default=limits.max_sec, help="length of an uploaded clip")
    parser.add_argument("--keep_sec", type=int, default=3600, help="how long files and conversations are kept")
    return parser.parse_args()


def load_narrator(args: argparse.Namespace) -> Narrator:
    """The checkpoint that the command line names."""
    return Narrator(load_model(args.model, device=args.device, dtype=args.dtype), load_processor(args.model))


def limits_of(args: argparse.Namespace) -> UploadLimits:
    """What the command line says that an uploaded file may cost."""
    return UploadLimits(max_bytes=args.max_bytes, max_sec=args.max_sec)


def heading(title: str, text: str, narrator: Narrator, name: str) -> None:
    """The top of a page: what it is for, which checkpoint narrates, and what that says about itself."""
    gr.Markdown(f"# {title}\n{text} Narrated by `{Path(name).name if Path(name).is_dir() else name}`.")
    if notice := notice_of(narrator.model.config):
        gr.Markdown(notice, elem_id="notice")


def new_page(title: str, keep_sec: int) -> gr.Blocks:
    """An empty page, whose files are deleted when they are older than `keep_sec`. It calls home to nobody."""
    return gr.Blocks(title=title, analytics_enabled=False, delete_cache=(min(600, keep_sec), keep_sec))


def frame_sheet() -> gr.Image:
    """Where the frames are shown that the model saw."""
    gr.Markdown("**What the model saw**")
    return gr.Image(show_label=False, format="png", interactive=False, buttons=[], elem_id="sheet")


def limits_in_words(limits: UploadLimits, keep_sec: int) -> str:
    """What visitors should know before they upload."""
    return (
        f"A file may have {limits.max_bytes / 1e6:g} MB, a clip {limits.max_sec:g} s; what you upload is deleted "
        f"after {keep_sec / 60:g} minutes."
    )


# Gradio takes a button for busy only once its click was sent: the second of a double click would come through.
ONE_CLICK = """<script>
document.addEventListener("click", (event) => {
    if (event.detail > 1 && event.target.closest("#add, #respond, #answer")) event.stopImmediatePropagation();
}, true);
</script>"""


@contextmanager
def told_to_visitors() -> Iterator[None]:
    """What is wrong with what a visitor gave is a message on the page, and not an error of the program."""
    try:
        yield
    except ValueError as error:
        # Messages are shown as HTML, and may quote what a visitor wrote.
        raise gr.Error(html.escape(str(error)), print_exception=False) from error
    except Exception as error:
        traceback.print_exc()
        message = "Something went wrong on the server. Try again, or with a shorter clip."
        raise gr.Error(message, print_exception=False) from error


def serve(build: Callable[[], gr.Blocks], args: argparse.Namespace) -> None:
    """
    Serves a page until the process is told to stop.

    Uploaded files lie in a folder of this process alone, which is gone when it ends; in between those older than
    `keep_sec` are deleted. Beside them only the clips of the examples are served.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the folder is deleted then, too
    with tempfile.TemporaryDirectory(prefix="narration-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build()
        page.queue(max_size=args.max_waiting, default_concurrency_limit=1)
        page.launch(
            server_name=args.server_name,
            server_port=args.server_port,
            share=False,
            allowed_paths=[str(clip) for clip in CLIPS.glob("*.mp4")],
            max_file_size=args.max_bytes,
            state_session_capacity=MAX_VISITORS,
            app_kwargs={"middleware": [Middleware(NoAddresses)]},
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            css=STYLE,
            head=ONE_CLICK,
            footer_links=[],
            ssr_mode=False,
        )


class NoAddresses:
    """Gradio would hand on any public web page under `file=https://...`: this server hands on nothing."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        _, found, wanted = scope.get("path", "").partition("/file=")
        if found and "://" in wanted:
            await PlainTextResponse("Only files of this page are served.", status_code=403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def uploads_alone(component: gr.File | gr.Video) -> gr.File | gr.Video:
    """A component that takes files of visitors: Gradio's own would download what a client gives the address of."""
    # Not in a class of ours: Gradio writes a file beside the code of such a one.
    move = component.async_move_resource_to_block_cache

    async def move_file(url_or_file_path):
        if "://" in str(url_or_file_path or ""):
            raise gr.Error("Addresses are not downloaded: upload the file", print_exception=False)
        return await move(url_or_file_path)

    component.async_move_resource_to_block_cache = move_file
    return component
