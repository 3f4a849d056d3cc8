"""Names of the losses, apart from their code: reading a configuration needs no PyTorch."""

SERVABLE = ("margin", "logistic", "soft_logistic", "regression", "margin_regression", "listmle", "heteroscedastic")
"""Those whose score is one output of the head: all that a checkpoint of the contract holds."""

LOSSES = (*SERVABLE, "buckets", "distribution")
"""The scores of the last two are computed from several outputs. They are for comparisons only."""
