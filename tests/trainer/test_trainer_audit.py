"""What a data set can support: every finding, and that the ones that matter stop a run. Figures worked out by hand."""

import numpy as np
import pytest
from corpus import make_records
from scipy.stats import kendalltau

from trainer.audit import Finding, Severity, audit, cap_findings, check_data, share_of_pairs, unit_findings
from trainer.config import TrainConfig
from trainer.errors import DataError
from trainer.intervals import half_width_of_no_order
from trainer.records import Records
from trainer.repeat_ceiling import repeat_ceiling

ALONE = TrainConfig(similarity=0.0)


def worded(count: int) -> list[str]:
    """Prompts of which no two are near-duplicates."""
    rng = np.random.default_rng(3)
    return [" ".join("".join(map(chr, word)) for word in rng.integers(97, 123, size=(8, 4))) for _ in range(count)]


def spread_lengths(count: int) -> np.ndarray:
    return np.round(np.exp(np.random.default_rng(4).normal(4, 1, size=count))) + 1


def of(findings: list[Finding], severity: Severity) -> str:
    return "\n".join(str(finding) for finding in findings if finding.severity is severity)


def test_nothing_stands_against_plenty_of_different_prompts() -> None:
    records = Records.build(worded(3000), spread_lengths(3000), length_label="some tokenizer")
    assert audit(records, TrainConfig(), "some tokenizer") == []


# Enough prompts


def test_the_half_width_is_kendalls() -> None:
    # n = 100: sqrt(2 · 205 / (9 · 100 · 99)) = sqrt(410 / 89,100) = 0.067835, times 1.96.
    assert half_width_of_no_order(100) == pytest.approx(0.13296, abs=1e-5)


def test_the_half_width_holds_what_scores_without_meaning_reach(rng: np.random.Generator) -> None:
    taus = [kendalltau(rng.random(40), rng.random(40)).statistic for _ in range(4000)]
    assert np.mean(np.abs(taus) <= half_width_of_no_order(40)) == pytest.approx(0.95, abs=0.015)


def test_too_few_prompts_are_refused_with_what_is_needed() -> None:
    with pytest.raises(DataError, match=r"training part has \d+ prompts; at least 50 are needed\. Bring 200") as caught:
        check_data(Records.build(worded(40), spread_lengths(40)), ALONE, "x")
    for part in ("validation", "test"):
        assert f"the {part} part has" in str(caught.value)


def test_few_prompts_are_a_warning_that_says_how_wide() -> None:
    findings = audit(Records.build(worded(600), spread_lengths(600)), ALONE, "x")
    warning = of(findings, Severity.WARNING)
    assert not of(findings, Severity.REFUSED)
    # 600 prompts leave about 60 for the test part, whose half-width is 0.17.
    assert "tau will be known to about ±0.1" in warning
    assert "the training part has 4" in warning
    assert "90th percentile" in warning


# Lengths that differ


def test_share_of_pairs_by_hand() -> None:
    lengths = np.array([10.0, 10.0, 20.0, 100.0])
    assert share_of_pairs(lengths, 0.2, 0) == pytest.approx(5 / 6)  # all but the two equal ones
    assert share_of_pairs(lengths, 0.6, 0) == pytest.approx(3 / 6)  # 10 against 20 is a gap of 0.5
    assert share_of_pairs(lengths, 0.0, 0) == pytest.approx(5 / 6)
    assert share_of_pairs(np.full(50, 7.0), 0.0, 0) == 0.0


@pytest.mark.parametrize(("spread", "severity"), [(0.0, "refused"), (0.05, "refused"), (0.1, "warning"), (0.3, "")])
def test_lengths_too_alike_to_order(spread: float, severity: str) -> None:
    lengths = 200 * np.exp(np.random.default_rng(1).normal(0, spread, size=3000))
    said = [str(finding) for finding in audit(Records.build(worded(3000), lengths), ALONE, "x")]
    assert said == [finding for finding in said if severity and finding.startswith(severity)]
    assert len(said) == (1 if severity else 0)


# Repeats


def repeated(prompt_spread: float, noise: float, times: int, *, model: str = "m", count: int = 3000) -> Records:
    rng = np.random.default_rng(9)
    expected = np.repeat(rng.normal(5, prompt_spread, size=count), times)
    lengths = np.exp(expected + rng.normal(0, noise, size=len(expected)))
    return Records.build([prompt for prompt in worded(count) for _ in range(times)], lengths, model=[model] * len(lengths))


def test_ceiling_by_hand() -> None:
    """Prompt and noise of the same spread: ρ = 1/2, so tau between repeats is 2/π · asin(1/2) = 1/3. A mean of two responses has half
    the noise, so knowing the expectation correlates with it by 1 / sqrt(1 + 1/2) = 0.8165, which is a tau of 0.608."""
    ceiling = repeat_ceiling(repeated(1.0, 1.0, 2))
    assert ceiling is not None
    assert ceiling.prompts == 3000
    assert ceiling.repeat_tau_b == pytest.approx(1 / 3, abs=0.03)
    assert ceiling.tau_b == pytest.approx(0.608, abs=0.03)


