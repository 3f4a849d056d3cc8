"""What there is to see of a running sidecar, for machines and people: metrics, traces, logs.

The engine and all below it tell a `sidecar.observer.Observer`; RPCs are watched from outside, see `observed`. `telemetry` opens what the
settings ask for.
"""
