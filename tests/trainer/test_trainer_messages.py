"""Conversations as rows: every format, one rule with the hook, nothing of the answer in the text, and clear words for what is wrong."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pars.text import clip
from trainer.__main__ import main
from trainer.errors import DataError
from trainer.hub import HUB_SOURCES
from trainer.lengths import length_counter
from trainer.local import LocalSource
from trainer.messages import conversation_texts
from vllm_client.hook.engine_call import asked_of_call
from vllm_client.hook.request import endpoint_of, read_request


def said(role, content):
    return {"role": role, "content": content}


CHATS = [
    [said("system", "be kind"), said("user", "first?"), said("assistant", "yes"), said("user", "second?")],
    [said("user", "asked?"), said("assistant", "the answer itself")],
    [said("user", "look up"), said("assistant", None), said("tool", "42")],
]
TEXTS = ["second?", "asked?", "look up"]
LENGTHS = [3, 5, 8]


def write(path: Path, chats: list, *, as_text: bool = False) -> Path:
    cells = [json.dumps(chat) for chat in chats] if as_text or path.suffix == ".csv" else chats
    rows = [{"messages": cell, "response_tokens": length} for cell, length in zip(cells, LENGTHS, strict=False)]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as out:
            writer = csv.DictWriter(out, ["messages", "response_tokens"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("\n".join(map(json.dumps, rows)) if path.suffix == ".jsonl" else json.dumps(rows))
    return path


@pytest.mark.parametrize("as_text", [False, True], ids=["lists", "JSON in a text"])
@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_every_format_gives_the_same_texts(tmp_path: Path, ending: str, as_text: bool) -> None:
    records = LocalSource.of_records(write(tmp_path / f"rows.{ending}", CHATS, as_text=as_text)).load()
    assert records.prompt == TEXTS
    assert records.response_tokens.tolist() == LENGTHS


def test_parts_survive_parquet(tmp_path: Path) -> None:
    """Parquet gives every part the members that any part has: None in the others."""
    parts = [{"type": "text", "text": "What is"}, {"type": "image_url", "image_url": {"url": "u"}}, {"text": "this?"}]
    path = write(tmp_path / "rows.parquet", [[said("user", parts)]])
    assert pq.read_table(path).column("messages").to_pylist()[0][0]["content"][2] == {
        "type": None,
        "text": "this?",
        "image_url": None,
    }
    assert LocalSource.of_records(path).load().prompt == ["What is\nthis?"]


def test_a_prompt_column_is_used_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "p", "messages": CHATS[0], "response_tokens": 1}))
    assert LocalSource.of_records(tmp_path / "rows.jsonl").load().prompt == ["p"]
    assert LocalSource(tmp_path / "rows.jsonl", messages_column="messages").load().prompt == ["second?"]


def test_conversations_can_live_in_a_second_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["b", "a", "b"], "response_tokens": [1, 2, 3]}), tmp_path / "r.parquet")
    pq.write_table(pa.table({"id": ["a", "b"], "chat": CHATS[:2]}), tmp_path / "c.parquet")
    source = LocalSource(tmp_path / "r.parquet", messages_column="chat", prompts_path=tmp_path / "c.parquet", join_column="id")
    assert source.load().prompt == ["asked?", "second?", "asked?"]


def test_rows_without_text_from_a_user_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        CHATS[0],
        [],
        None,
        "",
        " ",
        [said("system", "be kind")],
        [said("user", " \n")],
        [said("user", [{"type": "image"}])],
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"messages": row, "response_tokens": 4}) for row in rows))
    with caplog.at_level("INFO"):
        assert LocalSource.of_records(tmp_path / "rows.jsonl").load().prompt == ["second?"]
    assert "8 rows, left out: 7 without text from a user" in caplog.text


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("hello", "neither a list of messages nor JSON: Expecting value"),
        ("[" * 100_000, "neither a list of messages nor JSON: maximum recursion"),
        (json.dumps({"role": "user"}), "dict, expected a list of messages"),
        (3, "int, expected a list of messages"),
        (["hello"], 'every message to be an object with "role" and "content"'),
        ([{"from": "human", "value": "ShareGPT's own"}], 'every message to be an object with "role" and "content"'),
        ([{"role": None, "content": "x"}], 'every message to be an object with "role" and "content"'),
    ],
)
def test_what_is_no_conversation_is_named_with_its_row(tmp_path: Path, cell: object, message: str) -> None:
    lines = [{"chat": CHATS[0], "response_tokens": 1}, {"chat": cell, "response_tokens": 2}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=rf"rows\.jsonl: column 'chat', row 2: .*{message}"):
        LocalSource(tmp_path / "rows.jsonl", messages_column="chat").load()


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "x", "response_tokens": 1}')
    with pytest.raises(DataError, match="no column 'chat'; it has prompt, response_tokens"):
        LocalSource(tmp_path / "rows.jsonl", messages_column="chat").load()


def test_prepare_takes_conversations(tmp_path: Path) -> None:
    lines = [{"chat": chat, "answer": "a b c"} for chat in CHATS]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = ["--messages-column", "chat", "--response-column", "answer", "--length-unit", "words"]
    assert main(["prepare", "--source", str(tmp_path / "log.jsonl"), *words, "--out", str(tmp_path / "r.parquet")]) == 0
    records = LocalSource.of_records(tmp_path / "r.parquet").load()
    assert records.prompt == TEXTS
    assert records.response_tokens.tolist() == [3.0] * 3


def test_the_hubs_conversations_go_by_the_rule() -> None:
    """One exchange each, as the reference release takes them; parts and all, as a server would see them."""
    parts = [{"type": "text", "text": "two"}, {"type": "text", "text": "parts"}]
    rows = [
        {"model": "gpt-4", "conversation": [said("user", parts), said("assistant", "a b")]},
        {"model": "gpt-4", "conversation": [*CHATS[0], said("assistant", "several turns")]},
        {"model": "gpt-4", "conversation": [said("user", " "), said("assistant", "to nothing")]},
    ]
    records = HUB_SOURCES["lmsys"].convert(rows, length_counter("words"))
    assert records.prompt == ["two\nparts"] == conversation_texts([rows[0]["conversation"]], "conversation", Path("hub"))
    assert records.response_tokens.tolist() == [2.0]


TEXT = st.text(alphabet=st.characters(exclude_categories=())) | st.sampled_from(["continue", " ", "\ud800", "x" * 20_000])
PARTS = st.lists(
    st.fixed_dictionaries(
        {"text": TEXT}, optional={"type": st.sampled_from(["text", "input_text", "image_url", "tool_result", None])}
    ),
    max_size=3,
)
CONVERSATIONS = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "user", "assistant", "system", "developer", "tool"]),
            "content": TEXT | PARTS | st.none(),
        },
        optional={"name": st.just("x"), "tool_calls": st.just([{"id": "1"}])},
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CONVERSATIONS)
def test_training_and_serving_read_the_same_text(tmp_path: Path, messages: list) -> None:
    """The same conversation in the training file, in a request's body and in a call of the engine."""
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": messages, "response_tokens": 1}))
    source = LocalSource.of_records(tmp_path / "rows.jsonl")
    trained: tuple[str, ...] = ()
    if any(conversation_texts([messages], "messages", source.path)):
        trained = tuple(clip(text)[0] for text in source.load().prompt)
    else:
        with pytest.raises(DataError, match="1 without text from a user"):
            source.load()
    endpoint = endpoint_of("/v1/chat/completions")
    assert endpoint is not None
    asked = read_request(endpoint, json.dumps({"model": "m", "messages": messages}).encode(), max_prompts=8)
    assert asked is not None
    assert asked.texts == trained
    assert asked_of_call(messages, None).texts == trained


@given(CONVERSATIONS, TEXT, TEXT)
def test_an_answer_at_the_end_never_leaks(messages: list, answer: str, other: str) -> None:
    with_answers = [[*messages, said("assistant", reply)] for reply in (answer, other)]
    texts = conversation_texts([messages, *with_answers], "messages", Path("rows"))
    assert texts == texts[:1] * 3
