"""How a chat becomes text, measured: the texts themselves by hand, and a whole run on tiny data with a tiny checkpoint."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus import make_records

from benchmarks.quality import chat
from benchmarks.quality.chat_config import Expectation, check_expectations, read_config
from benchmarks.quality.chat_figures import ChatRow, change_interval, chat_row
from benchmarks.quality.chat_measure import unread_share
from benchmarks.quality.chat_ways import FOLLOW_UP_WAYS, FOLLOW_UPS, LONE, RULE, WAYS, Chat, Turn, make_chats, make_follow_ups
from trainer.checkpoint import read_checkpoint
from trainer.errors import ConfigError, ExpectationError

CHAT = Chat("now?", (Turn("first?", "one."), Turn("second?", "two.")))


@pytest.mark.parametrize(
    ("way", "text"),
    [
        (LONE, "now?"),
        (RULE, "now?"),
        ("short system prompt, prompt", "You are a helpful assistant.\nnow?"),
        ("turns, oldest first, prompt", "first?\none.\nsecond?\ntwo.\nnow?"),
        ("prompt, turns, newest first", "now?\ntwo.\nsecond?\none.\nfirst?"),
        ("user turns, oldest first, prompt", "first?\nsecond?\nnow?"),
        ("prompt, user turns, newest first", "now?\nsecond?\nfirst?"),
        ("prompt with role marks", "User: now?\nAssistant:"),
    ],
)
def test_the_ways(way: str, text: str) -> None:
    assert WAYS[way](CHAT) == text


def test_tools_come_before_the_system_prompt_and_both_before_the_prompt() -> None:
    text = WAYS["tools, system prompt, prompt"](CHAT)
    schema, system, prompt = text.split("\n")
    assert [tool["function"]["name"] for tool in json.loads(schema)] == ["search_flights", "get_booking"]
    assert system.startswith("You are Nora")
    assert prompt == "now?"


def test_the_prompt_before_a_follow_up() -> None:
    ways = {name: way(CHAT) for name, way in FOLLOW_UP_WAYS.items()}
    assert ways == {
        LONE: "now?",
        "prompt, the prompt before it": "now?\nsecond?",
        "the prompt before it, prompt": "second?\nnow?",
    }


def test_chats_ask_other_prompts_first_and_reply_at_their_length() -> None:
    prompts, lengths = [f"prompt number {row}" for row in range(9)], [float(row + 1) for row in range(9)]
    chats = make_chats(prompts, lengths, earlier=3, seed=1)
    assert chats == make_chats(prompts, lengths, earlier=3, seed=1) != make_chats(prompts, lengths, earlier=3, seed=2)
    assert [each.prompt for each in chats] == prompts
    for each in chats:
        asked = [turn.user for turn in each.earlier]
        assert len({*asked, each.prompt}) == 4
        assert [len(turn.reply) for turn in each.earlier] == [4 * lengths[prompts.index(user)] for user in asked]


def test_follow_ups_go_on_from_every_prompt() -> None:
    chats = make_follow_ups(["a", "b"] * 50, seed=0)
    assert [each.earlier[-1].user for each in chats] == ["a", "b"] * 50
    assert {each.prompt for each in chats} == set(FOLLOW_UPS)


def row_of(scores: np.ndarray, lengths: np.ndarray) -> ChatRow:
    return chat_row("q", "d", "w", scores, lengths, lengths, min_gap=0.2, resamples=20)


def test_a_row_compares_on_the_same_prompts() -> None:
    lengths = np.arange(1.0, 21.0)
    row = row_of(-lengths, lengths)
    assert (row.tau, row.change, row.change_low, row.change_high) == pytest.approx((-1.0, -2.0, -2.0, -2.0))
    assert (row.pair_accuracy, row.filtered_pair_accuracy, row.prompts, row.mean_tokens) == (0.0, 0.0, 20, 10.5)
    noisy = lengths + np.tile([3.0, -3.0], 10)
    interval = change_interval((lengths, lengths), (noisy, lengths), resamples=50)
    assert interval.low < row_of(noisy, lengths).change < interval.high < 0


def test_scores_that_differ_by_rounding_alone_are_ties() -> None:
    lengths = np.arange(1.0, 21.0)
    row = row_of(1 + lengths * 1e-9, lengths)
    assert (row.tau, row.pair_accuracy) == (0.0, 0.5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets that a ranker never saw, and the recipe of one that did: a single-model one, and one in two files."""
    folder = tmp_path_factory.mktemp("data")
    make_records(400).save(folder / "learned.parquet")
    single = make_records(60, seed=5)
    columns = {name: single.response_tokens * factor for name, factor in (("response_tokens", 1.0), ("warm_tokens", 1.1))}
    pq.write_table(pa.table({"prompt": single.prompt, "model": single.model, **columns}), folder / "single.parquet")
    paired = make_records(40, seed=6)
    ids = [str(row) for row in range(40)]
    responses = {"prompt_id": ids, "response_tokens": paired.response_tokens, "model": paired.model}
    pq.write_table(pa.table({**responses, "reasoning_hidden": [False] * 40}), folder / "paired.parquet")
    pq.write_table(pa.table({"prompt_id": ids, "prompt": paired.prompt}), folder / "paired_prompts.parquet")
    (folder / "recipe.toml").write_text('[train]\nsimilarity = 0.0\n[[records]]\npath = "learned.parquet"\n')
    return folder


