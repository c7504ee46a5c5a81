"""A hub on loopback that speaks the part of the protocol that pushing and loading need.

Repositories with branches and commits, tokens with rights, small files in commits, large ones by git-lfs,
files by HEAD and GET with ETags. Every request is noted, so that a test sees what was sent and what was not.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".onnx")
WRITER, READER = "hf_writer", "hf_reader"


@dataclass
class Repository:
    private: bool = False
    commits: dict[str, dict[str, str]] = field(
        default_factory=dict
    )  # commit -> file -> SHA-256 of its content
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, str], message: str) -> str:
        name = hashlib.sha1(f"{sorted(files.items())}{len(self.commits)}".encode()).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        self.messages.append(message)
        return name


@dataclass
class FakeHub:
    repositories: dict[str, Repository] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)  # by SHA-256
    requests: list[str] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)  # files that arrive with a byte changed
    fail_uploads_after: int | None = None
    url: str = ""

    def files(self, repository: str, branch: str = "main") -> dict[str, bytes]:
        found = self.repositories[repository]
        return {name: self.contents[key] for name, key in found.commits[found.branches[branch]].items()}

    def put(self, repository: str, files: dict[str, bytes], branch: str = "main") -> str:
        """A commit that somebody else made."""
        made = self.repositories.setdefault(repository, Repository())
        before = made.commits.get(made.branches.get(branch, ""), {})
        return made.commit(branch, before | {name: self.keep(data) for name, data in files.items()}, "put")

    def keep(self, data: bytes) -> str:
        key = hashlib.sha256(data).hexdigest()
        self.contents[key] = data
        return key

    def sent(self, start: str) -> list[str]:
        return [request for request in self.requests if request.startswith(start)]


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: object = None, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str = "", message: str = "refused") -> None:
        self.answer(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message})

    def handle_request(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(length)
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if self.token and self.token not in (WRITER, READER):
            self.refuse(401, message="Invalid username or password.")
            return
        self.route(path.strip("/").split("/"), parse_qs(urlsplit(self.path).query), body)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request  # noqa: N815

    def route(self, parts: list[str], query: dict[str, list[str]], body: bytes) -> None:
        match parts:
            case ["api", "validate-yaml"]:
                self.answer(200, {"errors": [], "warnings": []})
            case ["api", "repos", "create"]:
                self.create(json.loads(body))
            case ["lfs", key]:
                self.take(key, body)
            case ["api", "models", owner, name, *rest]:
                self.repository(f"{owner}/{name}", rest, query, body)
            case [owner, name, "info", "lfs", "objects", "batch"]:
                self.batch(body)
            case [owner, name, "resolve", revision, *file]:
                self.file(f"{owner}/{name}", revision, "/".join(file))
            case _:
                self.refuse(404, "RepoNotFound")

    def visible(self, name: str) -> Repository | None:
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self.token):
            self.refuse(404 if self.token else 401, "RepoNotFound", "Repository not found")
            return None
        return found

    def writes(self) -> bool:
        if self.token == WRITER:
            return True
        self.refuse(403 if self.token else 401, message="You don't have the rights")
        return False

    def create(self, wish: dict[str, object]) -> None:
        name = f"{wish.get('organization') or 'ann'}/{wish['name']}"
        if not self.writes():
            return
        if name in self.hub.repositories:
            self.answer(
                409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}
            )
            return
        private = bool(wish.get("private")) or wish.get("visibility") == "private"
        made = self.hub.repositories[name] = Repository(private=private)
        made.commit(
            "main", {".gitattributes": self.hub.keep(b"*.safetensors filter=lfs\n")}, "initial commit"
        )
        self.answer(200, {"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def repository(self, name: str, rest: list[str], query: dict[str, list[str]], body: bytes) -> None:
        found = self.visible(name)
        if found is None:
            return
        match rest:
            case [] | ["revision", _]:
                self.info(name, found, rest[1] if rest else "main")
            case ["tree", revision, *_]:
                files = self.listing(found, revision)
                if files is not None:
                    self.answer(200, [self.entry(path, key) for path, key in files.items()])
            case ["branch", branch]:
                if self.writes():
                    known = branch in found.branches
                    found.branches.setdefault(branch, found.branches["main"])
                    self.answer(409 if known else 200, {})
            case ["preupload", _]:
                wanted = json.loads(body)["files"]
                modes = {f["path"]: "lfs" if f["path"].endswith(LARGE) else "regular" for f in wanted}
                if self.writes():
                    self.answer(
                        200,
                        {
                            "files": [
                                {"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()
                            ]
                        },
                    )
            case ["commit", branch]:
                if self.writes():
                    self.commit(name, found, branch, body)
            case _:
                self.refuse(404)

    def listing(self, found: Repository, revision: str) -> dict[str, str] | None:
        commit = found.branches.get(revision, revision)
        if commit not in found.commits:
            self.refuse(404, "RevisionNotFound", "Invalid rev id")
            return None
        return found.commits[commit]

    def entry(self, path: str, key: str) -> dict[str, object]:
        data = self.hub.contents[key]
        entry = {"type": "file", "path": path, "size": len(data), "oid": git_hash(data)}
        return entry | (
            {"lfs": {"oid": key, "size": len(data), "pointerSize": 1}} if path.endswith(LARGE) else {}
        )

    def info(self, name: str, found: Repository, revision: str) -> None:
        files = self.listing(found, revision)
        if files is None:
            return
        siblings = []
        for path, key in files.items():
            data = self.hub.contents[key]
            large = (
                {"lfs": {"sha256": key, "size": len(data), "pointerSize": 1}} if path.endswith(LARGE) else {}
            )
            siblings.append({"rfilename": path, "size": len(data), "blobId": git_hash(data)} | large)
        sha = found.branches.get(revision, revision)
        self.answer(
            200,
            {
                "id": name,
                "modelId": name,
                "sha": sha,
                "private": found.private,
                "siblings": siblings,
                "tags": [],
            },
        )

    def batch(self, body: bytes) -> None:
        objects = []
        for wish in json.loads(body)["objects"]:
            there = wish["oid"] in self.hub.contents
            upload = {} if there else {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{wish['oid']}"}}}
            objects.append({"oid": wish["oid"], "size": wish["size"]} | upload)
        self.answer(200, {"transfer": "basic", "objects": objects})

    def take(self, key: str, body: bytes) -> None:
        left = self.hub.fail_uploads_after
        if left == 0:
            self.refuse(400, message="the line is cut")
            return
        if left is not None:
            self.hub.fail_uploads_after = left - 1
        assert hashlib.sha256(body).hexdigest() == key
        self.hub.keep(body)
        self.answer(200, {})

    def commit(self, repository: str, found: Repository, branch: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines() if line]
        files = dict(found.commits[found.branches[branch]])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = self.hub.keep(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                assert value["oid"] in self.hub.contents
                files[value["path"]] = value["oid"]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        (header,) = (line["value"] for line in lines if line["key"] == "header")
        name = found.commit(branch, files, header["summary"])
        self.answer(
            200,
            {"success": True, "commitOid": name, "commitUrl": f"{self.hub.url}/{repository}/commit/{name}"},
        )

    def file(self, name: str, revision: str, path: str) -> None:
        found = self.visible(name)
        files = None if found is None else self.listing(found, revision)
        if found is None or files is None:
            return
        if path not in files:
            self.refuse(404, "EntryNotFound")
            return
        key = files[path]
        data = self.hub.contents[key]
        etag = key if path.endswith(LARGE) else git_hash(data)
        if path in self.hub.damaged:
            data = bytes([data[0] ^ 1]) + data[1:]
        commit = found.branches.get(revision, revision)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if self.headers.get("Range", "").startswith("bytes="):
            start = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
            self.answer(
                206, data[start:], headers | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            )
            return
        self.answer(200, data, headers)


@contextmanager
def running_hub():
    """A fake hub that answers on a free port."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
