"""Error reports for Sentry. Imported only where SENTRY_DSN is set: its package may be absent."""

from typing import Any

import sentry_sdk
from flask import has_request_context, request
from sentry_sdk.integrations.atexit import AtexitIntegration
from sentry_sdk.integrations.excepthook import ExcepthookIntegration
from sentry_sdk.integrations.logging import ignore_logger

from .logs import request_id


def start(dsn: str) -> None:
    """Send logged errors to Sentry: bugs, forgotten commits, failed teardowns."""
    sentry_sdk.init(
        dsn,
        before_send=_name_request,
        # Every error is logged, so nothing needs patching.
        auto_enabling_integrations=False,
        # Otherwise it writes lines to the log that are not JSON.
        integrations=[AtexitIntegration(callback=lambda pending, timeout: None)],
        # Otherwise an error in a stream is reported twice, once without its request.
        disabled_integrations=[ExcepthookIntegration],
        # Local variables contain client data and keys.
        include_local_variables=False,
    )
    ignore_logger("gunicorn.error")


def _name_request(report: Any, hint: object) -> Any:
    """Add the request's id, method and route to a report, but no query string, headers or body."""
    report.setdefault("tags", {})["request_id"] = request_id.get()
    if has_request_context():
        report["request"] = {"method": request.method, "url": request.base_url}
        report["transaction"] = request.url_rule.rule if request.url_rule else ""
    return report
