"""`python -m vllm_client` as a process, against a real server."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from scripted_ranker import BUNDLE_ID, ScriptedRanker

SURROUNDINGS = {name: value for name, value in os.environ.items() if name not in ("PARS_ADDRESS", "COLUMNS")}


def run(*arguments, stdin="", **environment):
    return subprocess.run(
        [sys.executable, "-m", "vllm_client", *arguments],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        env=SURROUNDINGS | {"PYTHONIOENCODING": "utf-8"} | environment,
        timeout=60,
        check=False,
    )


def test_score_prints_a_ranked_table(ranker):
    result = run("score", "a rather long prompt", "short", "日本語\x1b[31m\n" * 9, "--address", ranker.address, COLUMNS="90")
    assert result.returncode == 0
    assert result.stderr == b""
    header, first, second, third, blank, footer = result.stdout.decode().splitlines()
    assert header.split() == ["#", "score", "tokens", "p90", "quantile", "priority", "cut", "prompt"]
    assert first.split()[:5] == ["1", "5.000", "50", "100", "0.050"]
    assert first.endswith("  short")
    assert second.endswith("  a rather long prompt")
    assert third.split()[6] == "yes"
    assert third.endswith("…")
    assert "日本語␛[31m␊" in third
    assert blank == ""
    assert footer.startswith(f"3 prompts, bundle {BUNDLE_ID}, server time: 1.0 ms tokenising")
    # The last column starts below its header; every line fits the terminal (each wide character takes two cells).
    assert first.index("short") == second.index("a rather") == header.index("prompt")
    assert len(third) + sum(char in "日本語" for char in third) <= 90


def test_priorities_share_one_arrival_now(ranker):
    before_ms = time.time() * 1000
    result = run("score", "x" * 10, "x" * 60, "--window-ms", "1000", "--json", "--address", ranker.address)
    short, long = map(json.loads, result.stdout.splitlines())
    assert long["priority"] - short["priority"] == 500
    assert before_ms <= short["priority"] - 100 <= time.time() * 1000


def test_json_is_one_object_per_line(ranker):
    result = run("score", "bbb", "a\n日", "--json", "--tier", "ngram", "--address", ranker.address)
    assert result.returncode == 0
    first, second = map(json.loads, result.stdout.decode("ascii").splitlines())
    assert (first["index"], first["prompt"], second["index"], second["prompt"]) == (0, "bbb", 1, "a\n日")
    assert set(first) == {
        "index",
        "prompt",
        "priority",
        "bundle_id",
        "score",
        "quantile",
        "expected_tokens",
        "expected_tokens_p90",
        "prompt_tokens",
        "truncated",
        "tier",
    }
    assert (first["tier"], first["expected_tokens"], first["bundle_id"]) == ("ngram", 30, BUNDLE_ID)


def prompts_of(result):
    assert result.returncode == 0, result.stderr
    return {(line["index"], line["prompt"]) for line in map(json.loads, result.stdout.splitlines())}


def test_prompts_from_files_and_standard_input(ranker, tmp_path):
    text, lines = tmp_path / "prompts.txt", tmp_path / "prompts.jsonl"
    text.write_bytes("\ufefffirst line\r\n\n  \nform\ffeed stays\n日本語".encode())
    lines.write_text('"bare"\n\n{"prompt": "in an\\nobject", "response_tokens": 3}\n')
    common = ("--json", "--address", ranker.address)
    assert prompts_of(run("score", "argument", "--file", str(text), *common)) == {
        (0, "argument"),
        (1, "first line"),
        (2, "form\ffeed stays"),
        (3, "日本語"),
    }
    assert prompts_of(run("score", "--file", str(lines), *common)) == {(0, "bare"), (1, "in an\nobject")}
    assert prompts_of(run("score", "--file", "-", *common, stdin="one\ntwo\n")) == {(0, "one"), (1, "two")}


def test_more_prompts_than_one_call_takes(ranker):
    stdin = "".join(f"{'x' * (50 - number)}\n" for number in range(30))
    result = run("score", "--file", "-", "--json", "--address", ranker.address, stdin=stdin)
    assert [json.loads(line)["index"] for line in result.stdout.splitlines()] == list(reversed(range(30)))


def test_the_address_may_come_from_the_environment(ranker, nobody):
    assert run("bundle", PARS_ADDRESS=ranker.address).returncode == 0
    assert run("bundle", "--address", ranker.address, PARS_ADDRESS=nobody).returncode == 0


def test_compare(ranker):
    result = run("compare", "much longer\n", "short", "--address", ranker.address)
    assert result.returncode == 0
    lines = result.stdout.decode().splitlines()
    assert lines[1].split()[0] == "A"
    assert lines[1].endswith("much longer␊")
    assert lines[-1] == "A is longer, by 70 expected tokens."
    assert run("compare", "aa", "bb", "--address", ranker.address).stdout.endswith(b"Both have the same score.\n")
    as_json = json.loads(run("compare", "a", "bb", "--json", "--address", ranker.address).stdout)
    assert (as_json["longer"], as_json["b"]["score"], as_json["bundle_id"]) == ("b", 2, BUNDLE_ID)


def test_bundle(ranker):
    lines = run("bundle", "--address", ranker.address).stdout.decode().splitlines()
    summary = {line[:18].strip(): line[19:] for line in lines}
    assert summary["bundle"] == BUNDLE_ID
    assert summary["precision"] == "fp32"
    assert summary["runs on"] == "CPUExecutionProvider"
    assert summary["size"] == "1.5 MB in 1 files"
    assert summary["licence"] == "MIT"
    as_json = json.loads(run("bundle", "--json", "--address", ranker.address).stdout)
    assert as_json["max_prompts_per_call"] == 4
    assert as_json["manifest"]["bundle_id"] == BUNDLE_ID


def test_a_missing_server_is_one_line_and_exit_1(nobody):
    result = run("score", "a", "--address", nobody)
    assert (result.returncode, result.stdout) == (1, b"")
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith(f"vllm_client: {nobody}: UNAVAILABLE")


def test_waiting_for_a_sidecar_that_never_comes_ends(nobody):
    began = time.monotonic()
    result = run("score", "a", "--wait-s", "1", "--address", nobody)
    assert result.returncode == 1
    assert b"UNAVAILABLE" in result.stderr
    assert time.monotonic() - began >= 1


def test_a_sidecar_that_comes_up_later_is_waited_for(tmp_path):
    """1. The command starts while nobody listens on the socket. 2. A server comes up there. 3. The command scores and ends."""
    address = f"unix:{tmp_path}/late.sock"
    command = [sys.executable, "-m", "vllm_client", "score", "a", "--wait-s", "50", "--address", address]
    waiting = subprocess.Popen(command, env=SURROUNDINGS, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(1.5)
    server = ScriptedRanker(address)
    try:
        out, err = waiting.communicate(timeout=60)
    finally:
        server.stop()
    assert (waiting.returncode, err) == (0, b"")
    assert b"1 prompts, bundle" in out


def test_a_deadline_is_one_line_and_exit_1(ranker):
    ranker.answer_score = ranker.freeze
    result = run("score", "a", "--deadline-ms", "200", "--address", ranker.address)
    assert (result.returncode, result.stdout) == (1, b"")
    (line,) = result.stderr.decode().splitlines()
    assert "DEADLINE_EXCEEDED" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["sing"], "invalid choice"),
        (["score"], "no prompts"),
        (["score", "a", "--address", "nowhere"], "address must be host:port"),
        (["score", "a", "--deadline-ms", "0"], "deadline_ms must be more than 0"),
        (["score", "a", "--window-ms", "-1"], "must not be negative"),
        (["score", "a", "--tier", "best"], "invalid choice"),
        (["score", "--file", "missing.txt"], "missing.txt: No such file"),
        (["compare", "a"], "required: B"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_exit_2(arguments, message):
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, b"")
    assert message in result.stderr.decode()
    assert "Traceback" not in result.stderr.decode()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", b"fine\n\xff\n", "not UTF-8 at byte 5"),
        ("p.jsonl", b'"fine"\n{oops\n', "line 2: not JSON"),
        ("p.jsonl", b'{"text": "x"}\n', "line 1: neither a string nor an object"),
        ("p.txt", b"\n \n", "no prompts"),
    ],
)
def test_an_unreadable_prompt_file_is_exit_2(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    result = run("score", "--file", str(tmp_path / name))
    assert (result.returncode, result.stdout) == (2, b"")
    assert message in result.stderr.decode()


def test_a_terminal_that_is_not_utf8_still_gets_its_table(ranker):
    result = run("score", "日本語", "--address", ranker.address, PYTHONIOENCODING="ascii")
    assert result.returncode == 0
    assert rb"\u65e5" in result.stdout


def test_an_interrupt_ends_the_wait_without_a_traceback(ranker):
    ranker.answer_score = ranker.freeze
    process = subprocess.Popen(
        [sys.executable, "-m", "vllm_client", "score", "a", "--address", ranker.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=SURROUNDINGS,
    )
    assert ranker.called.wait(60)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 130


def test_a_reader_that_leaves_early_is_no_error(ranker):
    process = subprocess.Popen(
        [sys.executable, "-m", "vllm_client", "score", "--file", "-", "--json", "--address", ranker.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=SURROUNDINGS,
    )
    process.stdout.close()
    process.stdin.write(b"a prompt\n" * 3)
    process.stdin.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 0
    process.stderr.close()
