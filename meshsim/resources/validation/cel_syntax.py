"""Whether an expression is CEL, and what CEL's parser says when it is not (the grammar of the CEL language definition).

How this works: a table of tokens and a recursive descent over them that builds nothing. What is no token is an error and passed over, as
CEL's lexer does it; the first token that does not fit ends the matter.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)"""
    r"""|(?P<raw>(?:[bB]?[rR]|[rR][bB]?)(?:'''.*?'''|\"\"\".*?\"\"\"|'[^'\n]*'|"[^"\n]*"))"""
    r"""|(?P<text>[bB]?(?:'''(?:\\.|[^\\])*?'''|\"\"\"(?:\\.|[^\\])*?\"\"\"|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"))"""
    r"""|(?P<number>0x[0-9a-fA-F]+[uU]?|\d+\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\d+[uU]?|\.\d+(?:[eE][-+]?\d+)?)"""
    r"""|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"""
    r"""|(?P<sign>==|!=|<=|>=|&&|\|\||[-\[\]{}().,!?:+*/%<>])""",
    re.VERBOSE | re.DOTALL,
)
_UNFINISHED = re.compile(r"""[=&|].?|['"][^\n]*\n?""", re.DOTALL)  # begins like a token, and the next character does not belong to it
_OPERAND = (
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
)
_AFTER = "{<EOF>, '==', '!=', 'in', '<', '<=', '>=', '>', '&&', '||', '[', '{', '.', '-', '?', '+', '*', '/', '%'}"
_RESERVED = frozenset((
    "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package", "namespace", "return", "var",
    "void", "while",
))  # fmt: skip
_END = "<EOF>"
_BINARY = frozenset(("||", "&&", "<", "<=", ">=", ">", "==", "!=", "in", "+", "-", "*", "/", "%"))
"""Which of them binds first is no matter of syntax."""
_MAX_DEPTH = 150


class _Wrong(Exception):
    def __init__(self, at: int, said: str):
        self.at, self.said = at, said


def syntax_error(expression: str) -> str | None:
    """The parser's errors, each with the line and a mark below it, or None."""
    wrong: list[_Wrong] = []
    tokens = _tokens(expression, wrong)
    try:
        _Parser(tokens).run()
    except _Wrong as error:
        wrong.append(error)
    wrong.sort(key=lambda error: error.at)
    return "\n".join(_show(expression, error) for error in wrong) or None


def _show(expression: str, wrong: _Wrong) -> str:
    before = expression[: wrong.at]
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1)
    text = expression.split("\n")[line - 1]
    return f"ERROR: <input>:{line}:{column + 1}: {wrong.said}\n | {text}\n | {'.' * column}^"


def _tokens(expression: str, wrong: list[_Wrong]) -> list[tuple[str, str, int]]:
    out, at = [], 0
    while at < len(expression):
        found = _TOKEN.match(expression, at)
        if found is None:
            bad = _UNFINISHED.match(expression, at) or expression[at]
            text = bad if isinstance(bad, str) else bad[0]
            wrong.append(_Wrong(at, f"Syntax error: token recognition error at: '{text}'"))
            at += len(text)
            continue
        if found.lastgroup != "space":
            out.append(("text" if found.lastgroup == "raw" else str(found.lastgroup), found[0], at))
        at = found.end()
    out.append(("end", _END, len(expression)))
    return out


class _Parser:
    def __init__(self, tokens: list[tuple[str, str, int]]):
        self._tokens, self._at, self._depth = tokens, 0, 0

    def run(self) -> None:
        self._expression()
        if self._token() == _END:
            return
        _, text, at = self._tokens[self._at]
        if self._tokens[self._at + 1][1] == _END:
            raise _Wrong(at, f"Syntax error: extraneous input '{text}' expecting {_END}")
        raise self._mismatch(_AFTER)

    def _token(self) -> str:
        kind, text, _ = self._tokens[self._at]
        return text if kind != "text" else "<text>"

    def _mismatch(self, expected: str) -> _Wrong:
        _, text, at = self._tokens[self._at]
        return _Wrong(at, f"Syntax error: mismatched input '{text}' expecting {expected}")

    def _take(self, text: str) -> bool:
        if self._token() != text:
            return False
        self._at += 1
        return True

    def _expect(self, text: str) -> None:
        if not self._take(text):
            _, found, at = self._tokens[self._at]
            raise _Wrong(at, f"Syntax error: missing '{text}' at '{found}'")

    def _expression(self) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _Wrong(self._tokens[self._at][2], "Syntax error: expression recursion limit exceeded: 250")
        self._operands()
        if self._take("?"):
            self._operands()
            self._expect(":")
            self._expression()
        self._depth -= 1

    def _operands(self) -> None:
        self._unary()
        while self._token() in _BINARY:
            self._at += 1
            self._unary()

    def _unary(self) -> None:
        while self._token() in ("!", "-"):
            self._at += 1
        self._primary()
        while True:
            if self._take("."):
                self._take("?")
                self._name()
                if self._take("("):
                    self._arguments(")")
            elif self._take("["):
                self._take("?")
                self._expression()
                self._expect("]")
            elif self._token() == "{" and self._tokens[self._at - 1][0] == "name":
                self._at += 1
                self._entries(self._name)
            else:
                return

    def _primary(self) -> None:
        kind, text, at = self._tokens[self._at]
        if kind in ("number", "text"):
            self._at += 1
        elif text == "(":
            self._at += 1
            self._expression()
            self._expect(")")
        elif text == "[":
            self._at += 1
            self._arguments("]")
        elif text == "{":
            self._at += 1
            self._entries(self._expression)
        elif kind == "name" or text == ".":
            self._take(".")
            if text in _RESERVED:
                raise _Wrong(at, f"reserved identifier: {text}")
            self._name()
            if self._take("("):
                self._arguments(")")
        else:
            raise self._mismatch(_OPERAND)

    def _name(self) -> None:
        kind, text, at = self._tokens[self._at]
        if kind != "name" or text == "in":
            raise _Wrong(at, "Syntax error: no viable alternative at input '.'" if self._at and self._tokens[self._at - 1][1] == "."
                         else f"Syntax error: mismatched input '{text}' expecting IDENTIFIER")
        self._at += 1

    def _arguments(self, end: str) -> None:
        if self._take(end):
            return
        while True:
            self._expression()
            if self._take(end):
                return
            self._expect(",")
            if end == "]" and self._take(end):
                return

    def _entries(self, key: object) -> None:
        """The inside of `{...}`: fields of a message, or entries of a map."""
        while not self._take("}"):
            self._take("?")
            if key == self._name:
                self._name()
            else:
                self._expression()
            self._expect(":")
            self._expression()
            if not self._take(","):
                self._expect("}")
                return
