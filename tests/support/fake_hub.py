"""A Hugging Face hub on this machine, for tests: the endpoints that huggingface_hub 2.4's
`snapshot_download`, `create_repo` and `upload_folder` use, with the failures that a real one has.

    with FakeHub() as hub:
        hub.add("org/model", {"config.json": b"{}"})
        subprocess.run(..., env=os.environ | hub.environment(tmp_path))

In the test's own process: `hub.use(monkeypatch, tmp_path)`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import pytest

GOOD_TOKEN = "hf_let_me_in"
LARGE = (".safetensors", ".pt", ".bin", ".parquet")  # stored as LFS objects


def git_digest(data: bytes) -> str:
    """What git calls a file with these contents."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repository:
    """Files, and how it behaves.

    gated: only GOOD_TOKEN may download (as on the hub, everyone may ask what it holds). private: without the
    token it looks as if it did not exist. cuts: file → after how many bytes each of the next requests for it
    breaks off. damaged: file → what the next request for it gets instead, of the same size.
    """

    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    cuts: dict[str, list[int]] = field(default_factory=dict)
    damaged: dict[str, bytes] = field(default_factory=dict)

    @property
    def sha(self) -> str:
        """The commit."""
        contents = (f"{path}\0{hashlib.sha1(data).hexdigest()}" for path, data in sorted(self.files.items()))
        return hashlib.sha1("\n".join(contents).encode()).hexdigest()

    def listing(self) -> list[dict[str, Any]]:
        """What the tree endpoint says."""
        rows: list[dict[str, Any]] = []
        for path, data in self.files.items():
            row: dict[str, Any] = {
                "type": "file",
                "path": path,
                "size": len(data),
                "oid": git_digest(data),
            }
            if path.endswith(LARGE):
                row["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            rows.append(row)
        folders = {str(Path(path).parent) for path in self.files if "/" in path}
        return rows + [{"type": "directory", "path": f, "size": 0, "oid": "0" * 40} for f in sorted(folders)]


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    range: str | None


class FakeHub:
    """The server, from `with` to the end of it. requests: what was asked for, in order."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Asked] = []
        self.user: dict[str, Any] = {"name": "me", "orgs": [{"name": "us"}]}  # whose token GOOD_TOKEN is
        hub = self

        class Handler(_Handler):
            fake = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """What HF_ENDPOINT must be."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def add(self, name: str, files: dict[str, bytes], **behaviour: Any) -> Repository:
        """A model `org/name`, or a dataset `datasets/org/name`."""
        self.repositories[name] = Repository(files, **behaviour)
        return self.repositories[name]

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """Variables for a subprocess: this hub, caches below `home`, no token."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "BENCH_CACHE": str(home / "bench"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            **more,
        }

    def use(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        """The same in this process, where the library has read its variables already."""
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("BENCH_CACHE", str(home / "bench"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))

    def downloads(self, file: str) -> list[str | None]:
        """The Range of every GET of a file."""
        return [r.range for r in self.requests if r.method == "GET" and r.path.endswith("/" + file)]

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        self.fake.requests.append(Asked(self.command, path, self.headers["Range"]))
        if path == "api/whoami-v2":
            self._json(self.fake.user) if self._allowed else self._refuse(401, "")
            return
        name, repository, rest = self._repository(path.removeprefix("api/").removeprefix("models/"))
        allowed = self._allowed
        if repository is None or (repository.private and not allowed):
            self._refuse(404 if allowed or repository is None else 401, "RepoNotFound")
        elif path.startswith("api/"):
            self._api(name, repository, rest)
        elif repository.gated and not allowed:
            self._refuse(403 if self.headers["Authorization"] else 401, "GatedRepo")
        else:
            self._file(repository, rest)

    def do_POST(self) -> None:
        path = urlsplit(self.path).path.lstrip("/")
        self.fake.requests.append(Asked("POST", path, None))
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._allowed:
            self._refuse(401, "")
        elif path == "api/repos/create":
            self._create(json.loads(data))
        elif path == "api/validate-yaml":
            self._json({"warnings": []})
        else:
            name, repository, rest = self._repository(path.removeprefix("api/models/"))
            if repository is None:
                self._refuse(404, "RepoNotFound")
            elif rest[0] == "preupload":
                files = [file["path"] for file in json.loads(data)["files"]]
                self._json(
                    {"files": [{"path": f, "uploadMode": "regular", "shouldIgnore": False} for f in files]}
                )
            else:
                self._commit(name, repository, [json.loads(line) for line in data.splitlines()])

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization'] or self.fake.user['name']}/{asked['name']}"
        if name in self.fake.repositories:
            self._json({"url": f"{self.fake.url}/{name}"}, 409)
        else:
            self.fake.add(name, {}, private=asked["visibility"] == "private")
            self._json({"url": f"{self.fake.url}/{name}"})

    def _commit(self, name: str, repository: Repository, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line["key"] == "file":
                repository.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        sha = repository.sha
        self._json({"commitUrl": f"{self.fake.url}/{name}/commit/{sha}", "commitOid": sha})

    @property
    def _allowed(self) -> bool:
        return self.headers["Authorization"] == f"Bearer {GOOD_TOKEN}"

    def _repository(self, path: str) -> tuple[str, Repository | None, list[str]]:
        parts = path.split("/")
        length = 3 if parts[0] == "datasets" else 2
        name = "/".join(parts[:length])
        known = self.fake.repositories
        return name, known.get(name), parts[length:]

    def _api(self, name: str, repository: Repository, rest: list[str]) -> None:
        revision = rest[1] if len(rest) > 1 else "main"
        if revision not in ("main", repository.sha):
            self._refuse(404, "RevisionNotFound")
        elif rest[:1] == ["tree"]:
            self._json(repository.listing())
        else:
            files = [{"rfilename": path} for path in repository.files]
            plain = name.removeprefix("datasets/")
            self._json({"id": plain, "sha": repository.sha, "siblings": files, "private": False, "tags": []})

    def _file(self, repository: Repository, rest: list[str]) -> None:
        file = "/".join(rest[2:])
        if rest[:1] != ["resolve"] or file not in repository.files:
            self._refuse(404, "EntryNotFound")
            return
        data = repository.files[file]
        wanted = self.headers["Range"]
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        digest = hashlib.sha256(data).hexdigest() if file.endswith(LARGE) else git_digest(data)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Repo-Commit", repository.sha)
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        if file in repository.damaged:
            data = repository.damaged.pop(file)
        if cuts := repository.cuts.get(file):
            self.wfile.write(data[start : start + cuts.pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(data[start:])

    def _json(self, value: object, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", "refused")
        self.send_header("Content-Length", "0")
        self.end_headers()
