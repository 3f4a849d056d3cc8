"""What a GPU brings: `benchmarks/gpu.sh` on a machine with an NVIDIA one, `python -m benchmarks.gpu --provider cpu --smoke` elsewhere."""
