"""Runs inside vLLM's environment: closed batches through `vllm_client.offline` and a real `LLM`. Writes what it saw as JSON.

python offline_program.py MODEL RESULT SCHEDULING_POLICY SIDECAR_ADDRESS ADDRESS_OF_NOBODY
"""

import json
import sys
from pathlib import Path
from typing import Any

from quantile_ranker import prompt
from vllm import LLM, SamplingParams

from vllm_client import ClientConfig
from vllm_client.offline import chat_in_order, generate_in_order, offline_plan

QUANTILES = [0.9, 0.1, 0.5, 0.7, 0.3, 0.0]


class Watched:
    """An LLM that runs one request at a time, and in what order its requests finish."""

    def __init__(self, model: str, scheduling_policy: str) -> None:
        self.llm = LLM(
            model,
            load_format="dummy",
            enforce_eager=True,
            dtype="float32",
            max_model_len=2048,
            max_num_seqs=1,
            scheduling_policy=scheduling_policy,
        )
        self.finished: list[int] = []
        step = self.llm.llm_engine.step

        def watched_step() -> list[Any]:
            outputs = step()
            self.finished += [answer_tokens(output) for output in outputs if output.finished]
            return outputs

        self.llm.llm_engine.step = watched_step

    def lengths_finished(self) -> list[int]:
        finished, self.finished = self.finished, []
        return finished


def tokens_for(quantile: float) -> int:
    """A length of its own for each quantile, by which an answer is known again."""
    return 3 + round(10 * quantile)


def params_for(quantile: float) -> SamplingParams:
    return SamplingParams(max_tokens=tokens_for(quantile), ignore_eos=True, temperature=0)


def answer_tokens(output: Any) -> int:
    return len(output.outputs[0].token_ids)


def main() -> None:
    model, result, policy, address, nobody = sys.argv[1:]
    config, absent = ClientConfig(address=address), ClientConfig(address=nobody)
    # Before there is an engine: vLLM forks, and a gRPC channel left open would not survive that.
    early = offline_plan(config, [prompt(quantile) for quantile in QUANTILES])
    watched = Watched(model, policy)
    llm, quiet = watched.llm, {"use_tqdm": False}
    params = [params_for(quantile) for quantile in QUANTILES]
    texts = [prompt(quantile, "a question") for quantile in QUANTILES]
    conversations = [[{"role": "system", "content": prompt(1 - q)}, {"role": "user", "content": prompt(q)}] for q in QUANTILES]
    runs: dict[str, Any] = {}

    def record(name: str, outputs: list[Any]) -> None:
        runs[name] = {"answers": [answer_tokens(output) for output in outputs], "finished": watched.lengths_finished()}

    record("plan", early.restored(llm.generate(early.prompts, early.arranged(params), priority=early.priorities, **quiet)))
    record("shortest", generate_in_order(llm, texts, params, client=config, **quiet))
    record("longest", generate_in_order(llm, texts, params, client=config, order="longest", **quiet))
    record("chat", chat_in_order(llm, conversations, params, client=config, **quiet))
    record("nobody", generate_in_order(llm, texts, params, client=absent, **quiet))

    forms = [{"prompt_token_ids": [5, 6, 7]}, texts[0], {"prompt": texts[1]}]
    form_params = [params_for(0.4), params[0], params[1]]
    record("forms", generate_in_order(llm, forms, form_params, client=config, **quiet))

    # The list begins with the longest, and everything is queued before anything runs: only priorities can turn it round.
    plan = offline_plan(config, texts)
    backwards = slice(None, None, -1)
    record(
        "priorities alone",
        llm.generate(plan.prompts[backwards], plan.arranged(params)[backwards], priority=plan.priorities[backwards], **quiet),
    )
    found = {"tokens": [tokens_for(quantile) for quantile in QUANTILES], "middling": tokens_for(0.4), "runs": runs}
    Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
