"""mosec with dynamic batching: `python -m benchmarks.peers.mosec --checkpoint FOLDER --port PORT`.

After mosec's own example for a BERT classifier: one process tokenises, others run PyTorch on the batches that mosec gathers. Unlike
the example it tells the model which tokens are padding; without that, scores depend on the batch.
"""

import os
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from mosec import Server, Worker
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.peers import flags

WORKERS = 2
"""One for each of two cores, with one thread each."""

BATCH_REQUESTS = 8
"""Of one prompt mostly: the batch size at which the bare session is fastest on two cores, see overhead.json."""

WAIT_MS = 2
"""For more requests to join a batch. The default of 10 ms would be a lone caller's whole latency again."""

TIMEOUT_MS = 30_000
"""The default of 3 s would end slow answers that are to be measured."""


class Tokenize(Worker):
    """{"prompts": […]} → the token ids of each."""

    def __init__(self) -> None:
        super().__init__()
        given = flags.parse()
        self._max_tokens = given.max_tokens
        self._tokenizer = AutoTokenizer.from_pretrained(given.checkpoint)

    def forward(self, data: dict[str, list[str]]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(data["prompts"], truncation=True, max_length=self._max_tokens)["input_ids"]
        return ids


class Infer(Worker):
    """The prompts of several requests in one forward."""

    def __init__(self) -> None:
        super().__init__()
        torch.set_num_threads(1)
        self._model = AutoModelForSequenceClassification.from_pretrained(flags.parse().checkpoint, dtype=torch.float32).eval()

    def forward(self, data: Sequence[list[list[int]]]) -> list[dict[str, Any]]:
        prompts = [torch.tensor(ids) for request in data for ids in request]
        ids = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True, padding_value=self._model.config.pad_token_id)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(each) for each in prompts], batch_first=True)
        with torch.no_grad():
            scores = self._model(input_ids=ids, attention_mask=mask).logits.squeeze(-1).tolist()
        ends = accumulate(map(len, data), initial=0)
        return [{"scores": scores[start:end]} for start, end in pairwise(ends)]


def main() -> None:
    given = flags.parse()
    # mosec reads its settings from the same command line and from here.
    os.environ |= {"MOSEC_ADDRESS": flags.HOST, "MOSEC_PORT": str(given.port), "MOSEC_TIMEOUT": str(TIMEOUT_MS)}
    os.environ["MOSEC_LOG_LEVEL"] = "warning"
    server = Server()
    server.append_worker(Tokenize)
    server.append_worker(Infer, num=WORKERS, max_batch_size=BATCH_REQUESTS, max_wait_time=WAIT_MS)
    server.run()


if __name__ == "__main__":
    main()
