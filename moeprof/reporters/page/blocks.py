"""The blocks of the page: those of the linear documents, figures, and the answer."""

from dataclasses import dataclass

from moeprof.reporters.documents.answer import RunAnswer
from moeprof.reporters.documents.document import Block
from moeprof.reporters.page.figure import Figure


@dataclass(frozen=True)
class AnswerBlock:
    """The answer of a run: its sentence, its key numbers, whether they can be relied on, and what would change it."""

    answer: RunAnswer


PageBlock = Block | Figure | AnswerBlock
