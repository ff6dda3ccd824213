"""Fetching files from a server on this machine: whole, broken off, changed, wrong, and not at all."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from typer.testing import CliRunner

from mlip.cli.data.download import load_sources
from mlip.cli.main import app
from mlip.core.errors import ConfigError, DataError, MlipError
from mlip.data.download import UnreachableError, fetch
from mlip.data.download_sources import RemoteFile, parse_source

CONTENT = np.random.default_rng(3).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.content``; ``server.cut`` breaks answers off, ``server.ranges`` allows going on."""

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(dict(self.headers))
        if self.path != "/data.bin":
            self.send_error(404)
            return
        start = 0
        wanted = self.headers.get("Range")
        if server.ranges and wanted and self.headers.get("If-Range") == server.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        if server.etag:
            self.send_header("ETag", server.etag)
        if start:
            last = len(server.content) - 1
            self.send_header("Content-Range", f"bytes {start + server.shift}-{last}/{last + 1}")
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        self.wfile.write(server.content[start : server.cut])

    def log_message(self, *words) -> None:
        return


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.etag, server.ranges, server.cut, server.shift = CONTENT, '"one"', True, None, 0
        server.requests = []
        server.url = f"http://127.0.0.1:{server.server_port}/data.bin"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def remote(server, **options) -> RemoteFile:
    return RemoteFile("data.bin", server.url, **options)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def break_off(server, folder, after=100_000) -> None:
    server.cut = after
    with pytest.raises(MlipError, match=rf"connection broke .* {after} bytes of data\.bin are kept.*again to go on"):
        fetch(remote(server), folder)
    server.cut = None
    assert names(folder) == ["data.bin.part", "data.bin.part.json"]


def test_a_whole_file(server, tmp_path):
    seen = []
    fetched = fetch(remote(server, sha256=SHA256, size=len(CONTENT)), tmp_path / "a", lambda *args: seen.append(args))
    assert fetched.path.read_bytes() == CONTENT
    assert (fetched.sha256, fetched.verified, fetched.was_there) == (SHA256, True, False)
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert names(tmp_path / "a") == ["data.bin"]


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    break_off(server, tmp_path)
    fetched = fetch(remote(server, md5=hashlib.md5(CONTENT).hexdigest()), tmp_path)
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.verified
    assert server.requests[-1]["Range"] == "bytes=100000-"
    assert server.requests[-1]["If-Range"] == '"one"'


def test_a_file_that_changed_on_the_server_is_fetched_anew(server, tmp_path):
    break_off(server, tmp_path)
    server.content, server.etag = CONTENT[::-1], '"two"'
    assert fetch(remote(server), tmp_path).path.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("what", ["no ranges", "no version", "weak version"])
def test_without_a_safe_way_to_go_on_it_starts_anew(server, tmp_path, what):
    if what == "no ranges":
        server.ranges = False
    else:
        server.etag = "" if what == "no version" else 'W/"one"'
    break_off(server, tmp_path)
    assert fetch(remote(server), tmp_path).path.read_bytes() == CONTENT


def test_a_server_that_goes_on_in_another_place_is_not_believed(server, tmp_path):
    break_off(server, tmp_path)
    server.shift = 5
    with pytest.raises(MlipError, match="another place"):
        fetch(remote(server), tmp_path)
    assert fetch(remote(server), tmp_path).path.read_bytes() == CONTENT


def test_a_damaged_part_is_noticed_and_removed(server, tmp_path):
    break_off(server, tmp_path)
    with (tmp_path / "data.bin.part").open("r+b") as part:
        part.write(b"other")
    with pytest.raises(DataError, match="not the published file: its sha256 is"):
        fetch(remote(server, sha256=SHA256), tmp_path)
    assert names(tmp_path) == []
    (tmp_path / "data.bin.part.json").write_text("{")
    assert fetch(remote(server, sha256=SHA256), tmp_path).verified


