import pytest

from hypclip.search import LocalStore
from serve.__main__ import main


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


def test_a_missing_checkpoint(capsys, tmp_path, index):
    message = refused(capsys, "--checkpoint", tmp_path / "nowhere", "--index", index)
    assert f"{tmp_path / 'nowhere'} is not a checkpoint directory" in message


def test_a_damaged_checkpoint(capsys, tmp_path, index):
    (tmp_path / "config.yaml").write_text("{")
    assert "cannot read" in refused(capsys, "--checkpoint", tmp_path, "--index", index)


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


def test_help_names_the_defaults(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "runs/quickstart/checkpoint" in capsys.readouterr().out
