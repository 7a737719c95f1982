"""A Hub on the loopback interface: as much of its HTTP interface as uploads and downloads of models speak.

Without xet (`HF_HUB_DISABLE_XET=1`): its protocol is closed to others. Repositories are in memory.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    private: bool
    blobs: dict[str, str] = field(default_factory=dict)  # path -> sha256, of the branch "main"
    commits: list[str] = field(default_factory=list)

    def commit(self, message):
        state = json.dumps([self.commits, sorted(self.blobs.items()), message])
        self.commits.append(hashlib.sha1(state.encode()).hexdigest())


class Refusal(Exception):
    """An answer other than "here it is"."""

    def __init__(self, status, code=None, message=""):
        self.status, self.code, self.message = status, code, message


class LoopbackHub:
    """
    Args:
        tokens (`dict[str, str]`): the user whom each token belongs to.
    """

    def __init__(self, tokens):
        self.tokens = tokens
        self.repositories = {}
        self.contents = {}  # sha256 -> bytes
        self.verified = set()
        self.requests = []  # (method, path)
        self.unknown = []  # what this Hub knows no answer to
        self.lock = threading.Lock()

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def storage(self):
        """Another name of the same: of large files the Hub says where else they lie."""
        return self.endpoint.replace("127.0.0.1", "localhost")

    def environment(self, cache, token=None):
        """For a process that shall take this for the Hub, with a cache of its own."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(cache),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": token or "",
        }

    def read(self, repo_id, path):
        return self.contents[self.repositories[repo_id].blobs[path]]

    def is_lfs(self, path):
        return path.endswith((".safetensors", ".bin"))


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self):
        self.body = self._read_body()
        path = unquote(urlsplit(self.path).path)
        with self.hub.lock:
            self.hub.requests.append((self.command, path))
            try:
                for method, pattern, handle in _ROUTES:
                    if method == self.command and (match := re.fullmatch(pattern, path)):
                        return handle(self, **{name: part for name, part in match.groupdict().items() if part})
                self.hub.unknown.append((self.command, path))
                raise Refusal(501, message=f"This Hub knows no {self.command} {path}")
            except Refusal as refusal:
                codes = {"X-Error-Code": refusal.code} if refusal.code else {}
                self._send(refusal.status, {"error": refusal.message}, {**codes, "X-Error-Message": refusal.message})

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def _read_body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(self, status, content=b"", headers=None):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    @property
    def user(self):
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if not scheme:
            return None
        if token not in self.hub.tokens:
            raise Refusal(401, message="Invalid credentials in Authorization header")
        return self.hub.tokens[token]

    def _repository(self, repo_id, writes=False):
        """As the Hub does: of what one may not see it says that there is none."""
        repository, owner = self.hub.repositories.get(repo_id), repo_id.split("/")[0]
        if repository is None or (repository.private and self.user != owner):
            raise Refusal(404 if self.user else 401, "RepoNotFound", "Repository not found")
        if writes and self.user != owner:
            raise Refusal(403 if self.user else 401, message=f"You may not write to {repo_id}")
        return repository

    # Answers

    def whoami(self):
        if self.user is None:
            raise Refusal(401, message="Invalid username or password.")
        self._send(200, {"name": self.user, "type": "user", "orgs": []})

    def create(self):
        wanted = json.loads(self.body)
        owner = wanted.get("organization") or self.user
        if self.user is None or owner != self.user:
            raise Refusal(403 if self.user else 401, message=f"You may not make a repository of {owner}")
        repo_id = f"{owner}/{wanted['name']}"
        exists = repo_id in self.hub.repositories
        if not exists:
            self.hub.repositories[repo_id] = Repository(wanted.get("visibility") == "private")
            self.hub.repositories[repo_id].commit("initial commit")
        self._send(409 if exists else 200, {"url": f"{self.hub.endpoint}/{repo_id}"})

    def info(self, repo_id, revision="main"):
        repository = self._repository(repo_id)
        self._send(
            200,
            {
                "id": repo_id,
                "modelId": repo_id,
                "sha": self._commit_of(repository, revision),
                "private": repository.private,
                "tags": [],
                "siblings": [{"rfilename": path} for path in sorted(repository.blobs)],
            },
        )

    def tree(self, repo_id, revision, folder=""):
        repository = self._repository(repo_id)
        self._commit_of(repository, revision)
        blobs = {path: digest for path, digest in sorted(repository.blobs.items()) if path.startswith(folder)}
        if folder and not blobs:
            raise Refusal(404, "EntryNotFound", f"There is no folder {folder}")
        self._send(200, [self._entry(path, digest) for path, digest in blobs.items()])

    def _entry(self, path, digest):
        size = len(self.hub.contents[digest])
        lfs = {"lfs": {"oid": digest, "size": size, "pointerSize": 130}} if self.hub.is_lfs(path) else {}
        return {"type": "file", "path": path, "size": size, "oid": digest[:40], **lfs}

    def preupload(self, repo_id, revision):
        self._repository(repo_id, writes=True)
        paths = [file["path"] for file in json.loads(self.body)["files"]]
        modes = {path: "lfs" if self.hub.is_lfs(path) else "regular" for path in paths}
        files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
        self._send(200, {"files": files})

    def lfs_batch(self, repo_id):
        self._repository(repo_id, writes=True)
        objects = []
        for item in json.loads(self.body)["objects"]:
            url = f"{self.hub.storage}/lfs/{item['oid']}"
            actions = {"upload": {"href": url}, "verify": {"href": f"{url}/verify"}}
            objects.append({**item, **({} if item["oid"] in self.hub.contents else {"actions": actions})})
        self._send(200, {"transfer": "basic", "objects": objects})

    def lfs_upload(self, digest):
        if self._store(self.body) != digest:
            raise Refusal(400, message=f"What was sent is not {digest}")
        self._send(200)

    def lfs_verify(self, digest):
        if len(self.hub.contents.get(digest, b"")) != json.loads(self.body)["size"]:
            raise Refusal(404, message=f"There is no {digest} of this size")
        self.hub.verified.add(digest)
        self._send(200, {})

    def lfs_download(self, digest):
        self._send(200, self.hub.contents[digest], {"ETag": f'"{digest}"'})

    def commit(self, repo_id, revision):
        repository = self._repository(repo_id, writes=True)
        header, *operations = [json.loads(line) for line in self.body.splitlines()]
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                repository.blobs[value["path"]] = self._store(base64.b64decode(value["content"]))
            elif operation["key"] == "lfsFile" and value["oid"] in self.hub.contents:
                repository.blobs[value["path"]] = value["oid"]
            elif operation["key"] == "deletedFile":
                del repository.blobs[value["path"]]
            else:
                raise Refusal(400, message=f"Can't commit {operation['key']} of {value}")
        repository.commit(header["value"]["summary"])
        sha = repository.commits[-1]
        self._send(200, {"commitUrl": f"{self.hub.endpoint}/{repo_id}/commit/{sha}", "commitOid": sha})

    def resolve(self, repo_id, revision, path):
        repository = self._repository(repo_id)
        headers = {"X-Repo-Commit": self._commit_of(repository, revision)}
        if path not in repository.blobs:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        digest = repository.blobs[path]
        content = self.hub.contents[digest]
        if self.hub.is_lfs(path):
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": len(content)}
            self._send(302, headers={**headers, "Location": f"{self.hub.storage}/lfs/{digest}"})
        else:
            self._send(200, content, {**headers, "ETag": f'"{digest[:40]}"'})

    def validate_yaml(self):
        self._send(200, {"errors": [], "warnings": []})

    def _commit_of(self, repository, revision):
        if revision not in ("main", repository.commits[-1]):
            raise Refusal(404, "RevisionNotFound", f"There is no revision {revision}")
        return repository.commits[-1]

    def _store(self, content):
        digest = hashlib.sha256(content).hexdigest()
        self.hub.contents[digest] = content
        return digest


_REPO = r"(?P<repo_id>[^/]+/[^/]+?)"
_ROUTES = [
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate_yaml),
    ("GET", rf"/api/models/{_REPO}", _Handler.info),
    ("GET", rf"/api/models/{_REPO}/revision/(?P<revision>[^/]+)", _Handler.info),
    ("GET", rf"/api/models/{_REPO}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", _Handler.tree),
    ("POST", rf"/api/models/{_REPO}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    ("POST", rf"/api/models/{_REPO}/commit/(?P<revision>[^/]+)", _Handler.commit),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<digest>[0-9a-f]+)", _Handler.lfs_upload),
    ("POST", r"/lfs/(?P<digest>[0-9a-f]+)/verify", _Handler.lfs_verify),
    ("GET", r"/lfs/(?P<digest>[0-9a-f]+)", _Handler.lfs_download),
    ("HEAD", r"/lfs/(?P<digest>[0-9a-f]+)", _Handler.lfs_download),
    ("HEAD", rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
    ("GET", rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
]
