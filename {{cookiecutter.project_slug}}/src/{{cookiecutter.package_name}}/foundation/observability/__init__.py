"""Request ids, logs, metrics, traces and error reports."""

from .logs import bind, request_id

__all__ = ["bind", "request_id"]
