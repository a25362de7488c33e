"""How probable a text is under a model.

Log-probabilities are natural (nats) and float64; names say the base where it is another. Sums and
counts travel; a quotient is taken once, when it is asked for.
"""

from charrnn.scoring.batch import score_many
from charrnn.scoring.compare import Comparison, compare
from charrnn.scoring.details import END, UNKNOWN, CharScore, char_scores
from charrnn.scoring.lanes import LaneScore, score_lanes
from charrnn.scoring.logprobs import log_softmax, target_logprobs
from charrnn.scoring.pairs import Accuracy, Pair, judge, rank, read_pairs, wilson
from charrnn.scoring.score import Score
from charrnn.scoring.scorer import CHUNK, ON_UNKNOWN, Scorer, chunks, list_unknown
from charrnn.scoring.text import char_logprobs, score, score_blocks, score_pieces, scored
from charrnn.scoring.words import WordScore, word_scores

__all__ = [
    "CHUNK",
    "END",
    "ON_UNKNOWN",
    "UNKNOWN",
    "Accuracy",
    "CharScore",
    "Comparison",
    "LaneScore",
    "Pair",
    "Score",
    "Scorer",
    "WordScore",
    "char_logprobs",
    "char_scores",
    "chunks",
    "compare",
    "judge",
    "list_unknown",
    "log_softmax",
    "rank",
    "read_pairs",
    "score",
    "score_blocks",
    "score_lanes",
    "score_many",
    "score_pieces",
    "scored",
    "target_logprobs",
    "wilson",
    "word_scores",
]
