"""Measurements of the whole: ratios taken side by side in one run. Not shipped in the wheel.

What is measured, a folder each: bench_overhead, bench_overload, soak, gpu, bench_hook, bench_vllm, simulator, quality, chain; peers: other
servers to compare with. results: what came out; page, quoted: how it gets into the documents. The files here are what they share.
"""
