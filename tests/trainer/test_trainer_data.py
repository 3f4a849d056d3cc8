"""Rows: local files, hub adapters, lengths. Every kind of bad input has its own message."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.errors import DataError
from trainer.hub import HUB_SOURCES
from trainer.lengths import length_counter
from trainer.local import LocalSource
from trainer.records import Records

ROWS = [
    {"prompt": "a b", "response_tokens": 3, "answer": "x y z"},
    {"prompt": "c", "response_tokens": 5, "answer": "long answer"},
]
WORDS = length_counter("words")


def write(path: Path) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, ROWS)) + "\n")
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS))
    elif path.suffix == ".csv":
        path.write_text("prompt,response_tokens,answer\na b,3,x y z\nc,5,long answer\n")
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_every_format_gives_the_same_records(tmp_path: Path, ending: str) -> None:
    records = LocalSource(write(tmp_path / f"rows.{ending}")).load()
    assert records.prompt == ["a b", "c"]
    assert records.response_tokens.tolist() == [3.0, 5.0]
    assert records.source == ["rows", "rows"]


def test_a_text_column_is_counted_in_the_chosen_unit(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl")
    source = LocalSource(path, response_column="answer")
    assert source.load(length_counter("words")).response_tokens.tolist() == [3.0, 2.0]
    assert source.load(length_counter("chars")).response_tokens.tolist() == [5.0, 11.0]


def test_tokens_are_counted_without_special_tokens(tiny_backbone: Path) -> None:
    assert length_counter("tokens", str(tiny_backbone)).count(["bread and maps"]) == [3]


def test_prompts_can_live_in_a_second_file(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"id": ["p", "q", "p"], "response_tokens": [1, 2, 3], "hidden": [False, False, True]}), tmp_path / "r.parquet"
    )
    pq.write_table(pa.table({"id": ["q", "p"], "prompt": ["Q?", "P?"]}), tmp_path / "p.parquet")
    records = LocalSource(
        tmp_path / "r.parquet", prompts_path=tmp_path / "p.parquet", join_column="id", drop_column="hidden"
    ).load()
    assert records.prompt == ["P?", "Q?"]
    assert records.response_tokens.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "rows.jsonl", "the file is empty"),
        ("\n\n", "rows.jsonl", "no rows"),
        ("not json\n", "rows.jsonl", "not readable as jsonl"),
        ('{"prompt": 1}', "rows.json", "expected a list of objects"),
        ('[{"prompt": "x"}, 3]', "rows.json", "expected every row to be an object"),
        ("[" * 100_000, "rows.json", "not readable as json"),
        ("prompt,prompt\na,b\n", "rows.csv", "a column name occurs twice"),
        ("prompt,response_tokens\na,1,2\n", "rows.csv", "more cells than the header"),
        ("prompt,response_tokens\n\xe4,1\n", "rows.csv", "not readable as csv"),
        ('{"prompt": ["x"], "response_tokens": 3}\n', "rows.jsonl", "holds list values, expected texts"),
        ('{"prompt": "x", "response_tokens": 1e300}\n', "rows.jsonl", "positive numbers up to 10,000,000"),
        ('{"prompt": "x", "response_tokens": -4}\n', "rows.jsonl", "positive numbers"),
        ('{"prompt": "x", "response_tokens": NaN}\n', "rows.jsonl", "positive numbers"),
        ('{"text": "x"}\n', "rows.jsonl", "no column 'prompt'; it has text"),
        ('{"prompt": "x", "response_tokens": "many"}\n', "rows.jsonl", "'many' is not a number"),
        ('{"prompt": " ", "response_tokens": 4}\n', "rows.jsonl", "no records"),
        ('{"prompt": "x", "response_tokens": 0}\n', "rows.jsonl", "no records"),
        ("x", "rows.xlsx", "unknown ending"),
        ("not parquet", "rows.parquet", "not readable as parquet"),
    ],
)
def test_bad_files_are_named_and_explained(tmp_path: Path, content: str, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        LocalSource(tmp_path / name).load()


def test_long_multi_line_cells_come_whole(tmp_path: Path) -> None:
    prompt = 'two\nlines, "quoted" ' * 20_000
    with (tmp_path / "rows.csv").open("w", newline="") as out:
        csv.writer(out).writerows([["prompt", "response_tokens"], *([prompt, 7] for _ in range(20))])
    assert LocalSource(tmp_path / "rows.csv").load().prompt == [prompt] * 20


def test_a_column_may_first_appear_in_the_second_row(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"prompt": "a", "response_tokens": 1}\n{"prompt": "b", "response_tokens": 2, "model": "m"}\n'
    )
    assert LocalSource.of_records(tmp_path / "rows.jsonl").load().model == ["None", "m"]


def test_what_is_left_out_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = ['{"prompt": "a", "response_tokens": 1, "hidden": "true"}', '{"prompt": " ", "response_tokens": 2}']
    rows += ['{"prompt": "c", "response_tokens": null}', '{"prompt": "d", "response_tokens": 5, "hidden": "false"}']
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    with caplog.at_level("INFO"):
        assert LocalSource(tmp_path / "rows.jsonl", drop_column="hidden").load().prompt == ["d"]
    assert "4 rows, left out: 1 marked to be dropped, 1 without a prompt, 1 without a response" in caplog.text


def test_lengths_of_different_tokenizers_do_not_mix(tmp_path: Path) -> None:
    for label in ("one", "other"):
        Records.build(["p"], [1.0], length_label=label).save(tmp_path / f"{label}.parquet")
    parts = [LocalSource.of_records(tmp_path / f"{label}.parquet").load() for label in ("one", "other")]
    assert [part.length_label for part in parts] == ["one", "other"]
    with pytest.raises(DataError, match=r"counted with different things.*one, other"):
        Records.concatenate(parts)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_weights_must_be_positive(weight: float) -> None:
    with pytest.raises(DataError, match="weights must be positive"):
        Records.build(["p"], [1.0], weight=[weight])


def test_lone_surrogates_are_read_and_counted(tmp_path: Path) -> None:
    """JSON can say them; tokenizers cannot take them, so they are replaced before one sees them."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "bad \\ud800 half", "response_tokens": 3}\n')
    records = LocalSource(tmp_path / "rows.jsonl").load()
    assert records.prompt == ["bad ? half"]
    assert len(records.sha256()) == 64


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv: no such file"):
        LocalSource(tmp_path / "absent.csv").load()