def test_the_ceiling_is_what_knowing_the_expectation_reaches() -> None:
    rng = np.random.default_rng(2)
    expected = rng.normal(5, 0.8, size=2000)
    responses = np.exp(expected[:, None] + rng.normal(0, 0.5, size=(2000, 3)))
    reached = kendalltau(expected, np.log(responses).mean(axis=1)).statistic
    ceiling = repeat_ceiling(Records.build([prompt for prompt in worded(2000) for _ in range(3)], responses.reshape(-1)))
    assert ceiling is not None
    assert ceiling.tau_b == pytest.approx(reached, abs=0.03)


def test_rows_written_twice_have_no_noise() -> None:
    ceiling = repeat_ceiling(repeated(1.0, 0.0, 2, count=100))
    assert ceiling is not None
    assert ceiling.tau_b == pytest.approx(1.0)


def test_a_length_that_is_no_property_of_the_prompt_is_said() -> None:
    warning = of(audit(repeated(0.0, 1.0, 2), ALONE, "x"), Severity.WARNING)
    assert "hardly a property of the prompt" in warning


def test_two_models_verbosity_is_not_taken_for_agreement() -> None:
    """Noise only, but one of the models answers ten times as long: between its prompts and the other's there is an order."""
    terse, chatty = repeated(0.0, 1.0, 2, model="terse", count=200), repeated(0.0, 1.0, 2, model="chatty", count=300)
    chatty = Records.build([f"other {prompt}" for prompt in chatty.prompt], chatty.response_tokens * 10, model=chatty.model)
    ceiling = repeat_ceiling(Records.concatenate([terse, chatty]))
    assert ceiling is not None
    assert ceiling.prompts == 300
    assert abs(ceiling.repeat_tau_b) < 0.15


def test_without_repeats_there_is_no_ceiling() -> None:
    assert repeat_ceiling(make_records(300)) is None
    assert repeat_ceiling(repeated(1.0, 1.0, 2, count=49)) is None


# Copies


def test_rows_of_one_prompt_are_counted_once() -> None:
    note = of(audit(repeated(1.0, 0.5, 2), ALONE, "x"), Severity.NOTE)
    assert "6,000 rows hold 3,000 different prompts" in note


def template(count: int, start: int = 0) -> list[str]:
    body = "please write a friendly letter about the order that our customer placed last week with number"
    return [f"{body} {number}" for number in range(start, start + count)]


def test_near_duplicates_are_counted_and_a_large_group_is_a_warning() -> None:
    findings = audit(Records.build(worded(800) + template(200), spread_lengths(1000)), TrainConfig(), "x")
    assert "200 prompts fall into 1 group of near-duplicates" in of(findings, Severity.NOTE)
    assert "200 of 1,000 prompts are near-duplicates of each other" in of(findings, Severity.WARNING)
    small = audit(Records.build(worded(801) + template(199), spread_lengths(1000)), TrainConfig(), "x")
    assert "near-duplicates of each other" not in of(small, Severity.WARNING)


def test_fillings_of_one_template_are_refused_with_the_way_out() -> None:
    records = Records.build(template(300), spread_lengths(300))
    with pytest.raises(DataError, match=r"--similarity 0") as caught:
        check_data(records, TrainConfig(), "x")
    assert "(300 with near-duplicates)" in str(caught.value)
    assert not of(check_data(records, ALONE, "x"), Severity.REFUSED)


# Limits and units


def test_responses_cut_at_a_limit() -> None:
    lengths = np.concatenate([np.arange(1.0, 96.0), np.full(10, 512.0)])
    assert "10 of 105 responses have exactly the greatest length, 512" in str(
        cap_findings(Records.build(worded(105), lengths))[0]
    )
    assert cap_findings(Records.build(worded(105), np.arange(1.0, 106.0))) == []
    assert cap_findings(Records.build(worded(105), np.full(105, 9.0))) == [], "constant is another finding"


def test_a_limit_of_one_model_among_several_is_named() -> None:
    lengths = np.concatenate([np.arange(1.0, 96.0), np.full(10, 512.0), np.arange(1.0, 2001.0)])
    models = ["short"] * 105 + ["long"] * 2000
    assert "10 of 105 responses of short" in str(cap_findings(Records.build(worded(2105), lengths, model=models))[0])


@pytest.mark.parametrize("label", ["", "unknown", "words", "chars"])
def test_a_unit_that_is_not_tokens_is_said(label: str) -> None:
    assert [finding.severity for finding in unit_findings(label)] == [Severity.WARNING]
    assert unit_findings("meta-llama/Llama-3.1-8B-Instruct") == []


def test_the_gravest_comes_first() -> None:
    severities = [finding.severity for finding in audit(repeated(0.0, 0.0, 2, count=60), ALONE, "")]
    assert severities == sorted(severities, key=list(Severity).index)
    assert severities[0] is Severity.REFUSED
