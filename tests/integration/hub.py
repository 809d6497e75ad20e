"""A hub on this machine: the part of huggingface.co's interface that reading a data set and pushing a model need."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "hf_of_this_machine"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
_FILE = re.compile(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_ABOUT = re.compile(r"/api/datasets/([^/]+/[^/?]+)(?:/(revision|tree)/[^/?]+/?([^?]*))?")


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The address of a hub whose repositories are ``folder/<owner>/<name>``, each at ``COMMIT``."""
    handler = type("Handler", (_Handler,), {"folder": folder})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path

    def do_GET(self) -> None:
        if match := _FILE.fullmatch(self.path):
            known = match[2] in ("main", COMMIT)
            self._file(self.folder / match[1] / match[3], "EntryNotFound" if known else "RevisionNotFound")
        elif (match := _ABOUT.match(self.path)) and (self.folder / match[1] / (match[3] or "")).is_dir():
            self._about(self.folder / match[1], match[3] if match[2] == "tree" else None)
        else:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound" if match else "RepoNotFound"})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """What pushing a model asks for: the repository, how its files go up, and the commit that holds them."""
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, b'{"error": "Invalid username or password."}', {"Content-Type": "application/json"})
            return
        answer: dict[str, Any] = {}
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            repository = f"{asked.get('organization')}/{asked['name']}"
            (self.folder / repository).mkdir(parents=True, exist_ok=True)
            (self.folder / repository / ".private").write_text(str(asked.get("private", asked.get("visibility"))))
            answer = {"url": f"http://{self.headers['Host']}/{repository}", "id": repository}
        elif match := re.fullmatch(r"/api/models/(.+)/preupload/main", self.path):
            files = [{"path": one["path"], "uploadMode": "regular"} for one in json.loads(body)["files"]]
            answer = {"files": [one | {"shouldIgnore": False, "oid": None} for one in files]}
        elif match := re.fullmatch(r"/api/models/(.+)/commit/main.*", self.path):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    file = self.folder / match[1] / line["value"]["path"]
                    file.write_bytes(base64.b64decode(line["value"]["content"]))
            answer = {
                "commitUrl": f"http://{self.headers['Host']}/{match[1]}/commit/{COMMIT}",
                "commitOid": COMMIT,
                "success": True,
            }
        self._answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _file(self, file: Path, error: str) -> None:
        if error == "RevisionNotFound" or not file.is_file():
            self._answer(404, b"", {"X-Error-Code": error, "X-Repo-Commit": COMMIT})
            return
        content = file.read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if part is None:
            self._answer(200, content, headers)
            return
        first, last = int(part[1]), min(int(part[2]), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._answer(206, content[first : last + 1], headers)

    def _about(self, repository: Path, below: str | None) -> None:
        def entry(path: Path) -> dict[str, Any]:
            kind, size = ("directory", 0) if path.is_dir() else ("file", path.stat().st_size)
            return {"path": str(path.relative_to(repository)), "type": kind, "oid": "0" * 40, "size": size}

        if below is None:
            about: Any = {"id": "/".join(repository.parts[-2:]), "sha": COMMIT, "tags": [], "private": False}
        else:
            found = (repository / below).rglob("*") if "recursive=true" in self.path else (repository / below).iterdir()
            about = [entry(path) for path in sorted(found)]
        self._answer(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""
