"""The command line: parameters, options, and errors in them."""

import argparse
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kfp import dsl

import pipeline
from components.shared.core.errors import UserError
from components.shared.parameters.table import Parameters, SweepParameters
from runner import compile
from runner.answer import ErrorDocument
from runner.cli import main
from runner.compile import compile_pipeline
from runner.parameters import complete, flat, parse_inputs, parse_parameters
from tests.runner import verbs
from tests.servers.kfp_server import KfpServer

ROOT = Path(__file__).parents[2]


def test_words_set_parameters_and_others_have_defaults() -> None:
    given = parse_parameters(pipeline.training, ["data=digits", "epochs=5", "learning_rate=1", "bias=False"])
    assert given == {"data": "digits", "epochs": 5, "learning_rate": 1.0, "bias": False}
    assert isinstance(given["learning_rate"], float)
    parameters = complete(pipeline.training, given)
    assert given.items() <= parameters.items()
    assert (parameters["image_size"], parameters["flip"], parameters["gpus"]) == (32, False, "0")
    assert sorted(parameters) == sorted(Parameters.model_fields)
    sweep = complete(pipeline.sweep, {})
    assert sorted(sweep) == sorted(SweepParameters.model_fields)
    assert sweep["settings"] == [{"learning_rate": 0.01}, {"learning_rate": 0.02}, {"learning_rate": 0.04}]


def test_parameters_without_an_input_become_options() -> None:
    words = ["mixup=0.2", "epochs=5", "gpus=1", "flip=true", "stopping=asha", "batch_size=auto"]
    inputs = parse_inputs(pipeline.sweep, words)
    options = {"mixup": 0.2, "flip": True, "stopping": "asha"}
    assert inputs == {"epochs": 5, "gpus": "1", "batch_size": "auto", "options": options}
    assert flat(inputs) == parse_parameters(pipeline.sweep, words)
    assert parse_inputs(pipeline.sweep, ["epochs=5"]) == {"epochs": 5}
    assert parse_inputs(pipeline.training, ["nodes=1"]) == {"options": {"nodes": 1}}
    assert parse_inputs(pipeline.distributed, ["nodes=2"]) == {"nodes": 2}
    assert parse_inputs(pipeline.training, []) == {} == flat({})


def test_settings_are_columns_in_kubeflow_and_objects_for_people() -> None:
    objects = [{"learning_rate": 0.1}, {"learning_rate": 0.2}]
    columns = [["learning_rate", 0.1, 0.2]]
    for given in (objects, columns):
        inputs = parse_inputs(pipeline.sweep, [f"settings={json.dumps(given)}"])
        assert inputs == {"settings": columns} and flat(inputs) == {"settings": objects}
    assert complete(pipeline.sweep, {"settings": columns})["settings"] == objects


def test_settings_stay_objects_for_an_earlier_version() -> None:
    objects = [{"learning_rate": 0.1}, {"learning_rate": 0.2}]

    @dsl.pipeline(name="torch2kubeflow-sweep")
    def earlier(settings: list[dict[str, float]] = objects) -> None:
        verbs.resolve(data="mnist", epochs=3)

    assert parse_inputs(earlier, [f"settings={json.dumps(objects)}"]) == {"settings": objects}


def test_the_input_options_is_no_parameter_itself() -> None:
    with pytest.raises(UserError, match=r"'options=\{\}' is not a parameter"):
        parse_parameters(pipeline.training, ["options={}"])


def test_a_version_without_options_has_its_inputs_alone() -> None:
    assert complete(verbs.pipeline, {"epochs": 5}) == {"data": "mnist", "epochs": 5, "node_selector": {}}
    with pytest.raises(UserError, match=r"'mixup=0\.2' is not a parameter; .* one of: data, epochs, node_selector$"):
        parse_inputs(verbs.pipeline, ["mixup=0.2"])


