"""The lexical features on prompts whose counts are plain to see, and the trees on rules that prompt length cannot give."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from benchmarks.quality.lexical_trees import FEATURES, features, fit

NAMES = list(FEATURES)


def feature(name: str, prompt: str) -> float:
    return float(features([prompt])[0, NAMES.index(name)])


@pytest.mark.parametrize(
    ("name", "prompt", "value"),
    [
        ("characters", "abc def", 7),
        ("words", " abc  def\nghi ", 3),
        ("lines", "a\nb\nc", 3),
        ("sentences", "One. Two? 3.5 is three", 2),
        ("mean_word_characters", "ab abcd", 3),
        ("digits", "7 times 80", 3),
        ("digit_share", "a1b2", 0.5),
        ("capital_share", "ABcd", 0.5),
        ("non_latin_share", "ab字é", 0.25),
        ("non_latin_share", "Привет", 1),
        ("ideograph_share", "字ab", 1 / 3),
        ("question_marks", "Why? 为什么？", 2),
        ("quotes", 'Say "yes"', 2),
        ("code_fences", "```py\nx\n```", 2),
        ("code_symbols", "f(x) = [1];", 6),
        ("maths_symbols", r"$\frac{1}{2}$ + 3", 4),
        ("list_markers", "Do:\n- one\n2) two\n3.5 is no item", 2),
        ("lettered_options", "Which?\nA. one\n(B) two\nCats", 2),
        ("blanks_to_fill", "The ___ is __.", 2),
        ("begins_write", "Write a poem.", 1),
        ("begins_write", "Please, write a poem.", 1),
        ("begins_write", "Can you write a poem?", 1),
        ("begins_write", "Rewrite a poem.", 0),
        ("begins_rewrite", "Rewrite a poem.", 1),
        ("begins_summarize", "Summarise this.", 1),
        ("begins_yes_or_no", "Is it raining?", 1),
        ("begins_yes_or_no", "Issue a statement.", 0),
        ("asks_brief", "Say in one sentence why.", 1),
        ("asks_brief", "Shorts are trousers", 0),
        ("asks_only_the_answer", "Answer yes or no.", 1),
        ("asks_steps", "Think step by step.", 1),
        ("asks_code", "A Python function", 1),
        ("asks_code", "Print it in C++ twice", 1),
        ("asks_detail", "Explain in detail.", 1),
        ("asked_words", "An essay of 500 words", 500),
        ("asked_words", "In twenty words", 20),
        ("asked_words", "A 300-word story", 300),
        ("asked_sentences", "three short sentences", 3),
        ("asked_paragraphs", "a 2 page report", 2),
        ("asked_items", "List five main reasons", 5),
        ("asked_items", "Write 100 words", 0),
        ("asked_items", "List reasons", 0),
    ],
)
def test_a_feature_counts_what_it_says(name: str, prompt: str, value: float) -> None:
    assert feature(name, prompt) == pytest.approx(value)


@pytest.mark.parametrize("prompt", ["", " \n", "\ud800", "字" * 5000, "99999999999 words", "0 words"])
def test_every_prompt_has_finite_features(prompt: str) -> None:
    row = features([prompt])
    assert row.shape == (1, len(FEATURES))
    assert np.isfinite(row).all()


def test_no_prompts_have_no_rows() -> None:
    assert features([]).shape == (0, len(FEATURES))


def planted(count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """The first verb decides the length; the words after it, and with them the prompt's length, are noise."""
    rng = np.random.default_rng(seed)
    tokens_of = {"Name": 8, "Translate": 30, "Explain": 120, "Write": 480}
    verbs = rng.choice(list(tokens_of), size=count)
    prompts = [
        f"{verb} {' '.join(['stuff'] * int(words))}" for verb, words in zip(verbs, rng.integers(1, 40, count), strict=True)
    ]
    return prompts, np.array([tokens_of[verb] for verb in verbs]) * np.exp(rng.normal(0, 0.1, count))


def test_trees_learn_a_rule_that_prompt_length_cannot_give() -> None:
    prompts, lengths = planted(600, seed=1)
    test_prompts, test_lengths = planted(300, seed=2)
    predicted = fit(prompts, lengths, seed=0).predict(test_prompts)
    by_length = kendalltau([len(prompt) for prompt in test_prompts], test_lengths).statistic
    assert abs(by_length) < 0.2
    # Four groups in the right order, noise inside them: 0.75 of all pairs are between groups and right, the rest a coin.
    assert kendalltau(predicted, test_lengths).statistic > 0.7
    groups = [
        predicted[[prompt.startswith(verb) for prompt in test_prompts]] for verb in ("Name", "Translate", "Explain", "Write")
    ]
    for group, tokens in zip(groups, (8, 30, 120, 480), strict=True):
        assert group.mean() == pytest.approx(np.log(tokens), abs=0.1)


def test_the_same_seed_gives_the_same_trees() -> None:
    prompts, lengths = planted(300, seed=3)
    assert np.array_equal(fit(prompts, lengths, seed=5).predict(prompts), fit(prompts, lengths, seed=5).predict(prompts))


def test_a_validation_part_stops_the_boosting() -> None:
    """Against lengths that have nothing to do with the prompts more rounds only hurt; against the rule itself they help."""
    prompts, lengths = planted(400, seed=4)
    other_prompts, other_lengths = planted(200, seed=5)
    noise = np.exp(np.random.default_rng(6).normal(4, 2, 200))
    held = fit(prompts, lengths, seed=0, validation=(other_prompts, other_lengths))
    stopped = fit(prompts, lengths, seed=0, validation=(other_prompts, noise))
    assert stopped.trees.n_iter_ < held.trees.n_iter_


def test_prompts_and_lengths_go_together() -> None:
    with pytest.raises(ValueError, match="2 prompts but 1 lengths"):
        fit(["a", "b"], np.array([3.0]), seed=0)
