"""`make bench-overhead`: what the sidecar costs beside its physical limit and beside other servers of the same weights.

cases          what is measured, as data
stage          the contenders, each in a process of its own
echo           one of them: gRPC with nothing behind it
ratios         rows of one run → the ratios that the targets are about
best_bundle    what a bundle of lower precision loses in order
"""
