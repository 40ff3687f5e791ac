"""Fetching from a hub: a real one, if a small one, on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants

from lotus2_ros.config import Config
from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.model.load import load_model
from lotus2_ros.model.weights import CheckpointError
from lotus2_ros.prepare import sources
from lotus2_ros.prepare.hub import Found, HubError, Origin, check_room, fetch, find
from lotus2_ros.prepare.space import DiskSpaceError

pytestmark = pytest.mark.slow

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "transformer/big.safetensors": bytes(range(256)) * 100_000,  # more than what the client takes at once
    "transformer/config.json": b"{}",
    "vae/config.json": b'{"a": 1}',
    "flux1-dev.safetensors": b"24 GB that nobody needs",
}
FETCH = (
    "import sys; from pathlib import Path; from lotus2_ros.prepare.hub import check_room, fetch, find\n"
    "try:\n"
    "    found = find(sys.argv[1], 'flux', ['transformer/*', 'vae/*'])\n"
    "    check_room([found], Path('bundle'), 0)\n"
    "    origin = fetch(found)\n"
    "except ValueError as error: sys.exit(f'{type(error).__name__}: {error}')\n"
    "print(origin.folder, origin.name)"
)


class Hub(ThreadingHTTPServer):
    """One model, `owner/model` with one commit on the branch `main`.

    files: by name; requests: (method, path, Range) of all so far; gated: no file without a licence; broken: files
    whose connection breaks in the middle, once; down: files that cannot be had.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = FILES
        self.requests: list[tuple[str, str, str | None]] = []
        self.gated = False
        self.broken: set[str] = set()
        self.down: set[str] = set()

    def fetched(self) -> list[str]:
        return [
            path.split(f"{COMMIT}/")[1] for method, path, _ in self.requests if "/resolve/" in path and method == "GET"
        ]


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append((self.command, path, self.headers.get("Range")))
        if path in ("/api/models/owner/model", *(f"/api/models/owner/model/revision/{r}" for r in ("main", COMMIT))):
            siblings = [{"rfilename": name, "size": len(content)} for name, content in self.server.files.items()]
            self.send(json.dumps({"_id": "1", "id": "owner/model", "sha": COMMIT, "siblings": siblings}).encode())
        elif path == f"/api/models/owner/model/tree/{COMMIT}":
            rows = [{"type": "file", "path": n, "size": len(c), "oid": etag(c)} for n, c in self.server.files.items()]
            self.send(json.dumps(rows).encode())
        elif path == "/api/models/owner/model/auth-check":
            self.refuse(HTTPStatus.UNAUTHORIZED, "GatedRepo") if self.server.gated else self.send(b"{}")
        elif path.startswith("/api/models/owner/model/"):
            self.refuse(HTTPStatus.NOT_FOUND, "RevisionNotFound")
        elif path.startswith(f"/owner/model/resolve/{COMMIT}/"):
            self.send_file(path.split(f"{COMMIT}/")[1])
        else:
            self.refuse(HTTPStatus.NOT_FOUND, "RepoNotFound")

    def send_file(self, name: str) -> None:
        if self.server.gated:
            return self.refuse(HTTPStatus.UNAUTHORIZED, "GatedRepo")
        if name in self.server.down and self.command == "GET":
            return self.refuse(HTTPStatus.FORBIDDEN, "None")
        content, start = self.server.files[name], 0
        headers = {"ETag": f'"{etag(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if requested := self.headers.get("Range"):
            start = int(requested.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        status = HTTPStatus.PARTIAL_CONTENT if requested else HTTPStatus.OK
        if name in self.server.broken and self.command == "GET":
            self.server.broken.remove(name)
            self.send(content[start:], status, headers, cut=len(content) // 2)
            self.close_connection = True
            return None
        return self.send(content[start:], status, headers)

    def refuse(self, status: HTTPStatus, code: str) -> None:
        self.send(b"{}", status, {"X-Error-Code": code, "X-Error-Message": "no"})

    def send(
        self,
        body: bytes,
        status: HTTPStatus = HTTPStatus.OK,
        headers: dict[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:cut])

    def log_message(self, *_: object) -> None:
        """Tests' own output only."""


def etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(hub: Hub, cache: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own: the library reads its environment when it is imported."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("HF_") and "proxy" not in name.lower()
    }
    own = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(cache)}
    return subprocess.run(
        [sys.executable, *command], env=kept | own | environment, capture_output=True, text=True, timeout=allowed(120)
    )


def run_fetch(
    hub: Hub, cache: Path, place: str = "owner/model", **environment: str
) -> subprocess.CompletedProcess[str]:
    return run(hub, cache, "-c", FETCH, place, **environment)


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    found = find(str(tmp_path), "flux", ["*"])
    assert (found.sizes, found.missing) == ({"a.json": 2}, 0)
    assert fetch(found) == Origin(tmp_path, "flux")


@pytest.mark.parametrize("place", ["nowhere", "../a/b", "a/b/c", "/etc/none", "a b/c", "owner/model@"])
def test_what_is_neither_a_folder_nor_a_name_of_the_hub(place: str) -> None:
    with pytest.raises(HubError, match="expected a folder or a name on the hub"):
        find(place, "flux", ["*"])


@pytest.mark.parametrize("place", ["owner/model", "owner/model@main", f"owner/model@{COMMIT}"])
def test_only_what_is_needed_is_fetched_and_its_commit_is_told(hub: Hub, tmp_path: Path, place: str) -> None:
    result = run_fetch(hub, tmp_path, place)
    assert result.returncode == 0, result.stderr
    folder, name = result.stdout.split()
    assert name == f"owner/model@{COMMIT}"
    needed = {name: content for name, content in FILES.items() if "/" in name}
    assert {str(f.relative_to(folder)): f.read_bytes() for f in Path(folder).rglob("*.*")} == needed
    assert sorted(hub.fetched()) == sorted(needed)


def test_a_broken_connection_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    name = "transformer/big.safetensors"
    hub.broken.add(name)
    result = run_fetch(hub, tmp_path)
    assert result.returncode == 0, result.stderr
    assert (Path(result.stdout.split()[0]) / name).read_bytes() == FILES[name]
    ranges = [requested for method, path, requested in hub.requests if path.endswith(name) and method == "GET"]
    assert len(ranges) == 2
    assert ranges[1] is not None and int(ranges[1].removeprefix("bytes=").split("-")[0]) > 0


def test_what_was_fetched_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.down.add("vae/config.json")
    result = run_fetch(hub, tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("HubError: owner/model: no such folder, and it cannot be fetched")
    hub.down.clear()
    hub.requests.clear()
    assert run_fetch(hub, tmp_path).returncode == 0
    assert "vae/config.json" in hub.fetched()
    assert "transformer/big.safetensors" not in hub.fetched()


def test_a_gated_model_says_what_to_do(hub: Hub, tmp_path: Path) -> None:
    hub.gated = True
    result = run_fetch(hub, tmp_path)
    assert result.returncode == 1
    page = f"http://127.0.0.1:{hub.server_port}/owner/model"
    message = f"HubError: owner/model: accept its license at {page}, then log in with `hf auth login`"
    assert result.stderr.splitlines()[-1] == message
    assert not hub.fetched()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("owner/other", "owner/other: no such folder, and no such model on the hub, or not one that you may see"),
        ("owner/model@v9", "owner/model@v9: the hub has no such revision of it"),
    ],
)
def test_what_is_not_there(hub: Hub, tmp_path: Path, place: str, message: str) -> None:
    assert run_fetch(hub, tmp_path, place).stderr.splitlines()[-1] == f"HubError: {message}"


@pytest.mark.parametrize(
    ("environment", "reason", "advice"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:1"}, "it cannot be fetched from the hub (", "set HF_HUB_OFFLINE=1"),
        ({"HF_HUB_OFFLINE": "1"}, "not in the hub's cache ", "unset HF_HUB_OFFLINE"),
    ],
)
def test_without_a_network(hub: Hub, tmp_path: Path, environment: dict[str, str], reason: str, advice: str) -> None:
    result = run_fetch(hub, tmp_path, **environment)
    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"HubError: owner/model: no such folder, and {reason}") and advice in line
    assert not hub.requests


def test_room_on_the_disk_is_looked_at_first(hub: Hub, tmp_path: Path) -> None:
    code = "import shutil, types; shutil.disk_usage = lambda path: types.SimpleNamespace(free=1000)\n" + FETCH
    line = run(hub, tmp_path, "-c", code, "owner/model").stderr.splitlines()[-1]
    assert line.startswith("DiskSpaceError: expected 0.03 GB free at ") and "got 0.00 GB" in line
    assert not hub.fetched()


def test_downloads_and_bundle_add_up_where_they_share_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000_000))
    found = [Found("a@1", {}, missing=40_000_000), Found("b@1", {}, missing=30_000_000)]
    check_room(found, tmp_path / "bundle", 30_000_000)
    expected = rf"expected 0\.11 GB free at {tmp_path}/cache and {tmp_path}, got 0\.10 GB"
    with pytest.raises(DiskSpaceError, match=expected):
        check_room(found, tmp_path / "bundle", 40_000_000)


