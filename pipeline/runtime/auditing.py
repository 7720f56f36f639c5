"""The worker's own audit, now and then: what it finds is a metric and a line in the log."""

import logging
from contextlib import closing

from pipeline.errors import StoreError
from pipeline.settings import Settings
from sinks.clickhouse.audit import audit
from sinks.clickhouse.client import connect
from sinks.prometheus import Metrics

logger = logging.getLogger(__name__)


def audit_into(settings: Settings, metrics: Metrics) -> None:
    """Audit on a connection of its own and set the metric; a ClickHouse that is away leaves it as it was. Blocks."""
    try:
        with closing(connect(settings.clickhouse)) as client:
            report = audit(client)
    except StoreError as error:
        logger.warning("the audit was not possible", extra={"error": str(error)})
        return
    metrics.audit_findings.set(len(report.findings))
    for finding in report.findings:
        logger.error("audit finding", extra={"check": finding.check, "where": finding.where, "words": finding.words})