def test_objects_and_lists_are_given_as_json() -> None:
    words = ['node_selector={"disk": "ssd"}', 'tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}]']
    parameters = parse_parameters(pipeline.training, words)
    assert parameters["node_selector"] == {"disk": "ssd"}
    assert parameters["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]


def test_a_value_may_contain_equals_signs() -> None:
    parameters = parse_parameters(pipeline.training, ["data=https://example.org/a.zip?x=1#sha256=00"])
    assert parameters["data"] == "https://example.org/a.zip?x=1#sha256=00"


@pytest.mark.parametrize(
    ("word", "accepted"),
    [
        ("epoch=3", "did you mean epochs?"),
        ("fast", "give name=value with one of: data, store"),
        ("epochs=two", "epochs=two has the wrong type; give a whole number"),
        ("epochs=2.5", "give a whole number"),
        ("learning_rate=fast", "give a number"),
        ("bias=perhaps", "give true or false"),
        ("epochs=0", "epochs=0 is not accepted; give 1 or more"),
        ("learning_rate=-0.1", "learning_rate=-0.1 is not accepted; give a number above 0"),
        ("learning_rate=nan", "learning_rate=nan is not accepted"),
        ("rotation=inf", "rotation=inf is not accepted"),
        ("val_fraction=1", "above 0 and below 1"),
        ("activation=softsign", "one of sigmoid, tanh, relu, leaky_relu, leaky_clipped"),
        ("optimizer=adam", "one of sgd, adamw, muon"),
        ("pooling=sum", "one of max, avg"),
        ("seed=-1", "seed=-1 is not accepted"),
        (
            "data=mnits",
            "give mnist, fashion-mnist, kmnist, cifar10, digits, a https://, s3:// or file:// URI, or a path",
        ),
        ("data=ftp://example.org/a.zip", "data=ftp://example.org/a.zip is not accepted"),
        ("epochs", "epochs has no value; give epochs=..."),
        ("gpus=-1", "a whole number from 0 to 99"),
        ("gpus=lots", "a whole number from 0 to 99"),
        ("train_memory=16GB", "a Kubernetes quantity such as 16Gi"),
        ("train_memory=0Gi", "a Kubernetes quantity such as 16Gi"),
        ("train_cpu=0.0", "a Kubernetes quantity such as 2, 0.5 or 500m"),
        ('tolerations=[{"operator": "exists"}]', "as Kubernetes knows them"),
        ('tolerations=[{"effect": "noschedule"}]', "as Kubernetes knows them"),
        ("train_cpu=two", "a Kubernetes quantity such as 2, 0.5 or 500m"),
        ("gpu_resource=a100", "a Kubernetes resource such as nvidia.com/gpu"),
        ("node_selector=ssd", "a JSON object"),
        ('node_selector={"disk": 1}', "an object of labels"),
        ("tolerations={}", "a JSON list"),
        ('tolerations=[{"name": "gpu"}]', "key, operator, value, effect, tolerationSeconds as Kubernetes knows them"),
        ("s3_secret=", "a Kubernetes name"),
        ("data=", "give mnist, fashion-mnist, kmnist, cifar10, digits, a https://, s3:// or file:// URI, or a path"),
    ],
)
def test_an_invalid_parameter_is_refused_with_what_is_accepted(word: str, accepted: str) -> None:
    with pytest.raises(UserError) as error:
        parse_parameters(pipeline.training, [word])
    assert accepted in str(error.value)
    assert word.partition("=")[0] in str(error.value)


def test_a_parameter_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match="epochs is given twice"):
        parse_parameters(pipeline.training, ["epochs=1", "epochs=2"])


def test_a_user_error_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(lambda: pipeline.GRAPHS, ["local", "epochs=0", "--runs", str(tmp_path / "runs")])
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.err == "error: epochs=0 is not accepted; give 1 or more\n"
    assert captured.out == ""
    assert not list(tmp_path.iterdir())


