"""A stand-in for the Hugging Face Hub: repositories in memory behind the few addresses that its client asks."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

REPOSITORY = r"(?P<repo>[\w.-]+/[\w.-]+)"


class HubEndpoint(ThreadingHTTPServer):
    """Files by repository; `token` is what a client has to send."""

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token, self.repositories, self.created = token, {}, {}
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        """Of the endpoint."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def hub_endpoint(token: str = "secret") -> Iterator[HubEndpoint]:
    """One that answers while the block runs."""
    server = HubEndpoint(token)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: HubEndpoint
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        """Nothing on the screen."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{method} {path}")
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self._send(401, {"error": "Invalid username or password."}, code="GatedRepo")
        for pattern, answer in ROUTES:
            if match := re.fullmatch(pattern, f"{method} {path}"):
                return answer(self, body, **match.groupdict())
        return self._send(404, {"error": f"no {path}"}, code="RepoNotFound")

    def _send(self, status: int, value: object, code: str = "", **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(value, bytes) else "application/json"
        for name, text in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, text)
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def whoami(self, body: bytes) -> None:
        """Who has the token."""
        self._send(200, {"name": "me", "type": "user", "orgs": []})

    def create(self, body: bytes) -> None:
        """A repository, empty."""
        asked = json.loads(body)
        name = "/".join(filter(None, (asked.get("organization") or "me", asked["name"])))
        there = name in self.server.repositories
        self.server.repositories.setdefault(name, {})
        self.server.created.setdefault(name, asked)
        address = f"{self.server.address}/{name}"
        self._send(
            409 if there else 200, {"url": address, "name": name, "error": "You already created this model repo"}
        )

    def validate(self, body: bytes) -> None:
        """Whether a card begins with YAML."""
        errors = [] if json.loads(body)["content"].startswith("---\n") else [{"message": "no metadata"}]
        self._send(400 if errors else 200, {"errors": errors, "warnings": []})

    def preupload(self, body: bytes, repo: str) -> None:
        """How each file is to be sent: within the commit."""
        files = json.loads(body)["files"]
        self._send(200, {"files": [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in files]})

    def commit(self, body: bytes, repo: str) -> None:
        """Files, line by line."""
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                assert line["value"]["encoding"] == "base64"
                self.server.repositories[repo][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        sha = self._sha(repo)
        address = f"{self.server.address}/{repo}/commit/{sha}"
        self._send(200, {"success": True, "commitOid": sha, "commitUrl": address})

    def info(self, body: bytes, repo: str) -> None:
        """What a repository holds."""
        if repo not in self.server.repositories:
            return self._send(404, {"error": "Repository not found"}, code="RepoNotFound")
        names = [{"rfilename": name} for name in self.server.repositories[repo]]
        return self._send(200, {"id": repo, "sha": self._sha(repo), "siblings": names, "tags": [], "private": False})

    def tree(self, body: bytes, repo: str) -> None:
        """What a repository holds, with sizes."""
        files = self.server.repositories[repo].items()
        self._send(200, [{"type": "file", "path": name, "size": len(data), "oid": _of(data)} for name, data in files])

    def resolve(self, body: bytes, repo: str, name: str) -> None:
        """A file."""
        data = self.server.repositories.get(repo, {}).get(name)
        if data is None:
            return self._send(404, {"error": "Entry not found"}, code="EntryNotFound")
        tag = {"ETag": f'"{_of(data)}"', "X-Repo-Commit": self._sha(repo)}
        return self._send(200, data, "", **tag)

    def _sha(self, repo: str) -> str:
        return _of(b"".join(self.server.repositories[repo].values()))


def _of(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


ROUTES = [
    (r"GET /api/whoami-v2", _Handler.whoami),
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/validate-yaml", _Handler.validate),
    (rf"POST /api/models/{REPOSITORY}/preupload/main", _Handler.preupload),
    (rf"POST /api/models/{REPOSITORY}/commit/main", _Handler.commit),
    (rf"GET /api/models/{REPOSITORY}(?:/revision/\w+)?", _Handler.info),
    (rf"GET /api/models/{REPOSITORY}/tree/\w+", _Handler.tree),
    (rf"(?:GET|HEAD) /{REPOSITORY}/resolve/\w+/(?P<name>.+)", _Handler.resolve),
]
