"""Exit codes and messages of errors, without tracebacks and passwords."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

import blazen_trio
from blazen_trio import SchemaError, StoreError, open_store
from blazen_trio._cli.exits import CONFIG, SOFTWARE, TEMPFAIL, USAGE, trouble
from blazen_trio._cli.output import make_handler
from blazen_trio._stores.sql.schema import HEAD
from tests.cli.conftest import ROOT, SCRIPT
from tests.databases import KINDS, SERVERS, execute, fresh_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FLOW = "tests.cli.flows:short"
CLOSED = "127.0.0.1:9"  # a port that nothing listens at


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with fresh_database(request.param, tmp_path) as url:
        yield url


def with_password(url: str, password: str) -> str:
    return sa.make_url(url).set(password=password).render_as_string(hide_password=False)


# Invalid arguments


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["worker"], USAGE, "Missing argument"),
        (["worker", FLOW], USAGE, "BLAZEN_TRIO_DB"),
        (
            ["worker", FLOW, "--db", "sqlite:///x.db", "--grace", "nan"],
            USAGE,
            "'nan' is not a number of seconds up to 1e11",
        ),
        (
            ["worker", FLOW, "--db", "sqlite:///x.db", "--grace", "x"],
            USAGE,
            "'x' is not a valid number of seconds",
        ),
        (["worker", FLOW, "--db", "sqlite:///x.db", "--lease-ttl", "0"], USAGE, "not in the range"),
        (
            ["worker", FLOW, "--db", "sqlite:///x.db", "--max-crashes", "0"],
            USAGE,
            "not in the range",
        ),
        (["worker", "flows", "--db", "sqlite:///x.db"], USAGE, "package.module:workflow"),
        (
            ["worker", "postgresql://ann:sesame@h/d", "--db", "sqlite:///x.db"],
            USAGE,
            r"ann:\*\*\*@h/d",
        ),
        (
            ["db", "check", "postgresql://ann:sesame@h/d", "--db", "sqlite:///x.db"],
            USAGE,
            "unexpected extra argument",
        ),
        (
            ["db", "check", "--db", "postgresql://ann:***@h/d"],
            USAGE,
            "by the real one",
        ),
        (["db", "check", "--db", ""], USAGE, "'--db'.*: it is empty: give the URL of a database"),
        (["runs", "list", "--db", " "], USAGE, "it is empty: give the URL of a database"),
        (
            ["worker", FLOW, "--db", "runs.db"],
            CONFIG,
            "invalid database URL .runs.db.; an example is sqlite:///runs.db",
        ),
        (
            ["worker", FLOW, "--db", "postgresql:/ann:sesame@h/d"],
            CONFIG,
            r"invalid database URL .\*\*\*@h/d",
        ),
        (
            ["worker", FLOW, "--db", "postgresql://ann:o:sesame@x:sesame@h/d"],
            CONFIG,
            r"invalid database URL .\*\*\*@h/d",
        ),
        (["worker", FLOW, "--db", "oracle://ann:sesame@h/d"], CONFIG, "oracle is not supported"),
        (
            ["worker", FLOW, "--db", "postgresql+asyncpg://ann:sesame@h/d"],
            CONFIG,
            "does not run under Trio",
        ),
        (
            ["worker", FLOW, "--db", "postgresql+pg8000://ann:sesame@h/d"],
            CONFIG,
            "needs the package 'pg8000'",
        ),
        (["worker", FLOW, "--db", "sqlite://"], CONFIG, "use MemoryStore"),
        (["worker", "nowhere:flow", "--db", "sqlite:///x.db"], CONFIG, "no module 'nowhere'"),
        (
            ["worker", FLOW, "--db", f"postgresql://ann:sesame@{CLOSED}/d"],
            TEMPFAIL,
            "no server answers there",
        ),
        (
            ["db", "check", "--db", f"mysql://ann:sesame@{CLOSED}/d"],
            TEMPFAIL,
            "no server answers there",
        ),
        (
            ["db", "upgrade", "--db", "sqlite:////nowhere/x.db"],
            TEMPFAIL,
            "its directory must exist",
        ),
        (["db", "current", "--db", "oracle://ann:sesame@h/d"], CONFIG, "oracle is not supported"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True], ids=["plain", "json"])
def test_each_error_has_its_exit_code_and_message(arguments, code, message, as_json, invoke):
    done = invoke(*arguments, *(["--json"] if as_json else []))
    assert done.exit_code == code, done.output
    assert re.search(message, done.stderr), done.stderr
    assert done.stdout == ""
    for secret in ("sesame", "Traceback"):
        assert secret not in done.output
    if as_json and code != USAGE:
        told = json.loads(done.stderr)
        assert (told["event"], told["level"], told["exit_code"]) == ("error", "error", code)


def test_a_file_that_is_not_a_database_is_refused(tmp_path, invoke):
    (tmp_path / "x.db").write_text("no database " * 100)
    for arguments in (["worker", FLOW], ["db", "check"], ["db", "upgrade"]):
        done = invoke(*arguments, "--db", f"sqlite:///{tmp_path}/x.db")
        assert (done.exit_code, done.stdout) == (CONFIG, "")
        assert "not an SQLite database" in done.stderr


@pytest.mark.parametrize("url", SERVERS, indirect=True)
def test_a_process_prints_only_the_message_of_an_error(url):
    secret = with_password(url, "sesame")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, "worker", FLOW],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "BLAZEN_TRIO_DB": secret},
    )
    # One that asks for passwords refuses this one; the other has no tables.
    assert done.returncode == (CONFIG if url.startswith("postgresql") else TEMPFAIL)
    assert done.stdout == ""
    assert done.stderr.startswith("blazen-trio: ")
    assert done.stderr.count("\n") == 1
    assert "sesame" not in done.stderr


# Errors of the engine


def test_expected_errors_have_their_exit_codes():
    assert trouble(StoreError("gone")).exit_code == TEMPFAIL
    assert trouble(SchemaError("old")).exit_code == CONFIG
    group = ExceptionGroup(
        "both", [StoreError("gone"), ExceptionGroup("more", [StoreError("gone")])]
    )
    assert trouble(group).exit_code == TEMPFAIL
    assert trouble(group).message == "gone"


@pytest.mark.parametrize("as_json", [False, True], ids=["plain", "json"])
def test_an_unexpected_error_shows_its_traceback(as_json, invoke, monkeypatch):
    def fails(*_args: Any, **_options: Any) -> Any:
        msg = "connecting with sesame"
        raise RuntimeError(msg)

    monkeypatch.setattr("blazen_trio._cli.worker.open_store", fails)
    done = invoke(
        "worker", FLOW, "--db", "postgresql://ann:sesame@h/d", *(["--json"] if as_json else [])
    )
    assert done.exit_code == SOFTWARE
    assert "Traceback" in done.stderr
    assert "unexpected RuntimeError: connecting with ***" in done.stderr
    assert "sesame" not in done.output
    if as_json:
        assert "Traceback" in json.loads(done.stderr)["exception"]


# The schema


def test_a_database_is_created_and_checked(url, invoke):
    server = not url.startswith("sqlite")
    missing = invoke("db", "check", "--db", url)
    assert missing.exit_code == CONFIG
    assert invoke("db", "current", "--db", url).stdout == f"revision none, head {HEAD}\n"
    if server:
        refused = invoke("worker", FLOW, "--db", url)
        assert refused.exit_code == CONFIG
        assert missing.stderr.strip() in refused.stderr
    # What the message names is done, as it is printed.
    command = re.search(r"Upgrade it with: blazen-trio (db upgrade --db .*)\n", missing.stderr)[1]
    upgraded = invoke(*shlex.split(command))
    assert upgraded.exit_code == 0, upgraded.output
    assert upgraded.stdout.endswith(f"upgraded the schema from nothing to '{HEAD}'\n")
    again = invoke("db", "upgrade", "--db", url, "--json")
    assert json.loads(again.stdout) == {
        "database": sa.make_url(url).render_as_string(),
        "standing": "current",
        "revision": HEAD,
        "head": HEAD,
        "before": HEAD,
    }
    checked = invoke("db", "check", env={"BLAZEN_TRIO_DB": url})
    assert (checked.exit_code, checked.stderr) == (0, "")


def test_a_command_that_only_reads_creates_no_file(tmp_path, invoke):
    for command in ("current", "check"):
        invoke("db", command, "--db", f"sqlite:///{tmp_path}/x.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("revision", "standing"), [("0001", "behind"), ("9999", "ahead")])
def test_a_schema_of_another_version_is_refused(url, revision, standing, invoke):
    invoke("db", "upgrade", "--db", url)
    execute(url, "UPDATE blazen_version SET version_num = :revision", revision=revision)
    checked = invoke("db", "check", "--db", url, "--json")
    told = json.loads(checked.stdout)
    assert (checked.exit_code, told["standing"], told["revision"]) == (CONFIG, standing, revision)
    assert ("blazen-trio db upgrade" if standing == "behind" else "upgrade blazen_trio") in told[
        "problem"
    ]
    assert invoke("db", "current", "--db", url).exit_code == 0
    if standing == "ahead":
        for arguments in (["db", "upgrade"], ["worker", FLOW, "--migrate"]):
            done = invoke(*arguments, "--db", url)
            assert done.exit_code == CONFIG
            assert "made by a newer version" in done.stderr


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_the_printed_command_hides_the_password_and_is_quoted(url):
    with pytest.raises(
        SchemaError, match=r"--db 'postgresql\+psycopg://postgres:\*\*\*@.*', or open"
    ) as told:
        async with open_store(with_password(url, "sesame")):
            raise AssertionError
    assert "sesame" not in str(told.value)


# Output


def test_log_records_are_lines_of_json(capsys):
    handler = make_handler(as_json=True, url="postgresql://ann:sesame@h/d")
    try:
        raise ValueError("sesame")
    except ValueError:
        record = logging.LogRecord(
            "shop", logging.WARNING, "", 0, "no %s", ("sesame",), sys.exc_info()
        )
    handler.handle(record)
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["logger"], line["message"]) == ("warning", "shop", "no ***")
    assert line["exception"].endswith("ValueError: ***")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


def test_log_lines_contain_no_control_sequences(capsys):
    handler = make_handler(as_json=False, url=None, plain="{level} {name}: ")
    record = logging.LogRecord(
        "shop\x1b[2J", logging.WARNING, "", 0, "no \x1b[31m%s\x07", ("tea\u202e",), None
    )
    record.exc_text = "Traceback\nValueError: \x9b1m"
    handler.handle(record)
    assert capsys.readouterr().err == (
        "warning shop\\x1b[2J: no \\x1b[31mtea\\u202e\\x07\n  Traceback\n  ValueError: \\x9b1m\n"
    )


def test_a_command_shows_only_the_warnings_of_the_users_code(invoke, tmp_path, monkeypatch):
    program = (
        "import logging\n"
        "from tests.cli.flows import short as flow\n"
        "logger = logging.getLogger('shop')\n"
        "logger.setLevel(logging.DEBUG)\n"
        "logger.info('unimportant')\n"
        "logger.warning('at http://ann:sesame@h')\n"
    )
    (tmp_path / "noisy.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    done = invoke("graph", "noisy:flow")
    assert done.exit_code == 0
    assert done.stderr == "blazen-trio: at http://ann:***@h\n"


def test_help_shows_options_in_groups_and_exit_codes(invoke):
    done = invoke("worker", "--help")
    headings = [
        "Database options:",
        "Run options:",
        "Ending options:",
        "Output options:",
        "Other options:",
        "Exit codes:",
    ]
    places = [done.stdout.index(heading) for heading in headings]
    assert places == sorted(places)
    for code in ("0 ", "2 ", "70", "75", "78", "128+N"):
        assert re.search(rf"^ +{re.escape(code)} ", done.stdout, re.MULTILINE)
    assert "BLAZEN_TRIO_MAX_CONCURRENT_RUNS" in done.stdout


def test_version_and_completion(invoke):
    assert blazen_trio.__version__ in invoke("--version").stdout
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "_BLAZEN_TRIO_COMPLETE": "zsh_source"},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert "compdef _blazen_trio_completion blazen-trio" in done.stdout
