"""Secrets in Beam's options are never shown or stored, and are refused where others would keep them."""

import json
import re

import pytest

from beam_zoo.errors import UserError
from pipelines import aggregate, audit, finish, predict
from runners import beam_options, secrets
from runners.slurm.__main__ import main as slurm

VALUE = "wJalrXUtnFEMI/K7MDENG+bPx=="
OF_BEAM = {"azure_connection_string", "s3_access_key_id", "s3_secret_access_key", "s3_session_token"}
NO_SECRETS = {"allow_non_deterministic_key_coders", "dataflow_kms_key", "enable_hot_key_logging"}
NAMED_ALIKE = re.compile("secret|pass|token|cred|key|private|auth|connection|pwd")


def names_of_beam() -> set[str]:
    actions = beam_options._parser()._actions
    return {string[2:] for action in actions for string in action.option_strings}


def test_all_options_of_beam():
    """A new one that is named like a secret must be looked at here, and is one until then."""
    names = names_of_beam()
    assert {
        name for name in names if secrets.shown(f"--{name}={VALUE}") == f"--{name}={secrets.MASK}"
    } == OF_BEAM
    no_oauth = {name for name in names if NAMED_ALIKE.search(name)} - {"gcp_oauth_scope", "gcp_oauth_scopes"}
    assert no_oauth - {"no_auth"} == OF_BEAM | NO_SECRETS
    assert set(secrets.NO_SECRETS) <= names and set(secrets.NAMES_OF_OTHERS) <= names


@pytest.mark.parametrize(
    "name",
    ["some_api_key", "db_password", "new_token", "apikey", "the-secret", "credentials", "x_passwd", "keys"],
)
def test_an_option_that_is_not_there_yet(name):
    assert secrets.shown(f"--{name}={VALUE}") == f"--{name}=***"


HIDDEN = [
    "--s3_secret_access_key=VALUE",
    '--environment_config={"command": "/boot", "env": {"AWS_SECRET_ACCESS_KEY": "VALUE", "PATH": "/bin"}}',
    '--environment_config={"env": {"CREDENTIALS": {"any": ["VALUE"]}}}',
    '--environment_config={"env": {"AWS_SECRET_ACCESS_KEY": "VALUE"',
    "--environment_option=process_variables=AWS_SESSION_TOKEN=VALUE,PATH=/bin",
    '--environment_options=process_variables=A=1,DB_PASS="VALUE"',
    "--profiler_extra_env_vars=AWS_SECRET_ACCESS_KEY=VALUE",
    "--experiments=use_runner_v2,token=VALUE",
    "--experiments=AccountName=me;AccountKey=VALUE;EndpointSuffix=core",
    "--blob_service_endpoint=https://me.blob.core.windows.net/?sv=2020&sig=VALUE",
    '--beam_services={"some": "http://me:VALUE@host/path"}',
    '--beam_services={"some": "https://VALUE@host/path"}',
    '--environment_config={"command": "/boot --password VALUE"}',
    '--environment_config={"env": [{"name": "AWS_SECRET_ACCESS_KEY", "value": "VALUE"}]}',
    '--environment_config={"env": {"TOKEN": "VALUE", "TOKEN": ""}}',
    '--environment_config={"headers": {"Authorization": "Bearer VALUE"}}',
    "--environment_options=process_variables=AWS_SESSION_TOKEN:VALUE",
    "--experiments=password: VALUE",
]
PLAIN = [
    "--runner=DirectRunner",
    "--streaming",
    "--s3_session_token",
    "--dataflow_kms_key=projects/p/locations/l/keyRings/r/cryptoKeys/k",
    "--enable_hot_key_logging",
    "--allow_non_deterministic_key_coders",
    "--gbek=type:GcpSecret;version_name:projects/p/secrets/s/versions/1",
    "--maven_repository_url=https://host:8081/path@1",
    "--hdfs_user=me",
    "--sdk_container_image=registry/key:token@sha256:0123",
    "--flink_master=node17:8081",
    "--experiments=use_runner_v2,shuffle_mode=service",
    '--environment_config={"command":"/boot","env":{"BEAM_ZOO_PYTHON":"/venv/bin/python"}}',
    '--environment_config={"env": {"TOKENIZERS_PARALLELISM": "false", "AWS_PROFILE": "me"}}',
    '--environment_config={"env": {"GOOGLE_APPLICATION_CREDENTIALS": "/k.json", '
    '"AWS_WEB_IDENTITY_TOKEN_FILE": "/t"}}',
    '--sdk_harness_log_level_overrides={"runners.flink.keys": "DEBUG"}',
    '--transform_name_mapping={"GroupByKey": "Group"}',
    "--labels=api_key_owner=team1",
    "--output_executable_path=abfss://container@account.dfs.core.windows.net/a",
]


