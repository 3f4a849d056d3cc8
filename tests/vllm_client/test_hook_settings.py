"""HookSettings: what is refused, how the environment is read, and the table in the docs."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import vllm_client
from vllm_client.hook.classes import NO_CLASSES
from vllm_client.hook.settings import HookSettings, HookSettingsError, settings_table
from vllm_client.priority import CLOCKED, PolicySettings
from vllm_client.scores import Tier

ROOT = Path(vllm_client.__file__).parent.parent
FIELDS = {field.name: field for field in dataclasses.fields(HookSettings)}
KINDS = get_type_hints(HookSettings)
RANGED = [name for name, field in FIELDS.items() if field.metadata["low"] is not None]
CHOSEN = [name for name, kind in KINDS.items() if get_args(kind)]
OF_KIND = {kind: [name for name in FIELDS if KINDS[name] is kind] for kind in (bool, int, float, str)}


def refused(name: str, value: object) -> str:
    with pytest.raises(HookSettingsError) as raised:
        HookSettings(**{name: value})
    return str(raised.value)


def test_every_field_is_of_a_tested_kind():
    assert sorted([*CHOSEN, *(name for names in OF_KIND.values() for name in names)]) == sorted(FIELDS)
    assert sorted(RANGED) == sorted([*OF_KIND[int], *OF_KIND[float]])


def test_the_defaults_are_valid_and_shared_with_the_policies():
    settings = HookSettings()
    assert HookSettings.from_environment({}) == settings
    assert settings.policy_settings() == PolicySettings()
    assert settings.traffic_classes() is NO_CLASSES
    assert settings.asked_tier() is Tier.ANY
    config = settings.client_config()
    assert (config.address, config.deadline_ms, config.max_in_flight) == (settings.address, 10.0, 4096)


@pytest.mark.parametrize("name", RANGED)
def test_a_number_must_be_in_its_range(name):
    low, high = FIELDS[name].metadata["low"], FIELDS[name].metadata["high"]
    for inside in (low, high):
        assert getattr(HookSettings(**{name: inside}), name) == inside
    for outside in (low - 1, high + 1, -(10**30), 10**30):
        assert refused(name, outside).startswith(f"{name} is {outside}, {low:,} to {high:,} ")


@pytest.mark.parametrize("name", OF_KIND[float])
def test_a_float_must_be_a_number(name):
    for value in (math.nan, math.inf, -math.inf):
        assert refused(name, value).startswith(f"{name} is {value}, ")


@pytest.mark.parametrize(
    ("kind", "wrong_values", "wanted"),
    [
        (bool, ["no", 0, 1, None], "True or False"),
        (int, [1.0, math.nan, "5", True, None], "a whole number"),
        (float, ["5", True, None, 1j], "a number"),
        (str, [None, 5, b"x", Path("x")], "text"),
    ],
    ids=["bool", "int", "float", "str"],
)
def test_a_wrong_type_is_refused(kind, wrong_values, wanted):
    for name in OF_KIND[kind]:
        for value in wrong_values:
            assert refused(name, value) == f"{name} is {value!r}, {wanted} is wanted"


def test_numbers_that_are_as_good_as_floats_are_taken():
    assert HookSettings(deadline_ms=5).deadline_ms == 5
    assert HookSettings(deadline_ms=np.float64(2.5)).client_config().deadline_ms == 2.5


@pytest.mark.parametrize("name", CHOSEN)
def test_a_choice_must_be_one_of_those_offered(name):
    for choice in get_args(KINDS[name]):
        assert getattr(HookSettings(**{name: choice}), name) == choice
    for wrong in ("", "nonsense", FIELDS[name].default.upper(), None, 1):
        message = refused(name, wrong)
        assert message == f"{name} is {wrong!r}, one of {', '.join(get_args(KINDS[name]))} is wanted"


@pytest.mark.parametrize("policy", get_args(KINDS["policy"]))
def test_combine_wants_a_policy_with_a_clock(policy):
    if policy in CLOCKED:
        assert HookSettings(policy=policy, client_priority="combine").policy == policy
        return
    with pytest.raises(HookSettingsError, match=rf"client_priority is 'combine'.*policy '{policy}' is no clock.*ageing, cost"):
        HookSettings(policy=policy, client_priority="combine")
    assert HookSettings(policy=policy, client_priority="override").policy == policy


@pytest.mark.parametrize("address", ["", "localhost", "localhost:0", "localhost:99999", ":5", "unix:", "::1:50151", "host:5\n"])
def test_an_address_that_leads_nowhere_is_refused(address):
    assert refused("address", address) == f"address must be host:port, [ipv6]:port or unix:/path, not {address!r}"


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        HookSettings().window_ms = 5


# The environment.


def environment_of(settings: HookSettings) -> dict[str, str]:
    return {f"PARS_HOOK_{name.upper()}": str(getattr(settings, name)) for name in FIELDS}


def test_every_field_is_read_from_its_variable():
    other = HookSettings(
        address="pars.internal:50151",
        ranker="meta-llama/Llama-3.1-8B-Instruct",
        tls_ca="/etc/ca.pem",
        tls_cert="/etc/cert.pem",
        tls_key="/etc/key.pem",
        token_file="/etc/token",
        deadline_ms=2.5,
        crowded_deadline_ms=70.0,
        tier="ngram",
        shadow=True,
        sample_share=0.25,
        gate_in_flight=0,
        policy="cost",
        window_ms=0,
        max_window_ms=900,
        prefill_ms_per_token=0.5,
        decode_ms_per_token=7.0,
        stretch=0.0,
        client_priority="combine",
        client_step_ms=5,
        client_limit_ms=6,
        classes_file="/etc/classes.json",
        priority_place="body",
        max_body_bytes=2_048,
        max_prompts=3,
        max_asks=9,
        breaker_failures=2,
        breaker_open_ms=11,
        log_interval_s=0.0,
    )
    assert all(getattr(other, name) != field.default for name, field in FIELDS.items())
    found = HookSettings.from_environment(environment_of(other))
    assert found == other
    assert [type(getattr(found, name)) for name in FIELDS] == [type(getattr(other, name)) for name in FIELDS]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (text, value)
        for value, texts in ((True, "1 true True YES on"), (False, "0 false False NO off"))
        for text in texts.split()
    ],
)
def test_switches_are_read(text, value):
    assert HookSettings.from_environment({"PARS_HOOK_SHADOW": text}).shadow is value


@pytest.mark.parametrize(
    ("name", "texts", "wanted"),
    [
        ("shadow", ["", "2", "enabled", "None"], "1 or 0 is wanted"),
        ("window_ms", ["", "40s", "1.0", "1e3", "nan", "9" * 5_000], "a whole number is wanted"),
        ("deadline_ms", ["", "10ms", "1,5", "0x1"], "a number is wanted"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused_with_the_variable(name, texts, wanted):
    variable = f"PARS_HOOK_{name.upper()}"
    for text in texts:
        with pytest.raises(HookSettingsError) as raised:
            HookSettings.from_environment({variable: text})
        assert str(raised.value) == f"{variable} is {text!r}, {wanted}"


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "0"])
def test_a_number_out_of_range_is_refused_from_the_environment_too(text):
    with pytest.raises(HookSettingsError, match=r"^PARS_HOOK_DEADLINE_MS is .*, 0\.1 to 60,000 milliseconds is the range$"):
        HookSettings.from_environment({"PARS_HOOK_DEADLINE_MS": text})


@pytest.mark.parametrize(
    "variable", ["PARS_HOOK_", "PARS_HOOK_WINDOW", "PARS_HOOK_window_ms", "PARS_HOOK_PLUGINS", "PARS_HOOK_POLICY_"]
)
def test_an_unknown_variable_is_refused(variable):
    with pytest.raises(
        HookSettingsError, match=rf"^{variable} is not a setting; known are PARS_HOOK_ADDRESS, .*PARS_HOOK_WINDOW_MS$"
    ):
        HookSettings.from_environment({variable: "5"})


def test_what_is_not_ours_is_passed_over():
    others = {
        "PARS_HOOK_PLUGIN": "1",
        "PARS_ADDRESS": "nonsense",
        "pars_hook_window_ms": "x",
        "PARS_HOOKED": "x",
        "PATH": "/bin",
    }
    assert HookSettings.from_environment(others) == HookSettings()


@hypothesis_settings(deadline=None)
@given(st.dictionaries(st.sampled_from([f"PARS_HOOK_{name.upper()}" for name in FIELDS]), st.text()))
def test_no_text_raises_anything_else(environment):
    with suppress(HookSettingsError):
        HookSettings.from_environment(environment)


# Traffic classes.


def test_the_classes_file_is_read_when_asked_for(tmp_path):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"delays_ms": {"batch": 7}}))
    settings = HookSettings(classes_file=str(path))
    assert settings.traffic_classes().delay_ms({"x-pars-class": "batch"}) == 7
    path.write_text("[]")
    with pytest.raises(HookSettingsError, match=rf"^PARS_HOOK_CLASSES_FILE: {path} must be an object"):
        settings.traffic_classes()


@pytest.mark.parametrize(("name", "tier"), [("any", Tier.ANY), ("encoder", Tier.ENCODER), ("ngram", Tier.NGRAM)])
def test_tiers_have_names(name, tier):
    assert HookSettings(tier=name).asked_tier() is tier


# The table.


def test_the_table_has_a_row_for_every_field_and_no_other():
    header, rule, *rows = settings_table().splitlines()
    assert (header, rule) == ("| variable | meaning | default |", "|---|---|---|")
    cells = [row.split("|") for row in rows]
    assert all(len(row) == 5 and row[2].strip() for row in cells)
    assert [row[1].strip() for row in cells] == [f"`PARS_HOOK_{name.upper()}`" for name in FIELDS]


def test_the_tables_defaults_are_the_defaults_as_one_would_write_them():
    rows = [row.split("|") for row in settings_table().splitlines()[2:]]
    shown = {row[1].strip(" `"): row[3].strip(" `") for row in rows}
    assert shown["PARS_HOOK_CLASSES_FILE"] == ""
    assert HookSettings.from_environment(shown) == HookSettings()


def test_the_table_tells_ranges_choices_units_and_zeros():
    rows = dict(zip(FIELDS, settings_table().splitlines()[2:], strict=True))
    for name in RANGED:
        about = FIELDS[name].metadata
        assert f"{about['low']:,} to {about['high']:,}" in rows[name]
        assert about["unit"] in rows[name]
        assert about["zero"] in rows[name]
    for name in CHOSEN:
        assert ", ".join(f"`{choice}`" for choice in get_args(KINDS[name])) in rows[name]


def test_the_docs_carry_the_table():
    text = (ROOT / "docs/vllm.md").read_text(encoding="utf-8")
    _, _, rest = text.partition("<!-- settings -->\n")
    table, end, _ = rest.partition("<!-- end -->")
    assert end
    assert table.strip() == settings_table().strip(), "run python -m vllm_client hook-settings"


def printed(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vllm_client", "hook-settings", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )


def test_the_command_prints_the_table_and_asks_nobody():
    # Neither address nor settings of the surroundings are read.
    result = printed(PARS_ADDRESS="nonsense", PARS_HOOK_WINDOW_MS="nonsense")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == settings_table()


def test_the_command_takes_no_options():
    result = printed("--json")
    assert (result.returncode, result.stdout) == (2, "")
    assert "unrecognized arguments: --json" in result.stderr
