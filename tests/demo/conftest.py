"""Pages that run in a process of their own, as a user starts them, and a browser to look at them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from pages import ROOT


MAX_BYTES = 100_000


@dataclass
class Server:
    """A page that is served."""

    port: int
    files: Path
    process: subprocess.Popen

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    def get(self, path):
        """Status and content of an answer."""
        try:
            with urllib.request.urlopen(f"{self.address}/gradio_api/{path}", timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=30) == 0
        assert [path for path in self.files.rglob("*") if path.is_file()] == []  # what was uploaded is gone


def start(script, folder, *arguments):
    """Starts a page, whose temporary files go to `folder`, and waits until it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder.parent / f"{folder.name}.log"
    environment = {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    environment.pop("GRADIO_SERVER_NAME", None)
    command = [sys.executable, f"examples/demo/{script}", "--server_port", str(port), *map(str, arguments)]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    server = Server(port, folder, process)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(server.address, timeout=5).close()
            return server
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise RuntimeError(log.read_text())


@pytest.fixture(scope="session")
def eilev_page(tmp_path_factory):
    arguments = ["--max_bytes", MAX_BYTES, "--max_sec", 20]
    server = start("eilev_app.py", tmp_path_factory.mktemp("eilev"), *arguments)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def video_blip_page(tmp_path_factory):
    server = start("video_blip_app.py", tmp_path_factory.mktemp("video_blip"), "--max_waiting", 1)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def chromium():
    """The program of a browser."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("needs a browser: apt-get install chromium")
    return found


@pytest.fixture(scope="session")
def bad_files(tmp_path_factory):
    """Files that a page refuses, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "text.mp4").write_text("This is no video. " * 20)
    (folder / "large.mp4").write_bytes(bytes(MAX_BYTES + 1))
    with av.open(str(folder / "long.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        black = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        for _ in range(25):
            container.mux(stream.encode(black))
        container.mux(stream.encode())
    return {path.stem: path for path in folder.iterdir()}
