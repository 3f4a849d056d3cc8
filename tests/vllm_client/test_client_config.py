import dataclasses
import math

import pytest

import pars
from vllm_client import ClientConfig


def test_defaults_need_no_thought():
    config = ClientConfig()
    assert config.address == pars.DEFAULT_ADDRESS
    assert config.timeout_ms(None) == 1000


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ClientConfig().deadline_ms = 1


@pytest.mark.parametrize(
    "address",
    ["localhost:1", "10.0.0.1:65535", "[::1]:50151", "pars.svc.cluster.local:50151", "unix:/run/p.sock", "unix:p.sock"],
)
def test_good_addresses(address):
    assert ClientConfig(address=address).address == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost",
        ":50151",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "localhost:http",
        "::1:50151",
        "unix:",
        "unix:/",
        "a:²",
    ],
)
def test_bad_addresses_are_named(address):
    with pytest.raises(ValueError, match=r"^address must be host:port.*not '"):
        ClientConfig(address=address)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("deadline_ms", 0),
        ("deadline_ms", -1),
        ("deadline_ms", math.nan),
        ("deadline_ms", math.inf),
        ("deadline_ms", 3_600_001),
        ("max_reconnect_backoff_ms", 99),
        ("max_in_flight", 0),
    ],
)
def test_bad_numbers_are_named(setting, value):
    with pytest.raises(ValueError, match=rf"^{setting} must be .* not {value}$"):
        ClientConfig(**{setting: value})


def test_a_call_may_have_its_own_deadline():
    assert ClientConfig(deadline_ms=10).timeout_ms(2.5) == 2.5
    with pytest.raises(ValueError, match=r"^timeout_ms must be"):
        ClientConfig().timeout_ms(0)
