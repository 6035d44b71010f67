from pathlib import Path

import pytest
from pydantic import ValidationError

from serve.settings import Settings, unknown_variables


def test_the_environment_sets_and_arguments_win(monkeypatch):
    monkeypatch.setenv("HYPCLIP_MAX_K", "7")
    monkeypatch.setenv("HYPCLIP_PORT", "9000")
    settings = Settings(port=9001)
    assert (settings.max_k, settings.port) == (7, 9001)


@pytest.mark.parametrize(
    "name, value", [("MAX_K", "0"), ("MAX_K", "many"), ("PORT", "70000"), ("MAX_IMAGE_ASPECT", "0")]
)
def test_values_that_cannot_work_are_refused(monkeypatch, name, value):
    monkeypatch.setenv(f"HYPCLIP_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_a_leading_tilde_is_the_home_folder_in_every_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = ("checkpoint", "index", "onnx_cache", "api_keys_file")
    for name in paths:
        monkeypatch.setenv(f"HYPCLIP_{name.upper()}", f"~/{name}")
    settings = Settings()
    assert [getattr(settings, name) for name in paths] == [tmp_path / name for name in paths]


def test_settings_are_documented_and_do_not_change():
    assert all(field.description for field in Settings.model_fields.values())
    with pytest.raises(ValidationError, match="frozen"):
        Settings().max_k = 3
    with pytest.raises(ValidationError, match="max_kk"):
        Settings(max_kk=3)


def test_a_tilde_in_the_environment_is_the_home_folder(monkeypatch):
    """Which no shell expands there."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("HYPCLIP_CHECKPOINT", "~/model")
    settings = Settings(index=Path("~/index"), api_keys_file="~/keys")
    paths = (settings.checkpoint, settings.index, settings.api_keys_file)
    assert paths == (Path("/home/me/model"), Path("/home/me/index"), Path("/home/me/keys"))


def test_a_variable_that_is_no_setting_is_told_with_the_one_that_was_meant(monkeypatch):
    assert unknown_variables() == []
    for name in ("HYPCLIP_MAXK", "HYPCLIP_QQQQ", "HYPCLIP_MAX_K", "HYPCLIPX"):
        monkeypatch.setenv(name, "9")
    assert unknown_variables() == [
        "the environment has HYPCLIP_MAXK, which is no setting and changes nothing; did you mean HYPCLIP_MAX_K?",
        "the environment has HYPCLIP_QQQQ, which is no setting and changes nothing",
    ]
