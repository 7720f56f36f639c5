"""The rules and catalogues that the folds know: the worker's own, those in receipts, those that markers ask for."""

import logging
from typing import Final

from pipeline.catalogue import Catalogue
from pipeline.fold.records import RecordBatch
from pipeline.fold.resume import ResumePoint
from pipeline.fold.rules import Rules
from pipeline.fold.segment import wanted_rules
from streams.interfaces import ResultSink

logger = logging.getLogger(__name__)

_REFUSED: Final = 1_000
"""Anybody may write markers that ask for nonsense; so many are remembered so as not to ask for them again."""


class KnownRules:
    """Learns from the sink. The mappings are shared with the folds and only grow. What blocks runs in its thread.

    Attributes:
        by_text: rules by their text, as markers name them.
        catalogues: by version, of all rules that are known.
    """

    def __init__(self, sink: ResultSink, rules: Rules, catalogue: Catalogue) -> None:
        self.by_text = {rules.to_json(): rules}
        self.catalogues = {catalogue.version: catalogue}
        self._sink = sink
        self._refused: set[str] = set()

    def missing(self, batch: RecordBatch) -> set[str]:
        """What markers in the batch ask for and was not met before."""
        return wanted_rules(batch) - self.by_text.keys() - self._refused

    def learn(self, text: str) -> None:
        """Look up rules that a marker asks for; those that no worker ever had are refused. Blocks.

        Raises:
            StoreError: ClickHouse is away.
        """
        rules = self._sink.known_rules(text)
        if rules is None:
            logger.warning("a marker asks for rules that no worker ever had; it only ends its segment")
            if len(self._refused) >= _REFUSED:
                self._refused.clear()
            self._refused.add(text)
            return
        self._need_catalogue(rules)
        self.by_text[text] = rules

    def learn_from(self, point: ResumePoint) -> None:
        """Get the catalogues of all rules that the receipts of a partition name. Blocks.

        Raises:
            StoreError: ClickHouse is away.
        """
        for rules in [*point.opened.values(), *([point.inherited] if point.inherited else [])]:
            self._need_catalogue(rules)

    def _need_catalogue(self, rules: Rules) -> None:
        if rules.catalogue_version not in self.catalogues:
            self.catalogues[rules.catalogue_version] = self._sink.catalogue(rules.catalogue_version)
