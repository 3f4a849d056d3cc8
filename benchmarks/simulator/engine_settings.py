"""How large an engine is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """By vLLM's names. Raises ValueError for what no engine can be.

    kv_blocks: of block_tokens tokens each. async_scheduling: whether the next step is scheduled while one still runs, as vLLM does on
    GPUs and not on CPUs.
    """

    max_num_seqs: int
    max_num_batched_tokens: int = 2048
    kv_blocks: int = 65_536
    block_tokens: int = 16
    async_scheduling: bool = False

    def __post_init__(self) -> None:
        if min(self.max_num_seqs, self.kv_blocks, self.block_tokens) < 1 or self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(f"no engine has these settings: {self}")

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_tokens)
