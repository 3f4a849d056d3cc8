"""Continuous batching as vLLM V1 does it, simulated: what an order of requests is worth, without an engine.

Everything here is simulated and says so. In the order in which a request passes through it:

    request        what is sent, what a ranker says of it, and what became of it
    arrivals, traces   when requests arrive, and how long they are
    rankers        who estimates response lengths: recorded, oracle, of a given tau, nobody
    hook           the hook's part: gate, time to ask, and the priority, by the policies of vllm_client themselves
    disciplines    in what order an engine takes jobs, behind one small protocol; remaining: how much is left, as far as one can know
    waiting        the queue of the waiting, in that order
    decoding       the jobs that make a token in every step, known by their sums
    step_model     how long a step takes
    engine         one engine: slots, KV blocks, token budget, preemption; jumps over steps in which nothing changes
    simulate       requests through hooks and engines, one or a fleet
    figures        what happened, in the figures of the real benchmark

    recorded, fit, validation    the real runs, a step model from some of them, and how far off the others are
    studies        what is simulated for benchmarks/results/simulator.json
"""
