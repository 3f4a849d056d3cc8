"""Traffic classes: who gets which delay, and which files are refused with which words."""

import hashlib
import json

import pytest

from vllm_client.hook.classes import MAX_DELAY_MS, NO_CLASSES, TrafficClasses, read_classes

KEY, OTHER_KEY = "sk-batch-7f3a", "sk-free-91cc"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


CLASSES = TrafficClasses(
    delays_ms={"interactive": 0, "batch": 30_000, "free": 5_000},
    default="free",
    api_keys={digest(KEY): "batch"},
)


@pytest.mark.parametrize(
    ("headers", "delay_ms"),
    [
        ({}, 5_000),
        ({"x-pars-class": "interactive"}, 0),
        ({"x-pars-class": "batch"}, 30_000),
        ({"x-pars-class": "nonsense"}, 5_000),
        ({"x-pars-class": "Batch"}, 5_000),
        ({"x-pars-class": ""}, 5_000),
        ({"authorization": f"Bearer {KEY}"}, 30_000),
        ({"authorization": f"bEARER  {KEY} "}, 30_000),
        ({"x-api-key": KEY}, 30_000),
        ({"authorization": f"Bearer {KEY}", "x-pars-class": "interactive"}, 30_000),
        ({"x-api-key": KEY, "x-pars-class": "interactive"}, 30_000),
        ({"authorization": f"Bearer {OTHER_KEY}"}, 5_000),
        ({"authorization": f"Bearer {OTHER_KEY}", "x-pars-class": "interactive"}, 0),
        ({"authorization": f"Basic {KEY}"}, 5_000),
        ({"authorization": KEY}, 5_000),
        ({"authorization": "Bearer"}, 5_000),
        ({"authorization": "Bearer ", "x-api-key": KEY}, 30_000),
        ({"authorization": f"Basic {OTHER_KEY}", "x-api-key": KEY}, 30_000),
        ({"authorization": f"Bearer {OTHER_KEY}", "x-api-key": KEY}, 5_000),
        ({"x-api-key": digest(KEY)}, 5_000),
        ({"x-api-key": "\udcff\x00"}, 5_000),
    ],
    ids=[
        "nothing",
        "header",
        "another header",
        "unknown class",
        "class names have case",
        "empty header",
        "bearer",
        "bearer, carelessly written",
        "x-api-key",
        "bearer beats the header",
        "x-api-key beats the header",
        "unlisted key",
        "unlisted key leaves it to the header",
        "another scheme",
        "no scheme",
        "scheme without a key",
        "empty bearer, so x-api-key",
        "another scheme, so x-api-key",
        "the bearer counts, for vLLM checks that one",
        "a digest is no key",
        "odd bytes",
    ],
)
def test_the_delay_of_a_request(headers, delay_ms):
    assert CLASSES.delay_ms(headers) == delay_ms


def test_without_a_default_who_names_no_class_is_not_delayed():
    classes = TrafficClasses(delays_ms={"batch": 7})
    assert classes.delay_ms({}) == classes.delay_ms({"x-pars-class": "nonsense"}) == 0
    assert classes.delay_ms({"x-pars-class": "batch"}) == 7
    assert NO_CLASSES.delay_ms({"x-pars-class": "batch", "authorization": f"Bearer {KEY}"}) == 0


def test_the_header_can_have_another_name():
    classes = TrafficClasses(delays_ms={"batch": 7}, header="x-tenant")
    assert classes.delay_ms({"x-tenant": "batch"}) == 7
    assert classes.delay_ms({"x-pars-class": "batch"}) == 0


def test_keys_are_only_compared_as_digests():
    """The key itself is in nothing that the table holds or shows, and is looked up by its SHA-256 alone."""
    assert KEY not in repr(CLASSES)
    looked_up = []

    class Watched(dict[str, str]):
        def get(self, key, default=None):
            looked_up.append(key)
            return super().get(key, default)

    classes = TrafficClasses(delays_ms={"batch": 7}, api_keys=Watched({digest(KEY): "batch"}))
    assert classes.delay_ms({"authorization": f"Bearer {KEY}"}) == 7
    assert classes.delay_ms({"x-api-key": OTHER_KEY}) == 0
    assert looked_up == [digest(KEY), digest(OTHER_KEY)]


@pytest.mark.parametrize("delay_ms", [-1, MAX_DELAY_MS + 1, 10**400, 1.0, 0.5, True, False, "5", None, float("nan")])
def test_a_wrong_delay_is_refused_by_name(delay_ms):
    with pytest.raises(ValueError, match=rf"^delays_ms\['batch'\] must be a whole number from 0 to {MAX_DELAY_MS}, not "):
        TrafficClasses(delays_ms={"batch": delay_ms})


@pytest.mark.parametrize("delay_ms", [0, MAX_DELAY_MS])
def test_the_ends_of_the_range_are_taken(delay_ms):
    assert TrafficClasses(delays_ms={"batch": delay_ms}, default="batch").delay_ms({}) == delay_ms


