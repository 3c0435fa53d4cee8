"""The command line and the VAE_ variables."""

import os
from pathlib import Path

import pytest

from service.settings import Settings, SettingsError, process_environment, read_settings

NEEDED = ["--repository", "models"]
EXPLICIT = ("--model-control", "explicit")
KEYS = ("--jwt-keys", "keys.json")
BESIDE = {  # without which they are refused
    "load_models": EXPLICIT,
    "wanted_file": EXPLICIT,
    "jwt_issuer": KEYS,
    "jwt_audience": KEYS,
}


def read(*arguments: str, **environment: str) -> Settings:
    return read_settings([*NEEDED, *arguments], environment)


def test_the_defaults_are_the_documented_ports_and_no_delay() -> None:
    assert read() == Settings(
        repository="models",
        listen="[::]:8500",
        metrics_port=9090,
        provider="auto",
        cpus=0,
        threads=0,
        precision="float32",
        max_queue_delay_ms=None,
        max_queue_items=4096,
        max_request_items=4096,
        drain_delay=0.0,
        drain_timeout=25.0,
        log_level="info",
    )


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("repository", "/srv/models", "/srv/models"),
        ("cache", "/var/cache/models", Path("/var/cache/models")),
        ("version_policy", "latest 2", "latest 2"),
        ("model_control", "poll", "poll"),
        ("repository_poll_seconds", "2.5", 2.5),
        ("load_models", "a,b", "a,b"),
        ("wanted_file", "wanted.json", Path("wanted.json")),
        ("listen", "127.0.0.1:0", "127.0.0.1:0"),
        ("metrics_port", "0", 0),
        ("metrics_host", "127.0.0.1", "127.0.0.1"),
        ("reuse_port", "true", True),
        ("processes", "4", 4),
        ("lifeline", "5", 5),
        ("provider", "cuda", "cuda"),
        ("cuda_runs", "bound", "bound"),
        ("transport", "public", "public"),
        ("tls_certificate", "tls.crt", Path("tls.crt")),
        ("tls_key", "tls.key", Path("tls.key")),
        ("tls_client_ca", "ca.crt", Path("ca.crt")),
        ("tokens", "tokens.toml", Path("tokens.toml")),
        ("jwt_keys", "keys.json", Path("keys.json")),
        ("jwt_issuer", "https://issuer.test", "https://issuer.test"),
        ("jwt_audience", "vae", "vae"),
        ("jwt_rights_claim", "roles", "roles"),
        ("jwt_leeway", "5", 5.0),
        ("trace_endpoint", "http://collector:4318/v1/traces", "http://collector:4318/v1/traces"),
        ("trace_ratio", "0.5", 0.5),
        ("slow_request_seconds", "2.5", 2.5),
        ("cpus", "4", 4),
        ("threads", "3", 3),
        ("max_queue_delay_ms", "1.5", 1.5),
        ("precision", "int8", "int8"),
        ("max_queue_items", "7", 7),
        ("priority_levels", "4", 4),
        ("default_priority_level", "3", 3),
        ("max_request_items", "9", 9),
        ("max_message_mib", "8", 8),
        ("max_response_mib", "4", 4),
        ("max_concurrent_streams", "16", 16),
        ("max_connections", "100", 100),
        ("max_held_mib", "128", 128),
        ("drain_delay", "2.5", 2.5),
        ("drain_timeout", "0", 0.0),
        ("max_connection_age", "60", 60.0),
        ("log_level", "debug", "debug"),
    ],
)
class TestEverySetting:
    def test_can_be_given_on_the_command_line(self, name: str, text: str, value: object) -> None:
        options = (*BESIDE.get(name, ()), f"--{name.replace('_', '-')}", text)
        assert getattr(read(*options), name) == value

    def test_can_be_given_as_a_variable(self, name: str, text: str, value: object) -> None:
        environment = {"VAE_REPOSITORY": "models", f"VAE_{name.upper()}": text}
        assert getattr(read_settings(BESIDE.get(name, ()), environment), name) == value


def test_every_setting_is_covered_by_the_test_above() -> None:
    mark = TestEverySetting.pytestmark[0]  # type: ignore[attr-defined]
    assert {name for name, *_ in mark.args[1]} == set(Settings.model_fields)


def test_a_default_level_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(SettingsError, match="expected --default-priority-level to be one of"):
        read("--priority-levels", "2", "--default-priority-level", "3")