@pytest.mark.parametrize("options", [{"sha256": "0" * 64}, {"md5": "0" * 32}, {"size": 5}])
def test_another_file_than_published_is_refused(server, tmp_path, options):
    with pytest.raises(DataError, match="published"):
        fetch(remote(server, **options), tmp_path)
    assert names(tmp_path) == []


def test_a_file_that_is_there_is_never_written_over(server, tmp_path):
    target = tmp_path / "data.bin"
    target.write_bytes(CONTENT)
    assert fetch(remote(server, sha256=SHA256), tmp_path).was_there
    target.write_bytes(b"mine")
    for options in ({"sha256": SHA256}, {"size": len(CONTENT)}):
        with pytest.raises(DataError, match="there already and is not the published file"):
            fetch(remote(server, **options), tmp_path)
    assert target.read_bytes() == b"mine"
    assert not server.requests


def test_missing_files_and_missing_servers(server, tmp_path):
    gone = RemoteFile("x.bin", server.url.replace("data.bin", "x.bin"))
    with pytest.raises(UnreachableError, match=r"does not have the file \(HTTP 404\)"):
        fetch(gone, tmp_path)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = RemoteFile("x.bin", f"http://127.0.0.1:{closed.getsockname()[1]}/x.bin")
        with pytest.raises(UnreachableError, match=r"Cannot reach .*refused"):
            fetch(nobody, tmp_path)
    assert names(tmp_path) == []


def test_too_little_space_is_said_before_the_transfer(server, tmp_path, monkeypatch):
    monkeypatch.setattr("mlip.data.download.shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(MlipError, match=r"300000 bytes more, .* has 10 free"):
        fetch(remote(server), tmp_path)


def test_the_table_is_complete():
    sources = load_sources()
    assert {"3bpa", "rmd17", "mptrj", "oc20", "qh9", "omol25", "omat24"} <= set(sources)
    for source in sources.values():
        assert source.licence
        assert source.citation
        assert source.page.startswith("https://")
        assert not source.files or source.select([])
        for file in source.files:
            assert file.url.startswith("https://"), "over a verified connection only"
            assert file.sha256 is None or len(file.sha256) == 64
            assert file.md5 is None or len(file.md5) == 32
    with pytest.raises(ConfigError, match=r"Did you mean 'train_300K\.xyz'"):
        sources["3bpa"].select(["train300K.xyz"])
    with pytest.raises(ConfigError, match="table of downloads is wrong"):
        parse_source("x", {"title": "x", "licens": "y"})


@pytest.mark.reference
def test_checksums_of_3bpa_are_those_of_the_files(reference_data):
    for file in load_sources()["3bpa"].select([]):
        content = (reference_data / "3bpa" / file.name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256)


@pytest.fixture
def table(server, monkeypatch):
    entry = {"title": "a set", "licence": "MIT", "citation": "me", "page": "https://x.org", "afterwards": "Then go on."}
    files = [{"name": "data.bin", "url": server.url}, {"name": "x.bin", "url": server.url[:-8] + "x", "default": False}]
    sources = {
        "mine": parse_source("mine", {**entry, "files": files}),
        "gated": parse_source("gated", {**entry, "manual": "1. Log in."}),
    }
    monkeypatch.setattr("mlip.cli.data.download.load_sources", lambda: sources)


def run(*words: str):
    return CliRunner().invoke(app, ["data", "download", *words])


def test_the_command(server, table, tmp_path):
    listing = run()
    assert listing.exit_code == 0
    assert "gated" in listing.stdout
    done = run("mine", "--output", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert done.stdout.index("licence: MIT") < done.stdout.index(f"its sha256 is {SHA256}")
    assert done.stdout.rstrip().endswith("Then go on.")
    gone = run("mine", "x.bin", "--output", str(tmp_path))
    assert gone.exit_code == 1
    assert "By hand" in gone.stdout
    assert "HTTP 404" in gone.stderr
    assert run("gated").exit_code == 1
    assert "1. Log in." in run("gated").stdout
    assert "Did you mean 'mine'?" in run("min").stderr
    assert json.dumps(names(tmp_path)) == '["data.bin"]'
