"""Every mistake an operator can make is named: which file, which key, what is wrong, what to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sparkd.config import load
from sparkd.errors import ConfigError
from tests.config.conftest import MODEL, RUNTIME, SPARKD, Site

#: Stands for MODEL in a case, so that the case shows only what is wrong.
TOP = "{top}"


@dataclass(frozen=True, slots=True)
class Case:
    """A mistake: what is written where, and the one problem that must come of it."""

    name: str
    file: str
    text: str | bytes
    where: str
    message: str
    hint: str


def daemon(name: str, text: str, key: str, message: str, hint: str) -> Case:
    where = f"sparkd.toml: {key}" if key else "sparkd.toml"
    return Case(name, "sparkd.toml", SPARKD + text, where, message, hint)


def model(name: str, text: str, key: str, message: str, hint: str) -> Case:
    """A model file: the usual one with `text` below it, or above where it says `{top}`."""
    whole = text.replace(TOP, MODEL) if TOP in text else MODEL + text
    where = f"models/small.toml: {key}" if key else "models/small.toml"
    return Case(name, "models/small.toml", whole, where, message, hint)


DAEMON_MISTAKES = [
    daemon("syntax", "[server\n", "", "line 5", "line 5 is: [server"),
    daemon("unquoted size", "[server]\nmax_body = 64MiB\n", "", "line 6", "written in quotes"),
    daemon("unquoted word", "[log]\nlevel = info\n", "", "line 6", "text is written in quotes"),
    daemon("key twice", "[log]\n[log]\n", "", "Cannot declare", "line 6 is: [log]"),
    daemon("unclosed text", '[log]\nlevel = "info', "", "parse this as TOML", "left open"),
    daemon(
        "unknown key",
        '[server]\nlistn = ["127.0.0.1:1"]\n',
        "server.listn",
        "unknown key 'listn'",
        "did you mean 'listen'?",
    ),
    daemon("unknown table", "[serve]\nx = 1\n", "serve", "unknown table 'serve'", "mean 'server'?"),
    daemon(
        "key outside its table",
        '[log]\nmax_body = "1MiB"\n',
        "log.max_body",
        "unknown key 'max_body'",
        "did you mean [server] max_body?",
    ),
    daemon(
        "key of a model",
        '[memory]\nbudget = "1GiB"\n',
        "memory.budget",
        "unknown key 'budget'",
        "a setting of a model's own file",
    ),
    daemon(
        "value for a table",
        "[defaults]\nqueue = 3\n",
        "defaults.queue",
        "must be a table, not an integer",
        "write [defaults.queue] on a line",
    ),
    daemon(
        "size without unit",
        "[server]\nmax_body = 64\n",
        "server.max_body",
        "must be a size in quotes, not an integer",
        "write the unit",
    ),
    daemon(
        "decimal unit",
        '[memory]\nlimit = "100GB"\n',
        "memory.limit",
        "unknown unit 'GB'",
        'did you mean "100GiB"?',
    ),
    daemon("limit 0", '[memory]\nlimit = "0B"\n', "memory.limit", "more than 0", "24GiB"),
    daemon(
        "negative duration",
        '[server]\ndrain_timeout = "-5s"\n',
        "server.drain_timeout",
        "must not be negative",
        "20min",
    ),
    daemon(
        "wrong duration unit",
        '[defaults.lifecycle]\nkeep_alive = "20 minutes"\n',
        "defaults.lifecycle.keep_alive",
        "unknown unit 'minutes'",
        'did you mean "20min"?',
    ),
    daemon(
        "endless duration",
        f'[server]\ndrain_timeout = "{"9" * 400}s"\n',
        "server.drain_timeout",
        "is too large",
        "20min",
    ),
    daemon(
        "comments without a pause",
        '[server]\nloading_comment_interval = "0"\n',
        "server.loading_comment_interval",
        "must be more than 0: comments would be sent without a pause",
        "20min",
    ),
    daemon(
        "unknown word",
        '[log]\nlevel = "warn"\n',
        "log.level",
        "unknown word 'warn'; use one of debug, info, warning, error",
        "did you mean 'warning'?",
    ),
    daemon(
        "listen is not a list",
        '[server]\nlisten = "127.0.0.1:8009"\n',
        "server.listen",
        "must be a list, not a string",
        'write it in brackets: ["127.0.0.1:8009"]',
    ),
    daemon("no address", "[server]\nlisten = []\n", "server.listen", "at least 1", "127.0.0.1"),
    daemon(
        "address without port",
        '[server]\nlisten = ["127.0.0.1"]\n',
        "server.listen[0]",
        "'127.0.0.1' is not an address and a port",
        "127.0.0.1:8009",
    ),
    daemon(
        "bare IPv6",
        '[server]\nlisten = ["::1:8009"]\n',
        "server.listen[0]",
        "is not an address and a port",
        "write IPv6 as [::1]:8009",
    ),
    daemon(
        "port out of range",
        '[server]\nlisten = ["127.0.0.1:70000"]\n',
        "server.listen[0]",
        "port 70000 is out of range",
        "65535",
    ),
    daemon(
        "port that is no number",
        '[server]\nlisten = ["127.0.0.1:http"]\n',
        "server.listen[0]",
        "'http' is not a port number",
        "127.0.0.1:8009",
    ),
    daemon(
        "address of the network",
        '[server]\nlisten = ["127.0.0.1:8009", "0.0.0.0:8009"]\n',
        "server.listen[1]",
        "not a loopback address, and there are no API keys yet",
        "listen on 127.0.0.1",
    ),
    daemon(
        "host name",
        '[server]\nlisten = ["spark.local:8009"]\n',
        "server.listen[0]",
        "'spark.local' is not an IP address or localhost",
        "127.0.0.1:8009",
    ),
    daemon(
        "address twice",
        '[server]\nlisten = ["127.0.0.1:1", "127.0.0.1:1"]\n',
        "server.listen[1]",
        'is there twice: "127.0.0.1:1"',
        "remove one",
    ),
    daemon(
        "long control socket",
        f'[server]\ncontrol_socket = "/{"x" * 107}"\n',
        "server.control_socket",
        "is too long: 108 bytes, at most 107 fit",
        "shorter path",
    ),
    Case(
        "long run directory",
        "sparkd.toml",
        SPARKD + f'run = "/{"x" * 44}"\n',
        "sparkd.toml: paths.run",
        "is too long: 45 bytes, at most 44 fit: engines make unix sockets",
        "shorter path",
    ),
    Case(
        "directory of models that is not there",
        "sparkd.toml",
        SPARKD.replace('"local"', '"lokal"'),
        "sparkd.toml: paths.models[1]",
        "there is no directory lokal",
        "make it, or take it out of the list",
    ),
    Case(
        "file for a directory of models",
        "sparkd.toml",
        SPARKD.replace('"local"', '"weights.txt"'),
        "weights.txt",
        "cannot list this directory: it is a file",
        "name its directory",
    ),
    Case(
        "empty path",
        "sparkd.toml",
        SPARKD + 'state = ""\n',
        "sparkd.toml: paths.state",
        "must not be empty",
        "write a path",
    ),
    Case(
        "home of nobody",
        "sparkd.toml",
        SPARKD + 'state = "~no-such-user/x"\n',
        "sparkd.toml: paths.state",
        "no such user",
        "write the whole path",
    ),
    daemon(
        "queue for nobody",
        "[defaults.queue]\nmax_waiting = 0\n",
        "defaults.queue.max_waiting",
        "must be 1 or more, not 0",
        "0 would refuse every request",
    ),
]

MODEL_MISTAKES = [
    model("syntax", "= 3\n", "", "line 6", "line 6 is: = 3"),
    Case(
        "not UTF-8",
        "models/small.toml",
        b'description = "caf\xe9"\n',
        "models/small.toml",
        "cannot decode this as UTF-8: byte 18 is 0xe9",
        "save the file as UTF-8",
    ),
    model("unknown key", "bugdet = 1\n", "memory.bugdet", "unknown key 'bugdet'", "mean 'budget'?"),
    model(
        "key of another table",
        f'keep_alive = "1h"\n{TOP}',
        "keep_alive",
        "unknown key 'keep_alive'",
        "did you mean [lifecycle] keep_alive?",
    ),
    model(
        "key of the top in a table",
        'aliases = ["x"]\n',
        "memory.aliases",
        "unknown key 'aliases'",
        "did you mean 'aliases' at the top of the file?",
    ),
    model(
        "setting of the daemon",
        '[server]\nlisten = ["127.0.0.1:1"]\n',
        "server",
        "unknown table 'server'",
        "that is a setting of sparkd.toml",
    ),
    model(
        "nothing like it",
        "zzz = 1\n",
        "memory.zzz",
        "unknown key 'zzz'",
        "known here: budget",
    ),
    Case(
        "no source",
        "models/small.toml",
        MODEL.replace("source", "description"),
        "models/small.toml: source",
        "is missing, and has no default",
        "at the top of the file: source = ...",
    ),
    Case(
        "no runtime",
        "models/small.toml",
        MODEL.replace("runtime", "description"),
        "models/small.toml: runtime",
        "is missing, and has no default",
        "runtime = ...",
    ),
    Case(
        "no budget",
        "models/small.toml",
        MODEL.replace('budget = "2GiB"', ""),
        "models/small.toml: memory.budget",
        "is missing, and has no default",
        "in [memory]: budget = ...",
    ),
    Case(
        "budget for the table",
        "models/small.toml",
        MODEL.replace("[memory]\nbudget", "memory"),
        "models/small.toml: memory",
        "must be a table, not a string",
        "write [memory] on a line, and below it budget",
    ),
    Case(
        "negative budget",
        "models/small.toml",
        MODEL.replace("2GiB", "-2GiB"),
        "models/small.toml: memory.budget",
        "must not be negative: '-2GiB'",
        "24GiB",
    ),
    Case(
        "budget in words",
        "models/small.toml",
        MODEL.replace("2GiB", "much"),
        "models/small.toml: memory.budget",
        "'much' is not a size",
        "24GiB",
    ),
    Case(
        "runtime that is not installed",
        "models/small.toml",
        MODEL.replace("vllm-cpu", "vllm-gpu"),
        "models/small.toml: runtime",
        "no runtime of this name in runtimes: 'vllm-gpu'",
        "did you mean 'vllm-cpu'?",
    ),
    Case(
        "runtime by path",
        "models/small.toml",
        MODEL.replace("vllm-cpu", "/opt/vllm"),
        "models/small.toml: runtime",
        "'/opt/vllm' cannot be the name of a runtime",
        "a name is not a path",
    ),
    Case(
        "weights that are not there",
        "models/small.toml",
        MODEL.replace("../weights", "/no/such/weights"),
        "models/small.toml: source",
        "no directory of weights at /no/such/weights",
        "is the path right",
    ),
    Case(
        "source that is neither",
        "models/small.toml",
        MODEL.replace("../weights", "weights"),
        "models/small.toml: source",
        "'weights' is neither a directory nor a hub name",
        '"./qwen3"',
    ),
    model(
        "revision of a directory",
        f'revision = "main"\n{TOP}',
        "revision",
        "a directory has no revisions",
        "name the weights as org/name",
    ),
    model("wrong task", f'task = "chat"\n{TOP}', "task", "unknown word 'chat'", "generate"),
    model("wrong role", f'role = "pined"\n{TOP}', "role", "unknown word 'pined'", "mean 'pinned'?"),
    model(
        "boolean in quotes",
        f'enabled = "yes"\n{TOP}',
        "enabled",
        "must be true or false, not a string",
        "without quotes",
    ),
    model("number for text", f"description = 3\n{TOP}", "description", "must be a string", '"3"'),
    model(
        "line break in text",
        f'description = "a\\nb"\n{TOP}',
        "description",
        "contains a control character",
        "on one line",
    ),
    model(
        "table for text",
        "[description]\ntext = 1\n",
        "description",
        "must be a string, not a table",
        "in quotes",
    ),
    model("alias that is no word", f"aliases = [3]\n{TOP}", "aliases[0]", "a string", '"3"'),
    model(
        "alias with a blank",
        f'aliases = ["my model"]\n{TOP}',
        "aliases[0]",
        "'my model' cannot be an alias",
        "letters, digits",
    ),
    model(
        "alias twice",
        f'aliases = ["a", "b", "a"]\n{TOP}',
        "aliases[2]",
        'is there twice: "a"',
        "remove one",
    ),
    model(
        "own id as alias",
        f'aliases = ["small"]\n{TOP}',
        "aliases[0]",
        "'small' is the model's own id already",
        "remove it",
    ),
    model(
        "arguments in one text",
        '[engine]\nargs = "--seed 1"\n',
        "engine.args",
        "must be a list of strings, not a string",
        "write each word apart",
    ),
    model(
        "two words in one",
        '[engine]\nargs = ["--seed 1"]\n',
        "engine.args[0]",
        "'--seed 1' is one word to vLLM",
        'write two: "--seed", "1"',
    ),
    model(
        "number among arguments",
        '[engine]\nargs = ["--seed", 1]\n',
        "engine.args[1]",
        "must be a string, not an integer",
        '"1"',
    ),
    model(
        "flag that is a setting",
        '[engine]\nargs = ["--enforce-eager", "--max_model_len=5"]\n',
        "engine.args[1]",
        "--max-model-len is set by sparkd",
        "use `[engine] max_model_len` instead",
    ),
    model(
        "reserved flag",
        '[engine]\nargs = ["--port", "1"]\n',
        "engine.args[0]",
        "--port is set by sparkd",
        "remove it",
    ),
    model(
        "reserved flag cut short",
        '[engine]\nargs = ["--served", "x"]\n',
        "engine.args[0]",
        "--served-model-name is set by sparkd",
        "use `aliases` instead",
    ),
    model(
        "model among arguments",
        '[engine]\nargs = ["org/name"]\n',
        "engine.args[0]",
        "'org/name' stands before any flag",
        "name it `source`",
    ),
    model(
        "revision among arguments",
        '[engine]\nargs = ["--revision", "x"]\n',
        "engine.args[0]",
        "--revision is set by sparkd",
        "use `revision` instead",
    ),
    model(
        "reserved variable",
        '[engine.env]\nTMPDIR = "/x"\n',
        "engine.env.TMPDIR",
        "TMPDIR is set by sparkd",
        "remove it",
    ),
    model(
        "number for a variable",
        "[engine.env]\nA = 1\n",
        "engine.env.A",
        "must be a string, not an integer",
        'A = "1"',
    ),
    model(
        "variable with a dash",
        '[engine.env]\nA-B = "1"\n',
        "engine.env.A-B",
        "'A-B' cannot be the name of a variable",
        "letters, digits and _",
    ),
    model(
        "variables in a list",
        '[engine]\nenv = ["A=1"]\n',
        "engine.env",
        "must be a table, not a list",
        "HF_HOME",
    ),
    model(
        "fraction of a token",
        "[engine]\nmax_model_len = 1.5\n",
        "engine.max_model_len",
        "must be an integer, not a float",
        "32768",
    ),
    model(
        "no context",
        "[engine]\nmax_model_len = 0\n",
        "engine.max_model_len",
        "must be 1 or more, not 0",
        "32768",
    ),
    model(
        "KV cache larger than the budget",
        '[engine]\nkv_cache = "2GiB"\n',
        "engine.kv_cache",
        "a KV cache of 2GiB leaves no room for the weights in a budget of 2GiB",
        "raise it, or lower this",
    ),
    model(
        "start in no time",
        '[lifecycle]\nstart_timeout = "0"\n',
        "lifecycle.start_timeout",
        "must be more than 0: no engine is ready at once",
        "20min",
    ),
    model(
        "duration without unit",
        "[lifecycle]\nkeep_alive = 20\n",
        "lifecycle.keep_alive",
        "must be a duration in quotes, not an integer",
        "write the unit",
    ),
    model(
        "wait of no time",
        '[queue]\nmax_wait = "0s"\n',
        "queue.max_wait",
        "every request for a cold model would be refused",
        "20min",
    ),
    Case(
        "wrong extension",
        "models/other.tml",
        MODEL,
        "models/other.tml",
        "is not named like a model file",
        "rename it to <model id>.toml",
    ),
    Case(
        "name that is no id",
        "models/my model.toml",
        MODEL,
        "models/my model.toml",
        "cannot name a model 'my model'",
        "such as 'my-model.toml'",
    ),
    Case(
        "directory for a file",
        "models/other.toml/x",
        "",
        "models/other.toml",
        "it is not a regular file",
        "put a TOML file in its place",
    ),
    Case(
        "drop-in with a wrong extension",
        "models/small.toml.d/10-a.conf",
        "",
        "models/small.toml.d/10-a.conf",
        "is not named like a drop-in",
        "end in .toml",
    ),
    Case(
        "wrong value in a drop-in",
        "local/small.toml.d/10-a.toml",
        '[memory]\nbudget = "2"\n',
        "local/small.toml.d/10-a.toml: memory.budget",
        "'2' is not a size",
        "24GiB",
    ),
    Case(
        "wrong variable in a drop-in",
        "local/small.toml.d/10-a.toml",
        "[engine.env]\nA = 1\n",
        "local/small.toml.d/10-a.toml: engine.env.A",
        "must be a string",
        'A = "1"',
    ),
    Case(
        "unknown key in a drop-in",
        "local/small.toml.d/10-a.toml",
        "[queue]\nmax_weight = 1\n",
        "local/small.toml.d/10-a.toml: queue.max_weight",
        "unknown key 'max_weight'",
        "did you mean 'max_wait'?",
    ),
    Case(
        "alias of two models",
        "models/other.toml",
        'aliases = ["x", "small"]\n' + MODEL,
        "models/other.toml: aliases[1]",
        "'small' is the id of another model: models/small.toml",
        "a name may mean one model only",
    ),
]

RUNTIME_MISTAKES = [
    Case(
        "runtime that cannot be run",
        "runtimes/vllm-cpu/runtime.toml",
        RUNTIME.replace("bin/vllm", "bin/nothing"),
        "runtimes/vllm-cpu/runtime.toml: command",
        "cannot run runtimes/vllm-cpu/bin/nothing",
        "install it again",
    ),
    Case(
        "runtime of a name that is taken",
        "runtimes/zz/runtime.toml",
        RUNTIME.replace("bin/vllm", "../vllm-cpu/bin/vllm"),
        "runtimes/zz/runtime.toml: name",
        "the name 'vllm-cpu' belongs to runtimes/vllm-cpu already",
        "remove one of the two",
    ),
    Case(
        "runtime of an unknown kind",
        "runtimes/zz/runtime.toml",
        RUNTIME.replace('"venv"', '"docker"'),
        "runtimes/zz/runtime.toml: kind",
        "unknown word 'docker'; use one of venv, rootfs",
        "one of venv, rootfs",
    ),
    Case(
        "runtime without a command",
        "runtimes/zz/runtime.toml",
        RUNTIME.replace('["bin/vllm", "serve"]', "[]"),
        "runtimes/zz/runtime.toml: command",
        "must have at least 1 item",
        '["bin/vllm", "serve"]',
    ),
]

CASES = DAEMON_MISTAKES + MODEL_MISTAKES + RUNTIME_MISTAKES


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.file}: {case.name}")
def test_a_mistake_is_named_with_its_path_and_a_hint(site: Site, case: Case) -> None:
    site.write("weights.txt", "not a directory")
    site.write(case.file, case.text)
    (problem,) = site.problems()
    assert problem.where == case.where
    assert case.message in problem.message
    assert problem.hint is not None
    assert case.hint in problem.hint


def test_the_cases_are_many_and_different() -> None:
    assert len({(case.file, case.text) for case in CASES}) == len(CASES) >= 30


def test_all_mistakes_are_told_at_once_in_the_order_of_the_files(site: Site) -> None:
    site.write(
        "sparkd.toml",
        SPARKD + '[memory]\nlimit = "1GB"\n[log]\nlevel = "loud"\n'
        '[server]\nlisten = ["10.0.0.1:1", "x"]\nmaxbody = "1MiB"\n',
    )
    site.write("models/a.toml", 'role = "boss"\n' + MODEL.replace("2GiB", "2"))
    site.write("models/b.toml", "oops")
    site.write("models/c.toml", MODEL + "[engine]\nargs = ['--host', 'x', '--uds']\n")
    assert [problem.where for problem in site.problems()] == [
        "sparkd.toml: memory.limit",
        "sparkd.toml: log.level",
        "sparkd.toml: server.listen[0]",
        "sparkd.toml: server.listen[1]",
        "sparkd.toml: server.maxbody",
        "models/a.toml: role",
        "models/a.toml: memory.budget",
        "models/b.toml",
        "models/c.toml: engine.args[0]",
        "models/c.toml: engine.args[2]",
    ]


def test_the_error_reads_as_one_message_with_a_line_per_problem(site: Site) -> None:
    site.write("models/small.toml", "x = 1\n" + MODEL.replace("2GiB", "2"))
    with pytest.raises(ConfigError) as caught:
        site.load()
    lines = str(caught.value).splitlines()
    assert lines[0] == "cannot use the configuration: 2 problems"
    assert lines[1].startswith(f"{site.root}/models/small.toml: x: unknown key 'x'  (hint: ")
    assert len(lines) == 3


def test_two_models_of_the_same_alias_are_told_with_both_files(site: Site) -> None:
    for name in ("a", "b"):
        site.write(f"models/{name}.toml", 'aliases = ["chat"]\n' + MODEL)
    (problem,) = site.problems()
    assert problem.where == "models/b.toml: aliases[0]"
    assert problem.message == "'chat' is the alias of another model: models/a.toml"


def test_an_alias_is_told_also_when_the_id_comes_later(site: Site) -> None:
    site.write("models/a.toml", 'aliases = ["small"]\n' + MODEL)
    (problem,) = site.problems()
    assert problem.where == "models/a.toml: aliases[0]"
    assert problem.message == "'small' is the id of another model: models/small.toml"


def test_a_budget_above_the_limit_is_told(site: Site) -> None:
    site.write("sparkd.toml", SPARKD + '[memory]\nlimit = "1GiB"\n')
    (problem,) = site.problems()
    assert problem.where == "models/small.toml: memory.budget"
    assert problem.message == "2GiB can never fit: [memory] limit is 1GiB"
    assert problem.hint == "lower it, or raise the limit in sparkd.toml"


def test_pinned_models_that_do_not_fit_together_are_told(site: Site) -> None:
    site.write("sparkd.toml", SPARKD + '[memory]\nlimit = "3GiB"\n')
    for name in ("small", "second"):
        site.write(f"models/{name}.toml", 'role = "pinned"\n' + MODEL)
    (problem,) = site.problems()
    assert problem.where == "sparkd.toml: memory.limit"
    assert (
        problem.message == "the pinned models need 4GiB together, and there are 3GiB: second, small"
    )


def test_a_file_that_was_named_must_be_there(site: Site) -> None:
    with pytest.raises(ConfigError) as caught:
        load(site.root / "other.toml")
    (problem,) = caught.value.problems
    assert problem.where == f"{site.root}/other.toml"
    assert problem.message == "cannot read this file: it does not exist"
    assert problem.hint == "is the path right?"


def test_a_link_that_leads_nowhere_is_told(site: Site) -> None:
    (site.root / "models/other.toml").symlink_to(site.root / "gone")
    (problem,) = site.problems()
    assert problem.where == "models/other.toml"
    assert problem.message == "cannot read this file: it links to nothing"


def test_a_pipe_is_refused_without_being_opened(site: Site) -> None:
    os.mkfifo(site.root / "models/other.toml")
    (problem,) = site.problems()
    assert (problem.where, "not a regular file" in problem.message) == ("models/other.toml", True)


@pytest.mark.parametrize("name", ["models/small.toml", "models"])
def test_what_cannot_be_read_is_told(
    site: Site, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, so the refusal is planted: it must be told to anyone else."""
    locked = site.root / name
    plain_read, plain_list = type(locked).read_bytes, type(locked).iterdir

    def refuse(plain: Callable[[Path], object]) -> Callable[[Path], object]:
        def method(path: Path) -> object:
            if path == locked:
                raise PermissionError(13, "Permission denied")
            return plain(path)

        return method

    monkeypatch.setattr(type(locked), "read_bytes", refuse(plain_read))
    monkeypatch.setattr(type(locked), "iterdir", refuse(plain_list))
    (problem,) = site.problems()
    assert problem.where == name
    assert problem.message.endswith(": Permission denied")
    assert problem.hint == "the user that runs sparkd must be able to read it"


def test_no_runtime_at_all_is_told_as_such(site: Site) -> None:
    (site.root / "runtimes/vllm-cpu/runtime.toml").unlink()
    (problem,) = site.problems()
    assert problem.hint == "none is installed"


def test_installed_runtimes_are_listed_when_none_is_near(site: Site) -> None:
    site.write("models/small.toml", MODEL.replace("vllm-cpu", "other"))
    (problem,) = site.problems()
    assert problem.hint == "installed: vllm-cpu"
