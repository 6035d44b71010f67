import hashlib
import re
import socket

import pytest

from hypclip.search import LocalStore
from serve.command import main
from serve.errors import Forbidden, Unauthorized
from serve.http.keys import Keyring
from tests.support.serving import FakeEngine


@pytest.fixture(autouse=True)
def _one_worker(monkeypatch):
    monkeypatch.setenv("HYPCLIP_WORKERS", "1")
    monkeypatch.setenv("HYPCLIP_PORT", "0")
    monkeypatch.setattr("serve.telemetry.logs.configure", lambda style: None)  # the log of the tests stays as it is


@pytest.fixture
def index(tmp_path):
    LocalStore(tmp_path / "index", create=True).close()
    return tmp_path / "index"


def refused(capsys, *argv):
    """Run the command line; it must end with 2 and one line that says why."""
    assert main([str(a) for a in argv]) == 2
    message = capsys.readouterr().err
    assert message.startswith("serve: ")
    assert message.count("\n") == 1
    return message


# A missing checkpoint is told by the process of the model, as is everything else about it; see test_serve_worker.py.
def test_a_missing_checkpoint(capsys, tmp_path, index):
    message = refused(capsys, "--checkpoint", tmp_path / "nowhere", "--index", index)
    assert f"{tmp_path / 'nowhere'} is not a checkpoint directory" in message
    with LocalStore(index):
        pass  # it has been closed


def test_a_model_that_is_not_hyperbolic_is_refused_and_closed(capsys, monkeypatch, index):
    engine = FakeEngine()
    engine.geometry = "sphere"

    async def start(*_):
        return engine

    monkeypatch.setattr("serve.command.ModelEngine.start", start)
    message = refused(capsys, "--index", index)
    assert "geometry 'sphere'" in message
    assert "needs 'lorentz'" in message
    assert engine.closed


def test_an_index_alone_is_served_without_loading_a_model(monkeypatch, index):
    async def start(*_):
        raise AssertionError("a model is loaded")

    served = []

    async def serve(self):
        served.append(self)

    monkeypatch.setattr("serve.command.ModelEngine.start", start)
    monkeypatch.setattr("serve.command.Server.serve", serve)
    assert main(["--index-only", "--index", str(index)]) == 0
    assert len(served) == 1


def test_an_address_in_use_is_told_before_the_model_is_loaded(capsys, tmp_path, index):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        message = refused(capsys, "--checkpoint", tmp_path / "nowhere", "--index", index, "--port", port)
    assert f"cannot listen at ('127.0.0.1', {port}): address already in use" in message
    assert "--port" in message


@pytest.mark.parametrize("host", ["256.1.1.1", "nobody.invalid", "192.0.2.1"])
def test_an_address_of_another_machine_is_refused(capsys, monkeypatch, tmp_path, index, host):
    def look_up(name, *_, **__):
        if name == "192.0.2.1":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (name, 0))]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)  # no network
    message = refused(capsys, "--checkpoint", tmp_path / "nowhere", "--index", index, "--host", host)
    assert f"cannot listen at ('{host}', 0): " in message


def test_a_missing_index(capsys, tmp_path):
    message = refused(capsys, "--checkpoint", tmp_path, "--index", tmp_path / "nowhere")
    assert f"there is no index in {tmp_path / 'nowhere'}" in message
    assert not (tmp_path / "nowhere").exists()


def test_an_unreadable_index(capsys, tmp_path, index):
    (index / "points.sqlite3").write_bytes(b"\0\1" * 5000)
    assert "not a database" in refused(capsys, "--checkpoint", tmp_path, "--index", index)


def test_an_index_in_use(capsys, tmp_path, index):
    with LocalStore(index):
        assert "open elsewhere" in refused(capsys, "--checkpoint", tmp_path, "--index", index)


def test_a_setting_that_cannot_work(capsys, monkeypatch):
    monkeypatch.setenv("HYPCLIP_MAX_K", "none")
    assert "HYPCLIP_MAX_K: Input should be a valid integer" in refused(capsys)


def test_every_setting_that_cannot_work_is_named(capsys, monkeypatch):
    monkeypatch.setenv("HYPCLIP_BACKEND", "magic")
    monkeypatch.setenv("HYPCLIP_WORKERS", "0")
    message = refused(capsys, "--port", "70000")
    for name in ("HYPCLIP_BACKEND", "HYPCLIP_WORKERS", "HYPCLIP_PORT"):
        assert f"{name}: " in message


def test_help_names_the_defaults(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert "runs/quickstart/checkpoint" in told
    assert "None" not in told


# Keys -----------------------------------------------------------------------------------------------------------------


def test_a_new_key_lets_its_client_in_and_is_kept_as_a_hash_only(capsys, tmp_path):
    assert main(["--new-key", "uploader:write"]) == 0
    written = capsys.readouterr().out
    (key,) = re.findall(r"hyp_\S+", written)
    (line,) = re.findall(r"uploader:write:\S+", written)
    assert hashlib.sha256(key.encode()).hexdigest() in line
    assert key not in line
    (tmp_path / "keys").write_text(f"# who may write\n{line}\n")
    keyring = Keyring.read(tmp_path / "keys")
    keyring.check(key, "write")
    with pytest.raises(Forbidden):
        keyring.check(key, "admin")
    with pytest.raises(Unauthorized):
        keyring.check(key + "x", "read")


def test_two_new_keys_differ(capsys):
    keys = set()
    for _ in range(2):
        main(["--new-key", "a:read"])
        keys.add(re.findall(r"hyp_\S+", capsys.readouterr().out)[0])
    assert len(keys) == 2


@pytest.mark.parametrize("asked", ["name", "name:", ":read", "name:everything", ""])
def test_a_new_key_of_no_known_scope(capsys, asked):
    assert "NAME:SCOPE" in refused(capsys, "--new-key", asked)