@pytest.mark.parametrize("header", ["", "X-Class"])
def test_a_header_that_no_request_can_have_is_refused(header):
    with pytest.raises(ValueError, match=r"^header must be the name of a request header in lower case"):
        TrafficClasses(delays_ms={"batch": 7}, header=header)


def test_names_that_no_delay_belongs_to_are_refused():
    with pytest.raises(ValueError, match=r"^not in delays_ms: fast, slow$"):
        TrafficClasses(delays_ms={"batch": 7}, default="slow", api_keys={digest(KEY): "fast"})


@pytest.mark.parametrize(
    "api_keys", [{KEY: "batch"}, {digest(KEY).upper(): "batch"}, {digest(KEY)[1:]: "batch"}, {"batch": KEY}]
)
def test_a_key_where_a_digest_belongs_is_refused_and_not_repeated(api_keys):
    with pytest.raises(ValueError, match=r"^api_keys wants the SHA-256 of each key") as raised:
        TrafficClasses(delays_ms={"batch": 7}, api_keys=api_keys)
    assert "sk-" not in str(raised.value)


# Files.


def test_a_whole_file_is_read(tmp_path):
    path = tmp_path / "classes.json"
    content = {
        "delays_ms": {"batch": 30_000, "日本": 1},
        "default": "日本",
        "header": "X-Tenant",
        "api_keys": {digest(KEY): "batch"},
    }
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    classes = read_classes(str(path))
    assert classes == TrafficClasses(**{**content, "header": "x-tenant"})
    assert classes.delay_ms({"x-tenant": "batch"}) == 30_000


def test_a_small_file_is_enough(tmp_path):
    path = tmp_path / "classes.json"
    path.write_text('{"delays_ms": {}}')
    assert read_classes(path) == NO_CLASSES


SHAPE = "{path} must be an object with delays_ms and, if wanted, default, header, api_keys"
NOT_A_DELAY = "{path}: delays_ms['a'] must be a whole number from 0 to 86400000, not "


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "{path} is no JSON: Expecting value"),
        (b"{", "{path} is no JSON: Expecting property name"),
        (b"\xff", "{path} is no JSON: 'utf-8' codec can't decode"),
        (b"[" * 100_000, "{path} is no JSON: maximum recursion depth exceeded"),
        (b"[]", SHAPE),
        (b"null", SHAPE),
        (b"{}", SHAPE),
        (b'{"default": "a"}', SHAPE),
        (
            b'{"delays_ms": {}, "delay": 5, "apikeys": {}}',
            "{path} holds apikeys, delay; known are delays_ms, default, header, api_keys",
        ),
        (b'{"delays_ms": []}', "{path}: delays_ms must be an object"),
        (b'{"delays_ms": {}, "default": 5}', "{path}: default must be text"),
        (b'{"delays_ms": {}, "default": null}', "{path}: default must be text"),
        (b'{"delays_ms": {}, "header": ["a"]}', "{path}: header must be text"),
        (b'{"delays_ms": {}, "header": ""}', "{path}: header must be the name of a request header in lower case, not ''"),
        (b'{"delays_ms": {}, "api_keys": "a"}', "{path}: api_keys must be an object"),
        (b'{"delays_ms": {}, "api_keys": {"a": 5}}', "{path}: api_keys must map digests to class names"),
        (
            b'{"delays_ms": {"a": 5}, "api_keys": {"sk-secret": "a"}}',
            "{path}: api_keys wants the SHA-256 of each key, 64 lower-case",
        ),
        (b'{"delays_ms": {"a": -1}}', NOT_A_DELAY + "-1"),
        (b'{"delays_ms": {"a": true}}', NOT_A_DELAY + "True"),
        (b'{"delays_ms": {"a": 1.5}}', NOT_A_DELAY + "1.5"),
        (b'{"delays_ms": {"a": NaN}}', NOT_A_DELAY + "nan"),
        (b'{"delays_ms": {"a": "5"}}', NOT_A_DELAY + "'5'"),
        (b'{"delays_ms": {"a": null}}', NOT_A_DELAY + "None"),
        (b'{"delays_ms": {"a": 86400001}}', NOT_A_DELAY + "86400001"),
        (b'{"delays_ms": {"a": 5}, "default": "b"}', "{path}: not in delays_ms: b"),
        (b'{"delays_ms": {"a": 5}, "api_keys": {"%s": "b"}}' % digest(KEY).encode(), "{path}: not in delays_ms: b"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_its_fault(content, message, tmp_path):
    path = tmp_path / "classes.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"classes\.json") as raised:
        read_classes(path)
    assert str(raised.value).startswith(message.replace("{path}", str(path)))
    assert "sk-secret" not in str(raised.value)


def test_a_file_that_is_not_there_and_one_that_is_a_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^cannot read .*/missing\.json: No such file or directory$"):
        read_classes(tmp_path / "missing.json")
    with pytest.raises(ValueError, match=r"^cannot read .*: Is a directory$"):
        read_classes(tmp_path)