def test_without_a_network_a_full_cache_is_enough(hub: Hub, tmp_path: Path) -> None:
    online = run_fetch(hub, tmp_path)
    hub.requests.clear()
    offline = run_fetch(hub, tmp_path, HF_HUB_OFFLINE="1")
    assert (offline.returncode, offline.stdout) == (0, online.stdout), offline.stderr
    assert not hub.requests
    next(Path(online.stdout.split()[0]).rglob("big.safetensors")).unlink()
    assert "and incomplete in the hub's cache" in run_fetch(hub, tmp_path, HF_HUB_OFFLINE="1").stderr.splitlines()[-1]


def test_all_is_looked_up_and_fits_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    sizes = {"transformer/a.safetensors": 20_000_000_000, "text_encoder_2/b.safetensors": 9_000_000_000}

    def found(place: str, name: str, patterns: Sequence[str], required: Sequence[str] = ()) -> Found:
        calls.append(f"find {place}")
        return Found(f"{place}@1", sizes, missing=29_000_000_000)

    def room(found: Sequence[Found], output: Path, bundle: int) -> None:
        calls.append(f"room for {len(found)} and {bundle}")

    monkeypatch.setattr(sources, "find", found)
    monkeypatch.setattr(sources, "check_room", room)
    monkeypatch.setattr(sources, "fetch", lambda found: calls.append(f"fetch {found.name}") or Origin(tmp_path, ""))
    options = {"output": tmp_path / "bundle", "precision": "nf4"}
    with pytest.raises(CheckpointError):  # there is nothing in the folder
        sources.from_released("o/flux", "o/lotus", Config().model, device=torch.device("cpu"), **options)
    assert calls == ["find o/flux", "find o/lotus", "room for 2 and 10000000000", "fetch o/flux@1", "fetch o/lotus@1"]
    calls.clear()
    with pytest.raises(CheckpointError):
        sources.from_lotus(["o/lotus-depth", "o/lotus-normal"], Config().model, **{**options, "precision": None})
    assert calls[:3] == ["find o/lotus-depth", "find o/lotus-normal", "room for 2 and 0"]  # no U-Nets among these files


def test_a_bundle_of_what_is_on_the_hub(hub: Hub, shared: Path, tmp_path: Path) -> None:
    folder = shared / "golden" / "tiny-flux"
    hub.files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.*")}
    hub.files["flux1-dev.safetensors"] = FILES["flux1-dev.safetensors"]
    options = ["--flux", "owner/model", "--lotus2", "owner/model@main", "--tasks", "depth", "--device", "cpu"]
    output = tmp_path / "bundle"
    result = run(hub, tmp_path, "-m", "lotus2_ros.cli", "prepare", *options, "--output", str(output))
    assert result.returncode == 0, result.stderr
    sources = json.loads((output / "bundle.json").read_text())["sources"]
    needed = {name for name in hub.files if "normal" not in name} - {"flux1-dev.safetensors", "model_index.json"}
    assert {*sources} == {f"owner/model@{COMMIT}/{name}" for name in needed}
    assert {*hub.fetched()} == needed
    assert load_model(output, device="cpu").tasks == ("depth",)
