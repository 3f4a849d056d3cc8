"""`make bench-vllm`: what the order of requests brings on a real vLLM.

arms, plan             what is compared, at which loads, in which order
site, sources          where it runs, and what its runs depend on
tiny_llama, pacing     the model, and steps of equal length
process                a real `vllm serve`
rankers                who answers the hook; oracle_ranker: one who knows the lengths
bench_serve            the load: vLLM's own client
metrics, queue         what the engine says meanwhile
run, latency           one engine start under load, and engines side by side at low load
requests               what is kept of each single request
kept_runs, gathering   runs that are there, and the missing ones
figures, rows, report  a run → its figures → rows and ratios → the document
"""
