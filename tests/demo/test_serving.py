"""What a page gives to whom, and what it refuses: asked as a client asks that is no browser."""

import re
import runpy
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import PathFinder
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest
import yaml
from eilev_app import EXAMPLES
from gradio_client import Client, handle_file
from gradio_client.utils import QueueError
from pages import CLIPS, ROOT
from serving import new_page

from transformers_eilev.processing_video_blip_2 import DEFAULT_PROMPT


DEMO = ROOT / "examples" / "demo"
CLIP = CLIPS / "wams_the_fedan.mp4"


def client_of(page):
    return Client(page.address, verbose=False)


def ask(client, path):
    return client.predict(path, DEFAULT_PROMPT, 1, 32, api_name="/respond")


def test_listens_at_this_machine_alone(eilev_page):
    with socket.create_connection(("127.0.0.1", eilev_page.port), timeout=5):
        pass
    with pytest.raises(OSError):  # where one that listens at 0.0.0.0 would answer, too
        socket.create_connection(("127.0.0.2", eilev_page.port), timeout=5)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "//etc/passwd",
        f"{CLIPS}/../../setup.py",
        f"{CLIPS}/%2e%2e/%2e%2e/setup.py",
        "../../../../../../../../etc/passwd",
        "..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "examples/demo/serving.py",
        "setup.py",
        f"{CLIPS}/README.md",
        "file:///etc/passwd",
    ],
)
def test_other_files_are_not_served(eilev_page, path):
    status, content = eilev_page.get(f"file={path}")
    assert status in (403, 404) and b"root:" not in content and b"import" not in content


@pytest.mark.parametrize("address", ["https://example.com/", "http:%2f%2fexample.com/"])
def test_nothing_of_other_hosts_is_handed_on(eilev_page, address):
    """Told by the message: without a network Gradio would fail as well."""
    assert eilev_page.get(f"file={address}") == (403, b"Only files of this page are served.")


def test_the_clips_of_the_examples_are(eilev_page):
    assert eilev_page.get(f"file={CLIP}") == (200, CLIP.read_bytes())


@pytest.mark.parametrize("path", ["/etc/passwd", str(ROOT / "docs" / "synthetic.png"), "https://example.com/clip.mp4"])
def test_only_what_was_uploaded_is_read(eilev_page, path):
    """Not by Gradio's client, which would upload a file of that path first."""
    given = {"path": path, "meta": {"_type": "gradio.FileData"}}
    event, data = call(eilev_page, "respond", [given, DEFAULT_PROMPT, 1, 32])
    assert event == "error" and "root:" not in data
    assert ("Addresses are not downloaded" in data) == ("://" in path)
    uploaded = {**given, "path": upload(eilev_page, CLIP)}
    event, data = call(eilev_page, "respond", [uploaded, DEFAULT_PROMPT, 1, 32])
    assert event == "complete" and "The camera wearer" in data


def call(page, name, data):
    """What the last event of a call says."""
    address = f"{page.address}/gradio_api/call/{name}"
    event_id = httpx.post(address, json={"data": data}).json()["event_id"]
    last = httpx.get(f"{address}/{event_id}", timeout=60).text.strip().split("\n\n")[-1]
    event, data = last.splitlines()
    return event.removeprefix("event: "), data


def upload(page, path):
    """Where the server keeps a file."""
    answer = httpx.post(f"{page.address}/gradio_api/upload", files={"files": (path.name, path.read_bytes())})
    answer.raise_for_status()
    return answer.json()[0]


def test_large_files_are_refused_while_they_are_uploaded(eilev_page, bad_files):
    with pytest.raises(httpx.HTTPStatusError, match="413"):
        upload(eilev_page, bad_files["large"])
    assert not list(eilev_page.files.rglob("large.mp4"))


def test_clients_do_not_share_a_conversation(eilev_page):
    first, second = client_of(eilev_page), client_of(eilev_page)
    for name in ("wams_the_carrot", "inserts_the_fedan"):
        narration = f"The camera wearer {name.replace('_', ' ')}."
        first.predict(handle_file(CLIPS / f"{name}.mp4"), DEFAULT_PROMPT, narration, api_name="/add")
    of_second, of_first = ask(second, handle_file(CLIP))[0], ask(first, handle_file(CLIP))[0]
    assert [len(of_first), len(of_second)] == [6, 2]
    assert "wams the fedan" in str(of_first[-1]) and "fedan" not in str(of_second[-1]["content"])


def test_who_comes_while_all_places_are_taken_is_told_so(video_blip_page):
    settings = (DEFAULT_PROMPT, True, 0.7, 0.9, 8, 128, 42)

    def answer(client):
        try:
            return client.predict(handle_file(CLIP), *settings, api_name="/answer")[0]
        except QueueError as error:
            return str(error)

    with ThreadPoolExecutor(12) as pool:
        clients = list(pool.map(lambda _: client_of(video_blip_page), range(12)))
        said = list(pool.map(answer, clients))
    told = [text for text in said if "full" in text]
    assert told and len({text for text in said if text not in told}) == 1  # one seed, one answer


def test_uploads_lie_in_a_folder_of_the_server_alone(eilev_page):
    """Which is gone at the end: see the fixture."""
    uploaded = Path(upload(eilev_page, CLIP))
    (folder,) = eilev_page.files.glob("narration-demo-*")
    assert uploaded.is_file() and folder in uploaded.parents and (folder.stat().st_mode & 0o077) == 0


def test_files_are_deleted_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with new_page("Test", keep_sec=1) as page:
        file = gr.File()
        gr.Button().click(lambda path: path, file, file, api_name="same")
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)
    try:
        server = SimpleNamespace(address=address.rstrip("/"))
        uploaded = Path(upload(server, CLIP))
        assert tmp_path in uploaded.parents and uploaded.is_file()
        deadline = time.monotonic() + 20
        while uploaded.exists():
            assert time.monotonic() < deadline, "it is still there"
            time.sleep(0.1)
    finally:
        page.close(verbose=False)


def test_a_space_has_what_it_needs(tmp_path):
    """Put together as README.md says; its pages find the package and the clips beside them."""
    readme = (DEMO / "README.md").read_text()
    head = yaml.safe_load(readme.split("---")[1])
    assert head["sdk"] == "gradio" and (DEMO / head["app_file"]).is_file() and head["license"] == "mit"
    assert head["models"] and len(head["short_description"]) <= 60
    (commands,) = [block for block in re.findall(r"```bash\n(.*?)```", readme, re.DOTALL) if "build/space" in block]
    for folder in ("examples", "src"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    shell = [line for line in commands.splitlines() if not line.startswith("hf ")]
    subprocess.run(["bash", "-ec", "\n".join(shell)], cwd=tmp_path, check=True)
    space = tmp_path / "build" / "space"
    assert PathFinder.find_spec("transformers_eilev", [str(space)]).origin == str(
        space / "transformers_eilev/__init__.py"
    )
    assert runpy.run_path(str(space / "serving.py"))["CLIPS"] == space / "clips"
    for clips, asked in EXAMPLES.values():
        assert all((space / "clips" / f"{name}.mp4").is_file() for name in (*clips, asked))


def test_a_space_is_told_to_install_what_the_package_needs():
    wanted = re.findall(
        r'"([a-z-]+)[^"]*"', re.search(r"INSTALL_REQUIRES = \[(.*?)\]", (ROOT / "setup.py").read_text(), re.S)[1]
    )
    listed = [line for line in (DEMO / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert [re.match(r"[a-z-]+", line)[0] for line in listed] == wanted