def config_file(data: Path, out: Path) -> Path:
    out.write_text(
        f"""
        seed = 0
        prompts = 50
        min_gap = 0.2
        resamples = 20
        earlier_turns = 2
        sets = ["single", "paired"]
        recipe = "{data}/recipe.toml"
        single_model_set = "single"
        short_prompt_chars = 60
        [temperatures]
        "temperature 0" = "response_tokens"
        "temperature 0.7" = "warm_tokens"
        [[expect]]
        question = "a chat around the prompt"
        dataset = "paired"
        way = "the rule"
        change = [0, 0]
        """
    )
    return out


def test_a_run_from_data_to_json(data: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_file(data, tmp_path / "chat.toml")
    out = tmp_path / "chat.json"
    words = ["--data", data, "--checkpoint", tiny_checkpoint, "--out", out, "--config", config]
    assert chat.main([str(word) for word in words]) == 0
    document = json.loads(out.read_text())
    rows = {(row["question"], row["dataset"], row["way"]): row for row in document["chat"]}
    assert len(rows) == len(document["chat"]) == 2 * len(WAYS) + 2 * len(FOLLOW_UP_WAYS) + 2
    for name, prompts in (("single", 50), ("paired", 40)):
        of_way = {way: rows["a chat around the prompt", name, way] for way in WAYS}
        assert {row["prompts"] for row in of_way.values()} == {prompts}
        # It learned lone prompts of this very kind, and reads 32 tokens: a system prompt of 70 words fills them.
        assert of_way[LONE]["tau"] > 0.6
        assert {**of_way[RULE], "way": LONE} == of_way[LONE]
        assert of_way["long system prompt, prompt"]["unread"] == 1.0
        assert of_way["long system prompt, prompt"]["tau"] == 0.0
        assert of_way["long system prompt, prompt"]["change_high"] < -0.5
    warm = rows["temperature of the response", "single", "temperature 0.7"]
    cold = rows["temperature of the response", "single", "temperature 0"]
    assert warm["change"] == 0.0
    assert warm["mean_tokens"] == pytest.approx(1.1 * cold["mean_tokens"], rel=1e-3)
    assert document["stamp"]["command"].startswith("python -m benchmarks.quality.chat --data")
    assert "a chat around the prompt: the rule" in capsys.readouterr().out


def test_a_figure_out_of_its_range_is_named() -> None:
    lengths = np.arange(1.0, 21.0)
    config = replace(read_config(chat.CONFIG), expect=(Expectation(question="q", dataset="d", way="w", change=(-0.1, 0.0)),))
    check_expectations(config, [row_of(lengths, lengths)])
    with pytest.raises(ExpectationError, match=r"q, d, w: tau changes by -2\.0, expected -0\.1 to 0\.0"):
        check_expectations(config, [row_of(-lengths, lengths)])
    with pytest.raises(ExpectationError, match="tau changes by None"):
        check_expectations(config, [])


def test_what_cannot_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat.main([f"--data={tmp_path}", f"--checkpoint={tmp_path}", f"--out={tmp_path / 'chat.json'}"]) == 1
    assert "benchmarks.quality.chat: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_unread_is_told_by_tokens(tiny_checkpoint: Path) -> None:
    ranker = read_checkpoint(tiny_checkpoint).ranker
    texts = ["a", "bread " * 40 + "a", "a " + "bread " * 40, "bread a"]
    assert unread_share(ranker, texts, ["a"] * 4) == 0.25


def test_the_committed_settings_are_read_and_expect_known_ways() -> None:
    config = read_config(chat.CONFIG)
    assert {each.way for each in config.expect} <= {*WAYS, *FOLLOW_UP_WAYS, *config.temperatures}
    assert {each.dataset for each in config.expect} <= set(config.sets)
    assert config.single_model_set in config.sets


@pytest.mark.parametrize(("content", "message"), [("seed = 0", "sets"), ("sets = [", "chat.toml")])
def test_bad_settings_are_explained(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "chat.toml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "chat.toml")
