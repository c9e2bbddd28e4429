"""Finding data: a path, a folder, the cache, a fetch from a real server."""

from __future__ import annotations

import gzip
import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError

import pytest

from archon.backends.recordings import read_jsonl
from archon.benchmarks.data import Origin, cache_folder, fetch, locate
from archon.benchmarks.gsm8k import GSM8K
from archon.benchmarks.humaneval import HumanEval
from archon.errors import DataError

BODY = b'{"question": "1 + 1?", "answer": "#### 2"}\n'


class Serving:
    """A web server with one file; counts what is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.body, self.status, self.length = BODY, 200, -1
        serving = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                serving.asked.append(self.path)
                self.send_response(serving.status)
                length = len(serving.body) if serving.length < 0 else serving.length
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(serving.body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def origin(self, sha256: str | None = None) -> Origin:
        url = f"http://127.0.0.1:{self.server.server_address[1]}/files/test.jsonl"
        return Origin("things", "test.jsonl", url, sha256 or hashlib.sha256(BODY).hexdigest())

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    monkeypatch.delenv("ARCHON_DATA")
    server = Serving()
    yield server
    server.close()


def close_reply(error: BaseException | None) -> bool:
    """Close the reply that an error came from; whether it was closed already."""
    while error is not None:
        if isinstance(error, HTTPError):
            closed = bool(error.fp is None or error.fp.closed)
            error.close()
            return closed
        error = error.__cause__ or error.__context__
    return True


def files_under(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_what_is_fetched_is_kept_in_the_cache_and_fetched_once(serving: Serving) -> None:
    path = locate(serving.origin(), None)
    assert path == cache_folder() / "things" / "test.jsonl"
    assert path.read_bytes() == BODY
    assert locate(serving.origin(), None) == path
    assert serving.asked == ["/files/test.jsonl"]


def test_another_file_than_expected_is_refused_and_not_kept(serving: Serving) -> None:
    with pytest.raises(DataError, match="another file than expected") as caught:
        locate(serving.origin("0" * 64), None)
    assert "000000000000" in str(caught.value)
    assert hashlib.sha256(BODY).hexdigest()[:12] in str(caught.value)
    assert files_under(cache_folder()) == []


def test_a_fetch_cut_short_is_refused_and_not_kept(serving: Serving) -> None:
    serving.length, serving.body = len(BODY), BODY[:20]
    with pytest.raises(DataError):
        locate(serving.origin(), None)
    assert files_under(cache_folder()) == []


def test_a_refusing_server_is_named_with_every_place_tried(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ARCHON_DATA", str(tmp_path / "mine"))
    serving.status = 404
    with pytest.raises(DataError) as caught:
        locate(serving.origin(), None)
    close_reply(caught.value)
    said = str(caught.value)
    assert str(tmp_path / "mine" / "things" / "test.jsonl") in said
    assert str(cache_folder() / "things" / "test.jsonl") in said
    assert serving.origin().url in said
    assert "Not Found" in said
    assert "--data" in said


def test_the_reply_of_a_refusing_server_is_closed(serving: Serving, tmp_path: Path) -> None:
    serving.status = 503
    with pytest.raises(DataError) as caught:
        fetch(serving.origin(), tmp_path / "test.jsonl")
    assert close_reply(caught.value)


def test_no_server_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARCHON_DATA")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        with pytest.raises(DataError, match="cannot be fetched"):
            locate(Origin("a", "b", url, "0" * 64), None)


def test_a_server_that_does_not_speak_http_is_a_data_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def talk() -> None:
            client, _ = listening.accept()
            with client:
                client.recv(65536)
                client.sendall(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        try:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/x"
            with pytest.raises(DataError):
                fetch(Origin("a", "b", url, "0" * 64), tmp_path / "b")
        finally:
            thread.join()


def test_a_cache_that_cannot_be_written_is_a_data_error(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"cannot keep test\.jsonl"):
        fetch(serving.origin(), tmp_path / "cache" / "things" / "test.jsonl")


def test_a_given_path_may_be_the_file_its_folder_or_the_folder_of_folders(tmp_path: Path) -> None:
    origin = Origin("things", "test.jsonl", "http://127.0.0.1:1/never", "0" * 64)
    file = tmp_path / "things" / "test.jsonl"
    file.parent.mkdir()
    file.write_bytes(BODY)
    assert locate(origin, tmp_path) == file
    assert locate(origin, tmp_path / "things") == file
    assert locate(origin, file) == file
    renamed = tmp_path / "renamed.jsonl"
    renamed.write_bytes(BODY)
    assert locate(origin, renamed) == renamed


def test_a_given_path_that_is_not_there_is_an_error_and_nothing_is_fetched(
    serving: Serving, tmp_path: Path
) -> None:
    for given in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(DataError, match="--data") as caught:
            locate(serving.origin(), given)
        assert repr(str(given)) in str(caught.value)
        assert "test.jsonl" in str(caught.value)
    assert serving.asked == []


def test_the_folder_of_the_environment_comes_before_the_cache(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = locate(serving.origin(), None)
    monkeypatch.setenv("ARCHON_DATA", str(tmp_path / "mine"))
    assert locate(serving.origin(), None) == cached
    mine = tmp_path / "mine" / "things" / "test.jsonl"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(BODY)
    assert locate(serving.origin(), None) == mine
    assert len(serving.asked) == 1


def test_a_benchmark_of_ours_reads_the_file_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_bytes(BODY)
    dataset = GSM8K(data=tmp_path).load()
    assert [p.id for p in dataset.problems] == ["gsm8k/0"]


def test_the_wrong_file_is_named_with_its_line_and_what_it_lacks(tmp_path: Path) -> None:
    file = tmp_path / "test.jsonl"
    file.write_bytes(BODY + b'{"question": "2?"}\n')
    with pytest.raises(DataError, match=r"test\.jsonl:2: the field 'answer' is missing"):
        GSM8K(data=file).load()


def test_a_gz_that_is_none_is_a_data_error(tmp_path: Path) -> None:
    file = tmp_path / "HumanEval.jsonl.gz"
    file.write_bytes(BODY)
    with pytest.raises(DataError, match=r"HumanEval\.jsonl\.gz"):
        HumanEval(data=tmp_path).load()


def test_a_gz_cut_short_is_a_data_error(tmp_path: Path) -> None:
    file = tmp_path / "HumanEval.jsonl.gz"
    file.write_bytes(gzip.compress(BODY * 100)[:-30])
    with pytest.raises(DataError, match=r"HumanEval\.jsonl\.gz"):
        HumanEval(data=tmp_path).load()


@pytest.mark.parametrize("at", [12, 30])
def test_a_gz_with_broken_bytes_inside_is_a_data_error(tmp_path: Path, at: int) -> None:
    packed = bytearray(gzip.compress(bytes(range(256)) * 40))
    packed[at : at + 8] = b"\xff" * 8
    file = tmp_path / "broken.jsonl.gz"
    file.write_bytes(packed)
    with pytest.raises(DataError, match=r"broken\.jsonl\.gz"):
        list(read_jsonl(file))


def test_bytes_that_are_no_text_are_a_data_error(tmp_path: Path) -> None:
    file = tmp_path / "test.jsonl"
    file.write_bytes(b'{"question": "\xff"}\n')
    with pytest.raises(DataError, match="not UTF-8"):
        GSM8K(data=file).load()
