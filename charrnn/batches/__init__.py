"""Windows for truncated backpropagation: lanes of one long text, and padded documents."""

from charrnn.batches.documents import DocumentBatches, document_windows
from charrnn.batches.evaluation import evaluation_windows
from charrnn.batches.lanes import Lanes, fit_window
from charrnn.batches.window import IGNORE, Window

__all__ = [
    "IGNORE",
    "DocumentBatches",
    "Lanes",
    "Window",
    "document_windows",
    "evaluation_windows",
    "fit_window",
]
