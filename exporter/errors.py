"""What can go wrong on the way to a bundle.

ExportError
├── GraphError   Optimum cannot export it, or the graph's names, axes or shapes are not what serving needs
└── ParityError  the graph runs but does not say what PyTorch says
"""


class ExportError(Exception):
    """Base of all. The message is meant for the person at the terminal."""


class GraphError(ExportError):
    """Optimum cannot export it, or the graph's names, axes or shapes are not what serving needs."""


class ParityError(ExportError):
    """The graph runs but does not say what PyTorch says."""
