"""From text to calibrated scores without a server: tokenizer, session, n-gram scorer, calibration, golden prompts."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import sidecar_tiny
from onnx import TensorProto, helper, numpy_helper
from sidecar_tiny import MAX_CHARS, MAX_TOKENS, expected_score, make_bundle, make_graph, read_manifest, write_manifest

from pars import ngram
from pars.v1 import bundle_pb2
from sidecar import cost_model, session
from sidecar.bundle import Bundle, open_bundle
from sidecar.calibration import Calibrator
from sidecar.errors import BundleError, InvalidRequestError, ModelError, ProviderError, WarmUpError
from sidecar.golden import replay
from sidecar.ngram_scorer import NgramScorer
from sidecar.openvino_session import OpenVinoScorer
from sidecar.ranker import Ranker
from sidecar.scorer import Scorer, TokenizedPrompt
from sidecar.session import CPU, CUDA, OnnxScorer
from sidecar.tokenization import PromptTokenizer

OpenScorer = Callable[[Bundle], Scorer]


@pytest.fixture
def tokenizer(tiny_bundle: Path) -> PromptTokenizer:
    return PromptTokenizer.for_bundle(open_bundle(tiny_bundle))


@pytest.fixture
def scorer(tiny_bundle: Path) -> OnnxScorer:
    return OnnxScorer(open_bundle(tiny_bundle))


class TestTokenizer:
    def test_baked_in_padding_and_truncation_do_not_apply(self, tokenizer: PromptTokenizer) -> None:
        short, longer = tokenizer.encode(["long", "long " * 10])
        assert short.token_ids.tolist() == [2, 5, 3]
        assert short.token_ids.dtype == np.int64
        assert len(longer.token_ids) == 12

    @pytest.mark.parametrize(
        ("prompt", "tokens", "truncated"),
        [
            ("", 2, False),
            ("   \t\n ", 2, False),
            ("\0", 3, False),
            ("long " * (MAX_TOKENS - 2), MAX_TOKENS, False),
            ("long " * (MAX_TOKENS - 1), MAX_TOKENS, True),
            ("x" * MAX_CHARS, 3, False),
            ("x" * (MAX_CHARS + 1), 3, True),
            ("🦜 שלום 你好 long", 6, False),
        ],
        ids=["empty", "whitespace", "NUL", "just fits", "one token too many", "longest text", "one character more", "Unicode"],
    )
    def test_truncated_is_exact(self, tokenizer: PromptTokenizer, prompt: str, tokens: int, truncated: bool) -> None:
        (encoded,) = tokenizer.encode([prompt])
        assert (len(encoded.token_ids), encoded.truncated) == (tokens, truncated)

    def test_a_lone_surrogate_is_refused_by_position_and_not_quoted(self, tokenizer: PromptTokenizer) -> None:
        with pytest.raises(InvalidRequestError, match=r"^prompt 1 is not valid Unicode: it holds a lone surrogate$"):
            tokenizer.encode(["fine", "secret \ud800"])

    def test_a_file_that_is_no_tokenizer_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_text("{}")
        with pytest.raises(BundleError, match="is not a tokenizer"):
            PromptTokenizer.from_file(tmp_path / "tokenizer.json", 16, 100)


@pytest.mark.parametrize("open_scorer", [OnnxScorer, OpenVinoScorer])
class TestSession:
    def test_scores_are_those_of_the_graph_whatever_shares_the_batch(
        self, tokenizer: PromptTokenizer, tiny_bundle: Path, open_scorer: OpenScorer
    ) -> None:
        scorer = open_scorer(open_bundle(tiny_bundle))
        prompts = ["long", "very very long", "short", "", "write short", "🦜"]
        together = scorer.score(tokenizer.encode(prompts))
        assert together.dtype == np.float32
        assert together.tolist() == [expected_score(prompt) for prompt in prompts]
        for prompt, score in zip(prompts, together, strict=True):
            assert scorer.score(tokenizer.encode([prompt])) == [score]

    def test_a_prompt_without_tokens_does_not_depend_on_its_neighbours(
        self, tiny_bundle: Path, open_scorer: OpenScorer
    ) -> None:
        scorer = open_scorer(open_bundle(tiny_bundle))
        nothing = TokenizedPrompt(np.zeros(0, dtype=np.int64), truncated=False)
        long = TokenizedPrompt(np.full(9, 5, dtype=np.int64), truncated=False)
        assert scorer.score([nothing])[0] == scorer.score([nothing, long])[0] == sidecar_tiny.WEIGHTS["[PAD]"]

    def test_the_inputs_of_the_graph_may_be_fewer_or_more(self, tmp_path: Path, open_scorer: OpenScorer) -> None:
        inputs = ["input_ids", "attention_mask", "token_type_ids"]
        folder = make_bundle(tmp_path / "bundle", graph=lambda path: make_graph(path, inputs=inputs))
        manifest = read_manifest(folder)
        manifest["input"]["inputNames"] = inputs
        write_manifest(folder, manifest)
        bundle = open_bundle(folder)
        scorer = open_scorer(bundle)
        assert scorer.score(PromptTokenizer.for_bundle(bundle).encode(["long"])) == [2.0]

    def test_other_inputs_than_the_manifest_says_are_refused(self, tmp_path: Path, open_scorer: OpenScorer) -> None:
        inputs = ["input_ids", "attention_mask", "token_type_ids"]
        bundle = open_bundle(make_bundle(tmp_path / "bundle", graph=lambda path: make_graph(path, inputs=inputs)))
        with pytest.raises(BundleError, match=r"has the inputs .*token_type_ids.* the manifest says"):
            open_scorer(bundle)

    def test_another_output_than_the_manifest_says_is_refused(self, tmp_path: Path, open_scorer: OpenScorer) -> None:
        bundle = open_bundle(make_bundle(tmp_path / "bundle", graph=lambda path: make_graph(path, output="scores")))
        with pytest.raises(BundleError, match=r"has the outputs \['scores'\], the manifest says 'logits'"):
            open_scorer(bundle)

    def test_a_file_that_is_no_graph_is_refused(self, tmp_path: Path, open_scorer: OpenScorer) -> None:
        bundle = open_bundle(make_bundle(tmp_path / "bundle", graph=lambda path: path.write_bytes(b"junk") and None))
        with pytest.raises(BundleError, match=r"model\.onnx cannot be loaded by (ONNX Runtime|OpenVINO)"):
            open_scorer(bundle)

    @pytest.mark.parametrize(
        ("graph", "message"),
        [
            (lambda path: make_constant_graph(path, [[np.nan]]), "a score that is not finite"),
            (lambda path: make_constant_graph(path, [[1.0, 2.0]]), r"returned shape \[1, 2\] for 1 prompts"),
            (lambda path: make_constant_graph(path, 1.0), r"returned shape \[\] for 1 prompts"),
        ],
        ids=["NaN", "two columns", "no rows"],
    )
    def test_nonsense_from_the_graph_is_an_error(
        self,
        tmp_path: Path,
        tokenizer: PromptTokenizer,
        graph: Callable[[Path], None],
        message: str,
        open_scorer: OpenScorer,
    ) -> None:
        scorer = open_scorer(open_bundle(make_bundle(tmp_path / "bundle", graph=graph)))
        with pytest.raises(ModelError, match=message):
            scorer.score(tokenizer.encode(["long"]))

    def test_one_dimension_is_as_good_as_two(self, tmp_path: Path, tokenizer: PromptTokenizer, open_scorer: OpenScorer) -> None:
        bundle = open_bundle(make_bundle(tmp_path / "bundle", graph=lambda path: make_constant_graph(path, [4.0])))
        assert open_scorer(bundle).score(tokenizer.encode(["long"])) == [4.0]


def test_a_failing_run_does_not_quote_its_input(scorer: OnnxScorer) -> None:
    outside = TokenizedPrompt(np.array([987_654], dtype=np.int64), truncated=False)
    with pytest.raises(ModelError) as raised:
        scorer.score([outside])
    assert "987654" not in str(raised.value)


def make_constant_graph(path: Path, value: object) -> None:
    """A graph that returns the same whatever it is given."""
    constant = numpy_helper.from_array(np.array(value, dtype=np.float32), "constant")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["constant"], ["logits"])],
        "constant",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, constant.dims)],
        [constant],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


class TestProvider:
    def test_without_cuda_auto_and_cpu_give_cpu(self, tiny_bundle: Path) -> None:
        for provider in ("auto", "cpu"):
            assert OnnxScorer(open_bundle(tiny_bundle), provider).provider == CPU

    def test_cuda_is_refused_by_a_wheel_without_it(self, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(session.onnxruntime, "get_available_providers", lambda: [CPU])
        with pytest.raises(ProviderError, match=r"built without CUDA; install pars-sidecar\[gpu\]"):
            OnnxScorer(open_bundle(tiny_bundle), "cuda")

    @pytest.fixture
    def dead_cuda(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A wheel that lists CUDA on a machine without a GPU: the session comes back as a CPU one."""
        monkeypatch.setattr(session.onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
        create = session._create_session
        monkeypatch.setattr(session, "_create_session", lambda bundle, providers, threads: create(bundle, [CPU], threads))

    @pytest.mark.usefixtures("dead_cuda")
    def test_cuda_never_falls_back_silently(self, tiny_bundle: Path) -> None:
        with pytest.raises(ProviderError, match="could not use the GPU"):
            OnnxScorer(open_bundle(tiny_bundle), "cuda")

    @pytest.mark.usefixtures("dead_cuda")
    def test_auto_falls_back_with_one_log_line(self, tiny_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
        assert OnnxScorer(open_bundle(tiny_bundle), "auto").provider == CPU
        assert [record.getMessage() for record in caplog.records] == [
            "CUDA is built in but cannot be used on this machine: serving on the CPU"
        ]

    @pytest.mark.parametrize("provider", ["auto", "cuda"])
    def test_a_session_that_got_cuda_is_kept(
        self, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, provider: session.ProviderChoice
    ) -> None:
        asked: list[object] = []

        def create(bundle: object, providers: list[object], threads: int) -> object:
            asked.extend(providers)
            nodes = [SimpleNamespace(name=name) for name in ("input_ids", "attention_mask")]
            return SimpleNamespace(
                get_providers=lambda: [CUDA, CPU],
                get_inputs=lambda: nodes,
                get_outputs=lambda: [SimpleNamespace(name="logits")],
            )

        monkeypatch.setattr(session.onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
        monkeypatch.setattr(session, "_create_session", create)
        # The provider is loaded with the first session: CUDA's wheels must have been by then.
        monkeypatch.setattr(session.onnxruntime, "preload_dlls", lambda: asked.append("preloaded"))
        assert OnnxScorer(open_bundle(tiny_bundle), provider).provider == CUDA
        assert asked.pop(0) == "preloaded"
        assert asked == [(CUDA, session.CUDA_OPTIONS), CPU]

    def test_two_runtimes_at_once_are_refused(self, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(session, "_is_installed", lambda name: True)
        with pytest.raises(
            ProviderError, match=r"both installed.*uninstall both.*pars-sidecar\[serve\] or pars-sidecar\[gpu\]"
        ):
            OnnxScorer(open_bundle(tiny_bundle))


class TestGolden:
    def test_a_good_bundle_replays(self, tiny_bundle: Path) -> None:
        bundle = open_bundle(tiny_bundle)
        replay(bundle, OnnxScorer(bundle), "score")

    @pytest.mark.parametrize("column", ["score", "ngramScore"])
    def test_a_score_that_moved_stops_the_start(self, own_bundle: Path, column: str) -> None:
        manifest = read_manifest(own_bundle)
        manifest["goldenPrompts"][0][column] += 0.01
        write_manifest(own_bundle, manifest)
        name = {"score": "score", "ngramScore": "ngram_score"}[column]
        with pytest.raises(
            WarmUpError, match=rf"golden prompt 0: {name} is .* the difference 0.01 exceeds the tolerance 0.0001"
        ):
            Ranker.load(own_bundle, "cpu", 1)

    def test_a_model_that_fails_stops_the_start(self, tmp_path: Path) -> None:
        folder = make_bundle(tmp_path / "bundle", graph=lambda path: make_constant_graph(path, [[np.nan]]))
        with pytest.raises(
            WarmUpError, match="golden prompt 0 cannot be scored: the graph returned a score that is not finite"
        ):
            Ranker.load(folder, "cpu", 1)

    def test_each_is_scored_alone(self, own_bundle: Path) -> None:
        manifest = read_manifest(own_bundle)
        manifest["goldenPrompts"] = manifest["goldenPrompts"] * 3
        write_manifest(own_bundle, manifest)
        bundle = open_bundle(own_bundle)
        sizes: list[int] = []

        class Counting(OnnxScorer):
            def score(self, batch: object) -> object:  # type: ignore[override]
                sizes.append(len(batch))  # type: ignore[arg-type]
                return super().score(batch)  # type: ignore[arg-type]

        replay(bundle, Counting(bundle), "score")
        assert sizes == [1, 1, 1]


def test_the_ngram_scorer_is_the_shared_one(tokenizer: PromptTokenizer, tiny_bundle: Path) -> None:
    weights = open_bundle(tiny_bundle).ngram_weights
    assert weights is not None
    batch = tokenizer.encode(["write very long", "", "short"])
    scores = NgramScorer(weights).score(batch)
    assert scores.dtype == np.float32
    assert scores.tolist() == [np.float32(ngram.score(prompt.token_ids, weights)) for prompt in batch]


def test_calibration_is_linear_between_knots_and_flat_outside() -> None:
    calibrator = Calibrator(
        bundle_pb2.Calibration(
            scores=[0, 1, 3], quantiles=[0, 0.5, 1], expected_tokens=[10, 20, 20], expected_tokens_p90=[10, 40, 50]
        )
    )
    quantiles, expected, p90 = calibrator.apply(np.array([-9, 0.5, 1, 2, 9], dtype=np.float32))
    assert quantiles.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert expected.tolist() == [10, 15, 20, 20, 20]
    assert p90.tolist() == [10, 25, 40, 45, 50]


def test_the_cost_model_is_found_from_exact_times() -> None:
    tokens = [8, 32, 128, 256]
    cost = cost_model.fit(tokens, [2.5 + 0.21 * count for count in tokens])
    assert cost.fixed_ms == pytest.approx(2.5)
    assert cost.per_token_ms == pytest.approx(0.21)


def test_the_cost_model_has_floors_for_noise() -> None:
    cost = cost_model.fit([8, 32, 128], [3.0, 2.0, 1.0])
    assert cost.per_token_ms == cost_model.MIN_PER_TOKEN_MS
    assert cost_model.fit([8, 128], [0.001, 1.0]).fixed_ms == cost_model.MIN_FIXED_MS
    assert cost_model.fit([8, 128], [0.0, 0.0]).fixed_ms > 0


def test_the_cost_model_is_measured_in_bounded_time() -> None:
    now = 0
    runs: list[tuple[int, int]] = []

    class SlowScorer:
        def score(self, batch: list[TokenizedPrompt]) -> np.ndarray:
            nonlocal now
            longest = max(len(prompt.token_ids) for prompt in batch)
            runs.append((len(batch), longest))
            now += int((50 + 2 * len(batch) * longest) * 1e6)
            return np.zeros(len(batch), dtype=np.float32)

    cost = cost_model.measure(SlowScorer(), 128, clock=lambda: now)
    assert cost.fixed_ms == pytest.approx(50)
    assert cost.per_token_ms == pytest.approx(2)
    assert runs.count((1, 8)) == 2  # 66 ms each: a third would begin after 80 ms
    assert runs.count((8, 16)) == 1
    assert max(longest for _, longest in runs) == 128
