"""Whether Go's regexp (RE2) would compile an expression, and what it says when it would not.

Envoy and Istio use RE2: no look-around, no back-references, at most 1000 repetitions. Python's own parser finds the other mistakes.
"""

from __future__ import annotations

import re
import warnings

from meshsim.resources.validation.golang import quote

_UNSUPPORTED = re.compile(r"\(\?(?:[=!]|<[=!]|#|>|\(|P=)")
_REPEAT = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_ESCAPE = re.compile(r"\\(?:[1-9]|[uUNZcehyijlmogqHIJKLMOTVXYGRkE]|p(?!\{|[A-Z])|P(?!\{|[A-Z]))")
_POSSESSIVE = re.compile(r"(?<!\\)(?:[*+?]|\{\d+(?:,\d*)?\})(?:\*|\+|\{\d)")


def regex_error(text: str) -> str | None:
    """`error parsing regexp: ...`, or None."""
    said = _error(text)
    return said and f"error parsing regexp: {said}"


def _error(text: str) -> str | None:
    bare = _blank_classes(text)
    if found := _UNSUPPORTED.search(bare):
        return f"invalid or unsupported Perl syntax: `{found[0]}`"
    if found := re.search(r"(?<!\\)(?:\\\\)*" + f"({_ESCAPE.pattern})", text):
        return f"invalid escape sequence: `{found[1]}`"
    for found in _REPEAT.finditer(bare):
        low, high = int(found[1]), int(found[2]) if found[2] else None
        if low > 1000 or (high or 0) > 1000 or (high is not None and high < low):
            return f"invalid repeat count: `{found[0]}`"
    if found := _POSSESSIVE.search(bare):
        return f"invalid nested repetition operator: `{found[0]}`"
    return _python_error(text)


def _blank_classes(text: str) -> str:
    """The expression with escaped characters and the contents of `[...]` made harmless, its length unchanged."""
    text = re.sub(r"\\.", "__", text, flags=re.DOTALL)
    return re.sub(r"\[\^?\]?[^\]]*\]", lambda m: "_" * len(m[0]), text)


def _python_error(text: str) -> str | None:
    given = re.sub(r"\\[pP](?:\{\^?\w+\}|[A-Z])", "a", text).replace("\\z", "$").replace("\\C", ".")
    given = re.sub(r"\[\[:\^?\w+:\]", "[a", given)
    given = re.sub(r"\(\?<(?![=!])", "(?P<", given)
    given = re.sub(r"\(\?([a-zA-Z]*)U([a-zA-Z]*)", r"(?\1\2", given)
    given = re.sub(r"(?<!^)\(\?[imsU]+\)", "", given)
    given = re.sub(r"\\Q(.*?)(?:\\E|$)", lambda m: re.escape(m[1]), given)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(given)
    except (re.error, OverflowError, RecursionError) as e:
        return _go_words(text, e)
    return None


def _go_words(text: str, error: Exception) -> str:
    said = str(error)
    at = getattr(error, "pos", 0) or 0
    if "unterminated character set" in said:
        return f"missing closing ]: `{text[text.rfind('[', 0, at + 1) if '[' in text else 0:]}`"
    if "missing )" in said or "unterminated subpattern" in said:
        return f"missing closing ): `{text}`"
    if "unbalanced parenthesis" in said:
        return f"unexpected ): `{text}`"
    if "nothing to repeat" in said:
        operator = re.match(r"\{\d+(?:,\d*)?\}|.", text[at:])
        return f"missing argument to repetition operator: `{operator[0] if operator else ''}`"
    if "multiple repeat" in said:
        return f"invalid nested repetition operator: `{text[max(0, at - 1) : at + 1]}`"
    if "bad escape (end of pattern)" in said:
        return "trailing backslash at end of expression: ``"
    if "bad character range" in said:
        return f"invalid character class range: `{said.split()[3]}`"
    if "bad escape" in said:
        return f"invalid escape sequence: `{text[at : at + 2]}`"
    if "unknown extension" in said or "flag" in said:
        return f"invalid or unsupported Perl syntax: `{text[at - 1 if at else 0 : at + 2]}`"
    return f"invalid expression: {quote(text)}"
