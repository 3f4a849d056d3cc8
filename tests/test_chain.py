"""The one test: a prompt's whole way, with the real parts. Train, export, serve as a process, score, turn into priorities."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from statistics import fmean

from corpus import TOPICS
from scipy.stats import kendalltau

from trainer.checkpoint import read_checkpoint
from vllm_client import ClientConfig, RankerClient, Tier, vllm_priority


def test_from_records_to_priority(tmp_path: Path, tiny_run: Path) -> None:
    """1. A ranker was trained on the corpus (fixture). 2. Export it with the command line. 3. Serve the bundle in a process of its
    own. 4. Score prompts nobody trained on, short and long answers mixed. 5. The scores are the checkpoint's own, the order is that
    of the expected lengths, and the short ones get the smaller priority. 6. SIGTERM ends the process cleanly."""
    checkpoint = tiny_run / "checkpoint"
    bundle = tmp_path / "bundle"
    subprocess.run([sys.executable, "-m", "exporter", str(checkpoint), "--out", str(bundle)], timeout=100, check=True)
    address = f"unix:{tmp_path}/pars.sock"
    server = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "--bundle", str(bundle), "--address", address],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        short = [f"Name one example of {topic} and {topic}, number 2026" for topic in TOPICS]
        long = [f"Write a long and detailed essay about {topic} and {topic}, number 2026" for topic in TOPICS]
        prompts = [prompt for pair in zip(long, short, strict=True) for prompt in pair]
        with RankerClient(ClientConfig(address=address, deadline_ms=20_000)) as client:
            client.wait_until_serving(60)
            batch = client.score(prompts)
            cheap = client.score(prompts, tier=Tier.NGRAM)
            manifest = client.get_bundle().manifest
    finally:
        server.send_signal(signal.SIGTERM)
        log = server.communicate(timeout=30)[1]
    assert server.returncode == 0, log
    assert batch.bundle_id == manifest.bundle_id
    trained = read_checkpoint(checkpoint)
    own = trained.ranker.score(trained.ranker.tokenize(prompts))
    assert max(abs(own - [score.score for score in batch.scores])) < 1e-5
    essay, name = (slice(0, None, 2), slice(1, None, 2))
    assert min(score.score for score in batch.scores[essay]) > max(score.score for score in batch.scores[name])
    assert min(score.expected_tokens for score in batch.scores[essay]) > 150
    assert max(score.expected_tokens for score in batch.scores[name]) < 50
    # The cheap tier is weaker: right on the whole, not for every word it has not met.
    assert fmean(score.quantile for score in cheap.scores[essay]) > fmean(score.quantile for score in cheap.scores[name]) + 0.3
    assert {score.tier for score in cheap.scores} == {Tier.NGRAM}
    priorities = [vllm_priority(score.quantile, arrival_ms=1_000, window_ms=60_000) for score in batch.scores]
    assert max(priorities[name]) < min(priorities[essay]), "in vLLM the smaller number runs earlier: short answers first"
    assert kendalltau([score.quantile for score in batch.scores], priorities).statistic > 0.99
    assert "Write a long" not in log, "prompts do not appear in logs"