def test_tokens_without_a_tokenizer_are_refused() -> None:
    with pytest.raises(DataError, match="needs a tokenizer"):
        length_counter("tokens")


def test_records_survive_parquet(tmp_path: Path) -> None:
    records = Records.build(["p", "q"], [1.5, 2.0], model=["m", "n"], source="s", weight=[1.0, 0.5])
    records.save(tmp_path / "deep" / "records.parquet")
    back = LocalSource(tmp_path / "deep" / "records.parquet", model_column="model", weight_column="weight").load()
    assert (back.prompt, back.model) == (records.prompt, records.model)
    np.testing.assert_array_equal(back.response_tokens, records.response_tokens)
    np.testing.assert_array_equal(back.weight, records.weight)
    assert back.sha256() == records.sha256()


def test_lengths_must_be_positive_numbers() -> None:
    with pytest.raises(DataError, match="positive"):
        Records.build(["p"], [float("nan")])


HUB_ROWS = {
    "alpaca": (
        [
            {"instruction": "Do it", "input": "", "output": "done it now"},
            {"instruction": "Sum", "input": "1 2", "output": "3"},
            {"instruction": "Empty", "input": "", "output": ""},
        ],
        [("Do it", 3.0), ("Sum\n1 2", 1.0)],
    ),
    "code": ([{"instruction": "Sort", "output": "a b"}], [("Sort", 2.0)]),
    "math": ([{"instruction": "1+1", "output": "it is 2"}], [("1+1", 3.0)]),
    "lmsys": (
        [
            {
                "model": "gpt-4",
                "conversation": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "well met"}],
            },
            {"model": "vicuna", "conversation": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
            {"model": "gpt-4", "conversation": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}] * 2},
        ],
        [("hi", 2.0)],
    ),
}


@pytest.mark.parametrize("name", HUB_ROWS)
def test_hub_adapters_pick_prompt_and_response(name: str) -> None:
    rows, expected = HUB_ROWS[name]
    records = HUB_SOURCES[name].convert(rows, WORDS)
    assert list(zip(records.prompt, records.response_tokens, strict=True)) == expected
    assert set(records.model) == {"gpt-4"}
    assert set(records.source) == {name}


def test_the_reference_releases_sets_go_by_their_hub_names() -> None:
    assert {name: source.path for name, source in HUB_SOURCES.items()} == {
        "alpaca": "vicgalle/alpaca-gpt4",
        "code": "theblackcat102/evol-codealpaca-v1",
        "lmsys": "lmsys/lmsys-chat-1m",
        "math": "TIGER-Lab/MATH-plus",
    }


def test_a_hub_set_with_other_columns_is_explained() -> None:
    with pytest.raises(DataError, match=r"MATH-plus: no column instruction; it has query, output"):
        HUB_SOURCES["math"].convert([{"query": "1+1", "output": "2"}], WORDS)


def test_a_limit_stops_reading() -> None:
    assert len(HUB_SOURCES["code"].convert([{"instruction": f"p{i}", "output": "x"} for i in range(9)], WORDS, limit=4)) == 4


def test_an_unreachable_hub_is_one_clear_line(tmp_path: Path) -> None:
    # A new process, because the library reads its offline switch once; an empty cache, so nothing can be found there.
    answer = subprocess.run(
        [
            sys.executable,
            "-m",
            "trainer",
            "prepare",
            "--source",
            "alpaca",
            "--length-unit",
            "words",
            "--out",
            str(tmp_path / "r.parquet"),
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert answer.returncode == 1
    assert "trainer: vicgalle/alpaca-gpt4: the hub cannot be reached" in answer.stderr
    assert "Traceback" not in answer.stderr
