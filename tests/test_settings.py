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


@pytest.mark.parametrize("text", ["drift: {window: 1}", "drift: 5", "organelles: [nuclei, mito]"])
def test_a_value_that_cannot_be_is_named_with_its_place(home, text):
    (home / "settings.yaml").write_text(text)
    with pytest.raises(InputError, match=r"^The setting (drift|organelles).*settings\.yaml.*\.$"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("drift: {windwo: 5}", r"^There is no setting drift\.windwo \(did you mean window\?\): .*settings"),
        ("colour: red", r"^There is no setting colour: .*settings\.yaml"),
        ("models: {training: {lr: 3}}", r"^There is no training setting lr; .*settings\.yaml\.$"),
        ("models: {training: {max_step: 3}}", r"^There is no training setting max_step \(did you mean max_s"),
        (
            "retraining: {training: {dropout: 3}}",
            r"^The training setting dropout cannot be 3: .*settings\.yaml",
        ),
    ],
)
def test_a_setting_that_is_not_there_is_told_with_the_one_that_was_meant(home, text, sentence):
    (home / "settings.yaml").write_text(text)
    with pytest.raises(InputError, match=sentence):
        load_settings()


@pytest.mark.parametrize("content", [b"drift: [", b"- drift", b"drift: \xff\xfe", b"7"])
def test_a_file_that_holds_no_settings_is_named(home, content):
    (home / "settings.yaml").write_bytes(content)
    with pytest.raises(
        InputError, match=r"^\S*settings\.yaml (is not valid YAML|holds no settings).*\.$"
    ) as told:
        load_settings()
    assert "\n" not in str(told.value)


def test_an_empty_file_changes_nothing(home):
    (home / "settings.yaml").write_text("# nothing yet\n")
    assert load_settings().sensor_seconds == 30


def test_a_variable_that_names_no_setting_is_refused(monkeypatch):
    monkeypatch.setenv("CELLABEL_DRFT__WINDOW", "8")
    with pytest.raises(InputError, match=r"no setting drft \(did you mean drift\?\).*CELLABEL_DRFT__WINDOW"):
        load_settings()


@pytest.mark.parametrize("name", ["TEST_DATA", "KILLS", "GIT_COMMIT", "MUTATIONS", "PORT", "SERVICE_HOST"])
def test_variables_of_others_are_left_alone(monkeypatch, name):
    monkeypatch.setenv(f"CELLABEL_{name}", "8")
    load_settings()


def test_a_variable_that_is_no_json_is_told(monkeypatch):
    monkeypatch.setenv("CELLABEL_INBOX", "/microscope/exports")
    with pytest.raises(InputError, match="inbox"):
        load_settings()


def test_a_remote_store_is_one_url():
    assert (
        load_settings(store_url="s3://bucket/cellabel/").location("plates") == "s3://bucket/cellabel/plates"
    )
