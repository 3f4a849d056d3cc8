"""Ray Serve with its request batching: `python -m benchmarks.peers.ray_serve --checkpoint FOLDER --port PORT`.

A head node of its own, without dashboard and usage reports, and two replicas with one core each.
"""

import asyncio
import os
import secrets
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import ray
import torch
from ray import serve
from ray.serve.config import HTTPOptions
from starlette.requests import Request

from benchmarks.peers import flags
from benchmarks.peers.classifier import Classifier

REPLICAS = 2
"""One for each of two cores."""

BATCH_PROMPTS = 8
"""As in benchmarks.peers.mosec."""

WAIT_S = 0.002
"""For more prompts to join a batch, as in benchmarks.peers.mosec. The default is 10 ms."""

ONGOING_REQUESTS = 64
"""At a replica. The default of 5 would keep a batch from filling up."""

OBJECT_STORE_BYTES = 100 * 2**20
"""Nothing of ours is kept there. The default is a third of the memory."""


@serve.deployment(num_replicas=REPLICAS, ray_actor_options={"num_cpus": 1}, max_ongoing_requests=ONGOING_REQUESTS)
class Scorer:
    def __init__(self, checkpoint: Path, max_tokens: int) -> None:
        torch.set_num_threads(1)
        self._classifier = Classifier(checkpoint, max_tokens)

    @serve.batch(max_batch_size=BATCH_PROMPTS, batch_wait_timeout_s=WAIT_S)
    async def score(self, prompts: list[str]) -> list[float]:
        return self._classifier.score(prompts)

    async def __call__(self, request: Request) -> dict[str, Any]:
        prompts = (await request.json())["prompts"]
        return {"scores": await asyncio.gather(*map(self.score, prompts))}


def main() -> None:
    given = flags.parse()
    # A token of its own: Ray would write one into the home folder and leave it there.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_TOKEN": secrets.token_hex()}
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        ray.init(
            num_cpus=REPLICAS,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address=flags.HOST,
            _temp_dir=folder,
        )
        serve.start(http_options=HTTPOptions(host=flags.HOST, port=given.port))
        deployment: Any = Scorer  # the decorator has made something else of the class
        serve.run(deployment.bind(given.checkpoint, given.max_tokens), route_prefix="/score")
        # After ray.init, which sets its own.
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        ended.wait()
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
