"""The sidecar: a bundle folder comes in, `pars.v1.RankerService` over gRPC goes out.

The way of a prompt: servicer → engine (admission) → tokenizer lane → runner (batching) → session → calibration → reply.
`python -m sidecar --bundle FOLDER` starts it. Never loads torch or transformers.
"""
