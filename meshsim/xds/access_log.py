"""Access loggers: where a line goes, in which format, and which entries get one."""

from __future__ import annotations

from typing import Any as Json

import msgspec

from meshsim.xds.message import TYPE, Message, TypedMessage


class SubstitutionFormatString(Message):
    text_format_source: TextFormat | None = None
    json_format: dict[str, Json] | None = None
    omit_empty_values: bool = False
    json_format_options: dict[str, Json] | None = None
    formatters: list[dict[str, Json]] = []


class TextFormat(Message):
    inline_string: str = ""


class FileAccessLog(TypedMessage, tag=TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog"):
    path: str
    log_format: SubstitutionFormatString | None = None


class StdoutAccessLog(TypedMessage, tag=TYPE + "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"):
    log_format: SubstitutionFormatString | None = None


class ExpressionFilter(TypedMessage, tag=TYPE + "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"):
    """A CEL expression over Envoy's attributes (Telemetry `filter.expression`)."""

    expression: str = ""


class ResponseFlagFilter(Message):
    flags: list[str] = []


class ExtensionFilter(Message):
    name: str
    typed_config: ExpressionFilter


class AccessLogFilter(Message):
    response_flag_filter: ResponseFlagFilter | None = None
    extension_filter: ExtensionFilter | None = None
    and_filter: FilterList | None = None
    or_filter: FilterList | None = None


class FilterList(Message):
    filters: list[AccessLogFilter] = msgspec.field(default_factory=list)


class AccessLog(Message):
    name: str
    typed_config: FileAccessLog | StdoutAccessLog
    filter: AccessLogFilter | None = None
