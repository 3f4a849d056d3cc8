"""Names of the losses, apart from their code: reading a configuration needs no PyTorch."""

ONE_OUTPUT = ("margin", "logistic", "soft_logistic", "regression", "margin_regression", "listmle")
"""Those whose ranker is a checkpoint of the contract, with one output."""

LOSSES = (*ONE_OUTPUT, "buckets", "distribution")
"""The last two have heads of several outputs. They are for comparisons only."""
