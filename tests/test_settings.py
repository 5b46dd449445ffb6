import pytest

from cellabel.errors import InputError
from cellabel.settings import load_settings


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLABEL_HOME", str(tmp_path))
    return tmp_path


def test_everything_local_lies_under_the_home(home):
    settings = load_settings()
    assert settings.home == home
    assert settings.inbox_folder == home / "inbox"
    assert settings.mlflow_tracking_uri == f"sqlite:///{home}/mlflow.db"
    assert settings.location("plates") == f"{home}/plates"


def test_the_environment_wins_over_the_file(home, monkeypatch):
    (home / "settings.yaml").write_text("drift: {window: 5, harm_limit: 0.1}\nsensor_seconds: 7\n")
    assert load_settings().drift.window == 5
    monkeypatch.setenv("CELLABEL_DRIFT__WINDOW", "8")
    settings = load_settings()
    assert (settings.drift.window, settings.drift.harm_limit, settings.sensor_seconds) == (8, 0.1, 7)


def test_a_home_that_is_given_brings_its_own_file(home, tmp_path):
    (home / "settings.yaml").write_text("sensor_seconds: 7\n")
    other = tmp_path / "other"
    other.mkdir()
    assert load_settings(home=other).sensor_seconds == 30
    (other / "settings.yaml").write_text("sensor_seconds: 9\n")
    assert load_settings(home=other).sensor_seconds == 9
    (other / "settings.yaml").write_text("colour: red\n")
    with pytest.raises(InputError, match="other"):
        load_settings(home=other)


@pytest.mark.parametrize("text", ["drift: {window: 1}", "drift: {windw: 5}", "colour: red"])
def test_a_value_that_cannot_be_is_named_with_its_place(home, text):
    (home / "settings.yaml").write_text(text)
    with pytest.raises(InputError, match=r"The setting (drift\.wind|colour).*settings\.yaml"):
        load_settings()


def test_a_remote_store_is_one_url():
    assert (
        load_settings(store_url="s3://bucket/cellabel/").location("plates") == "s3://bucket/cellabel/plates"
    )