@pytest.mark.parametrize("flag", HIDDEN)
@pytest.mark.parametrize("value", [VALUE, "s3cr3t"])
def test_hidden(flag, value):
    flag = flag.replace("VALUE", value.replace("/", "%2F") if "@" in flag else value)
    said = secrets.shown(flag)
    assert "***" in said and not re.search("VALUE|MDENG|s3cr3t", said)
    assert said.partition("=")[0] == flag.partition("=")[0]
    rest = [word for word in ("/boot", "PATH", "use_runner_v2", "AccountName=me", "sv=2020") if word in flag]
    assert all(word in said for word in rest)
    assert secrets.shown(said) == said


@pytest.mark.parametrize("flag", PLAIN)
def test_plain(flag):
    assert secrets.shown(flag) == flag
    secrets.refuse([flag], "a job")


@pytest.mark.parametrize("runner", ["FlinkRunner", "DataflowRunner"])
@pytest.mark.parametrize("flag", HIDDEN)
def test_refused_where_others_would_keep_it(flag, runner):
    with pytest.raises(UserError) as refusal:
        beam_options.check([f"--runner={runner}", flag.replace("VALUE", "s3cr3t")], [])
    said = str(refusal.value)
    assert said.startswith(f"{flag.partition('=')[0]} holds a secret, which --runner={runner} would store")
    assert "s3cr3t" not in said
    for instead in (
        "AWS_SECRET_ACCESS_KEY",
        "AWS_PROFILE",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "gcloud auth application-default login",
        "AZURE_STORAGE_CONNECTION_STRING",
    ):
        assert instead in said


def test_an_error_of_beam_hides_it():
    with pytest.raises(UserError, match=r"--beam_services.*\*\*\*") as refusal:
        beam_options.check([f'--beam_services={{"token": "{VALUE}"'], [])
    assert VALUE not in str(refusal.value)


@pytest.mark.parametrize("engine", [["--nodes", "2", "--flink", "/nowhere"], ["--engine", "array"]])
def test_slurm_refuses_it(engine, capsys):
    words = ["submit", "--time", "9", *engine, "--", f"--s3_secret_access_key={VALUE}"]
    assert slurm(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--s3_secret_access_key holds a secret, which the job's script would store" in line
    assert VALUE not in line


def test_nothing_keeps_it(few, trees, tmp_path, capfd):
    """Given in a YAML config and on the command line: not printed, not in manifests, nor anywhere else."""
    folder = tmp_path / "outputs"
    models = ["--models", *map(str, trees)]
    run = ["--catalogue", str(few), *models, "--passes", "1", "--limit", "3", "--output", str(folder / "out")]
    config = tmp_path / "run.yaml"
    config.write_text(
        f"s3_secret_access_key: {VALUE}\n"
        f"environment_config: {{env: {{AWS_SECRET_ACCESS_KEY: {VALUE}, PATH: /bin}}}}\n"
    )
    given = [f"--s3_session_token={VALUE}", "--config", str(config)]
    assert predict.main([*run, *given, "--print_config"]) == 0
    shown = capfd.readouterr().out
    assert "--s3_secret_access_key=***" in shown and "--s3_session_token=***" in shown
    assert '--environment_config={"env": {"AWS_SECRET_ACCESS_KEY": "***", "PATH": "/bin"}}' in shown
    assert predict.main([*run, *given, "--dry_run"]) == 0
    assert predict.main([*run, *given]) == 0
    out, flag = folder / "out", f"--s3_secret_access_key={VALUE}"
    manifest = json.loads((out / "manifest.json").read_text())
    assert "--s3_session_token=***" in manifest["beam_options"] and len(manifest["beam_options"]) == 3
    assert finish.main([str(out), flag]) == 0
    assert json.loads((out / "manifest.json").read_text())["beam_options"] == ["--s3_secret_access_key=***"]
    union = folder / "union"
    assert aggregate.main(["--samples", str(out), "--output", str(union), flag]) == 0
    assert json.loads((union / "manifest.json").read_text())["beam_options"] == ["--s3_secret_access_key=***"]
    assert audit.main([str(out), flag]) == 0
    said = capfd.readouterr()
    assert VALUE not in shown + said.out + said.err
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert not [path for path in files if VALUE.encode() in path.read_bytes()]
