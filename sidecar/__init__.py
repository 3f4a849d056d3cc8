"""The sidecar: a bundle folder comes in, `pars.v1.RankerService` over gRPC goes out.

The way of a prompt: server → servicer → engine (permits, tier_rule) → lane (tokenization) → runner (waiting, batching, load) → session, or
ngram_scorer → calibration → reply.
The way of a bundle: bundle (verified) → session → golden → ranker → loading (cost_model) → rankers; reload does it again.
Beside them: access/ (who may call), telemetry/ (what is seen), health, signals, settings.

`python -m sidecar --bundle FOLDER` starts it. Never loads torch or transformers.
"""