def test_the_command_line_wins_over_a_variable() -> None:
    assert read("--metrics-port", "1", VAE_METRICS_PORT="2").metrics_port == 1


def test_a_variable_that_the_command_line_overrules_may_be_wrong() -> None:
    assert read("--metrics-port", "1", VAE_METRICS_PORT="none").metrics_port == 1


def test_an_unknown_variable_is_an_error_that_names_it() -> None:
    with pytest.raises(SettingsError, match="VAE_METRIC_PORT is no setting of this service"):
        read(VAE_METRIC_PORT="9090")


def test_variables_of_others_are_left_alone() -> None:
    assert read(PATH="/bin", VAEPORT="1", MY_VAE_THREADS="many") == read()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--listen", "8500"),
        ("--listen", "localhost:http"),
        ("--metrics-port", "65536"),
        ("--metrics-port", "-1"),
        ("--metrics-port", "none"),
        ("--provider", "tpu"),
        ("--cuda-runs", "fast"),
        ("--cpus", "-1"),
        ("--threads", "-1"),
        ("--threads", "1.5"),
        ("--max-queue-delay-ms", "-1"),
        ("--max-queue-delay-ms", "1001"),
        ("--max-queue-delay-ms", "nan"),
        ("--max-queue-items", "0"),
        ("--max-request-items", "0"),
        ("--drain-delay", "-0.1"),
        ("--drain-timeout", "soon"),
        ("--log-level", "loud"),
        ("--version-policy", "newest"),
        ("--version-policy", "latest 0"),
        ("--version-policy", "1,0"),
        ("--model-control", "auto"),
        ("--repository-poll-seconds", "0"),
    ],
)
class TestAWrongValue:
    def test_gives_one_sentence_that_names_the_option(self, option: str, value: str) -> None:
        with pytest.raises(SettingsError) as caught:
            read(f"{option}={value}")
        assert str(caught.value).startswith(f"{option}: ")
        assert "\n" not in str(caught.value)

    def test_in_a_variable_names_the_same_option(self, option: str, value: str) -> None:
        variable = "VAE_" + option.removeprefix("--").replace("-", "_").upper()
        with pytest.raises(SettingsError, match=f"^{option}: "):
            read(**{variable: value})


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--listen", ":8500", "gRPC address, HOST:PORT"),
        ("--version-policy", "newest", 'versions that are served: "latest N"'),
        ("--trace-endpoint", "collector", "takes OTLP traces, as http://"),
    ],
)
def test_a_value_of_another_form_is_told_the_form(option: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=f"^{option}: '{value}' is none: {expected}"):
        read(f"{option}={value}")


def test_less_memory_than_a_message_may_take_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"^--max-held-mib: expected more than one message"):
        read("--max-held-mib", "8")
    assert read("--max-held-mib", "9", "--max-message-mib", "8").max_held_mib == 9


def test_models_to_load_and_a_file_of_them_are_for_explicit_control_only(tmp_path: Path) -> None:
    file = tmp_path / "wanted.json"
    options = ("--load-models", "a,b", "--wanted-file", str(file))
    settings = read(*EXPLICIT, *options)
    assert (settings.load_models, settings.wanted_file) == ("a,b", file)
    for given in (options[:2], options[2:]):
        with pytest.raises(SettingsError, match="need --model-control explicit"):
            read("--model-control", "poll", *given)


def test_what_a_jwt_must_have_is_an_error_without_the_keys_to_check_it() -> None:
    options = ("--jwt-issuer", "https://issuer.test", "--jwt-audience", "vae")
    settings = read(*KEYS, *options)
    assert (settings.jwt_issuer, settings.jwt_audience) == ("https://issuer.test", "vae")
    for given in (options[:2], options[2:]):
        with pytest.raises(SettingsError, match="check nothing without --jwt-keys"):
            read(*given)


def test_a_missing_repository_is_an_error_that_names_the_option() -> None:
    with pytest.raises(SettingsError, match=r"^--repository \(or VAE_REPOSITORY\) is needed: dir"):
        read_settings([], {})


def test_an_unknown_option_ends_the_process_with_status_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        read("--metric-port=1")
    assert caught.value.code == 2
    assert "--metric-port" in capsys.readouterr().err


def test_the_help_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("--help")
    text = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')} " in text for name in Settings.model_fields)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read().metrics_port = 1


def test_the_environment_is_that_of_the_process() -> None:
    assert process_environment() is os.environ