def test_a_runs_folder_that_is_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").write_text("")
    line = _refused(capsys, "local", "data=digits", "--runs", str(tmp_path / "runs"))
    assert line == f"error: nothing can be written to {tmp_path / 'runs'}; give another folder with --runs DIR\n"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "check permissions"),
        (errno.EPERM, "check permissions"),
        (errno.EROFS, "check permissions"),
        (errno.ENOSPC, "free some space there"),
        (errno.EDQUOT, "free some space there"),
        (errno.ENOTDIR, "give another path"),
        (errno.EEXIST, "give another path"),
    ],
)
def test_an_error_of_the_file_system_has_its_own_remedy(
    number: int, remedy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _let_compile_fail(monkeypatch, OSError(number, os.strerror(number), "/folder/file"))
    assert (
        _refused(capsys, "compile", "--output", "p.yaml") == f"error: {os.strerror(number)}: /folder/file; {remedy}\n"
    )


def test_an_error_of_the_file_system_may_have_no_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _let_compile_fail(monkeypatch, PermissionError(errno.EACCES, "Permission denied"))
    assert _refused(capsys, "compile", "--output", "p.yaml") == "error: Permission denied; check permissions\n"


def test_an_error_of_the_file_system_that_is_a_bug_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    _let_compile_fail(monkeypatch, FileNotFoundError(errno.ENOENT, "No such file", "/folder/file"))
    with pytest.raises(FileNotFoundError):
        main(lambda: pipeline.GRAPHS, ["compile"])


def _let_compile_fail(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("runner.compile.compile_pipeline", fail)


def _refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return the error of a verb that exits with code 2."""
    with pytest.raises(SystemExit) as stop:
        main(lambda: pipeline.GRAPHS, words)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_the_output_of_compile_is_a_yaml_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    line = f"error: --output {folder} is a folder; name a file, such as {folder / 'pipeline.yaml'}\n"
    assert _refused(capsys, "compile", "--output", str(folder)) == line
    for name in ("foo.txt", "foo.json", "foo"):
        line = f"error: --output {tmp_path / name} is no YAML file; give a name that ends in .yaml\n"
        assert _refused(capsys, "compile", "--output", str(tmp_path / name)) == line
    assert list(tmp_path.iterdir()) == [folder]
    (tmp_path / "file").write_text("")
    line = _refused(capsys, "compile", "--output", str(tmp_path / "file" / "pipeline.yaml"))
    assert str(tmp_path / "file") in line
    assert "--runs" not in line


def test_options_may_stand_between_parameters(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    def started(*words: str) -> None:
        with pytest.raises(SystemExit) as stop:
            main(lambda: {"training": verbs.pipeline}, words)
        assert stop.value.code == 0

    started("run", "epochs=3", "--pipeline-root", "s3://bucket", "data=digits")
    (run,) = kfp_api.runs.values()
    assert run.runtime_config.parameters == {"data": "digits", "epochs": 3}
    started("schedule", "add", "nightly", "0 2 * * *", "--follow-latest", "data=digits")
    (item,) = kfp_api.recurring_runs.values()
    assert item.runtime_config.parameters == {"data": "digits"}
    line = _refused(capsys, "local", "data=digits", "--no-cache", "epochs=0")
    assert line == "error: epochs=0 is not accepted; give 1 or more\n"


@pytest.mark.parametrize(
    "words",
    [
        ["run", "epochs=3", "--wiat", "gpus=1"],
        ["local", "--no-cach"],
        ["compile", "epochs=3"],
        ["status", "latest", "more"],
    ],
)
def test_unknown_options_and_extra_words_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "error: unrecognized arguments: " in _refused(capsys, *words)


def test_compiling_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first = compile_pipeline(pipeline.training, tmp_path / "a" / "pipeline.yaml").read_bytes()
    assert compile_pipeline(pipeline.training, tmp_path / "pipeline.yaml").read_bytes() == first
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "pipeline.yaml", "pipeline.yaml"]


def test_help_shows_examples() -> None:
    shown = subprocess.run([sys.executable, "pipeline.py", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0
    assert "python pipeline.py local" in shown.stdout


@pytest.mark.slow
def test_each_graph_is_compiled_to_its_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("runner.compile.BUILD", tmp_path)

    def compiled(*words: str) -> list[str]:
        with pytest.raises(SystemExit) as stop:
            main(lambda: pipeline.GRAPHS, ["compile", *words])
        assert stop.value.code == 0
        return [Path(line).name for line in capsys.readouterr().out.splitlines()]

    assert compiled() == ["pipeline.yaml", "sweep.yaml", "pipeline-distributed.yaml", "bigdata.yaml", "prediction.yaml"]
    names = [yaml.safe_load_all(path.read_text()) for path in (tmp_path / "pipeline.yaml", tmp_path / "sweep.yaml")]
    assert [next(documents)["pipelineInfo"]["name"] for documents in names] == [
        "torch2kubeflow-training",
        "torch2kubeflow-sweep",
    ]
    assert compiled("--graph", "sweep") == ["sweep.yaml"]
    assert compiled("--graph", "sweep", "--output", str(tmp_path / "other.yaml")) == ["other.yaml"]
    assert (tmp_path / "other.yaml").read_bytes() == (tmp_path / "sweep.yaml").read_bytes()


@pytest.mark.parametrize("verb", ["local", "compile", "upload", "run", "doctor", "status"])
def test_an_unknown_graph_is_refused(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = _refused(capsys, verb, "--graph", "sweeep")
    assert (
        line == "error: --graph sweeep does not exist; give training or sweep or distributed or bigdata or prediction\n"
    )


def test_each_graph_is_a_pipeline_of_its_own(kfp_api: KfpServer) -> None:
    words = ["schedule", "add", "weekly", "0 2 * * 0", "--graph", "sweep", "stopping=asha", "epochs=9"]
    with pytest.raises(SystemExit) as stop:
        main(lambda: pipeline.GRAPHS, words)
    assert stop.value.code == 0
    (item,) = kfp_api.recurring_runs.values()
    assert item.runtime_config.parameters == {"epochs": 9, "options": {"stopping": "asha"}}
    assert [one.display_name for one in kfp_api.pipelines.values()] == ["torch2kubeflow-sweep"]


@pytest.mark.parametrize(("word", "code"), [("--help", 0), pytest.param("status", 141, marks=pytest.mark.slow)])
def test_output_into_a_closed_pipe_ends_quietly(kfp_api: KfpServer, word: str, code: int) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "pipeline.py", word]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, timeout=300)
    os.close(write)
    assert (done.returncode, done.stderr) == (code, "")


def test_a_connection_that_breaks_is_no_closed_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(compile, "handle", broken)
    monkeypatch.setattr(sys, "stdout", sys.__stdout__)
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    with pytest.raises(BrokenPipeError):
        main(lambda: pipeline.GRAPHS, ["compile"])


def test_with_json_an_error_is_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(lambda: pipeline.GRAPHS, ["compile", "--graph", "sweeep", "--json"])
    shown = capsys.readouterr()
    message, remedy = "--graph sweeep does not exist", "give training or sweep or distributed or bigdata or prediction"
    assert ErrorDocument.parse(shown.out.encode(), "stdout") == ErrorDocument(
        message=message, remedy=remedy, exit_code=2
    )
    assert (stop.value.code, shown.err) == (2, f"error: {message}; {remedy}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status", "--hots=h"], "unrecognized arguments: --hots=h"),
        (["upgrade"], "argument VERB: invalid choice: 'upgrade'"),
        (
            ["run", "--label", "team=a"],
            "argument --label/--labels: team=a cannot be kept: KFP has no labels of runs; give --name or --description",
        ),
    ],
)
def test_with_json_words_that_are_wrong_are_a_document(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"error: {message}" in _refused(capsys, *words)
    with pytest.raises(SystemExit):
        main(lambda: pipeline.GRAPHS, [*words, "--json"])
    document = ErrorDocument.parse(capsys.readouterr().out.encode(), "stdout")
    assert document.message.startswith(message) and document.exit_code == 2


def test_with_json_stdout_has_the_document_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def handle(arguments: argparse.Namespace, *_: object) -> int:
        print("for people")
        arguments.document = ErrorDocument(message="none", remedy="", exit_code=0)
        return 1

    monkeypatch.setattr(compile, "handle", handle)
    for words, out, err in (["compile"], "for people\n", ""), (["compile", "--json"], None, "for people\n"):
        with pytest.raises(SystemExit) as stop:
            main(lambda: pipeline.GRAPHS, words)
        shown = capsys.readouterr()
        assert (stop.value.code, shown.err) == (1, err)
        assert shown.out == out or ErrorDocument.parse(shown.out.encode(), "stdout").message == "none"
