"""The small languages inside of fields: regular expressions, CEL, addresses, durations."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsim.resources.shape import nanoseconds
from meshsim.resources.validation.addresses import is_ip, prefix_error
from meshsim.resources.validation.cel_syntax import syntax_error
from meshsim.resources.validation.golang import base64_error, number, quote, split_host_port
from meshsim.resources.validation.regexp import regex_error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("^/v[0-9]+/.*$", None),
        ("(?i)abc(?s:.)", None),
        ("(?P<n>a)(?<m>b)", None),
        (r"[]a\d\w-]+\.(css|js)", None),
        (r"\pL\p{Greek}[[:alpha:]]\x{10FFFF}\z", None),
        (r"\Qa.b(\E", None),
        ("a{,5}b{x", None),
        ("a||b()", None),
        ("a{2,5}?", None),
        ("(?!foo)", "invalid or unsupported Perl syntax: `(?!`"),
        ("(?<=a)b", "invalid named capture: `(?<=a)b`"),
        ("[a-", "missing closing ]: `[a-`"),
        ("[z-a]", "invalid character class range: `z-a`"),
        ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
        ("*a", "missing argument to repetition operator: `*`"),
        ("(|+)", "missing argument to repetition operator: `+`"),
        ("(?i)*", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a*?+", "invalid nested repetition operator: `*?+`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("a{2,1}", "invalid repeat count: `{2,1}`"),
        ("(a{100}){11}", "invalid repeat count: `{11}`"),
        ("(a", "missing closing ): `(a`"),
        ("a)", "unexpected ): `a)`"),
        (r"(a)\1", r"invalid escape sequence: `\1`"),
        ("\\", "trailing backslash at end of expression: ``"),
    ],
)
def test_regular_expressions_are_re2s(text: str, said: str | None) -> None:
    assert regex_error(text) == (said and f"error parsing regexp: {said}")


@given(st.text(alphabet="ab()[]{}|*+?^$\\-.,0123:pPdxQE<>", max_size=12))
def test_no_regular_expression_raises(text: str) -> None:
    said = regex_error(text)
    assert said is None or said.startswith("error parsing regexp: ")


OPERAND = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("response.code >= 400", None),
        ("has(request.headers['x']) && !(a in [1, 2u, 3.5e2]) ? {'a': b'c'} : a.b(c)[0].d", None),
        ("xds.cluster_name == 'PassthroughCluster' || response.flags != 0 // why", None),
        ('r"\\" + """a\nb"""', None),
        ("Message{field: 1}", None),
        ("", f"1:1: Syntax error: mismatched input '<EOF>' expecting {OPERAND}\n | \n | ^"),
        ("a >=", f"1:5: Syntax error: mismatched input '<EOF>' expecting {OPERAND}\n | a >=\n | ....^"),
        ("a\n&& ", f"2:4: Syntax error: mismatched input '<EOF>' expecting {OPERAND}\n | && \n | ...^"),
        ("a)", "1:2: Syntax error: extraneous input ')' expecting <EOF>\n | a)\n | .^"),
        ("(a", "1:3: Syntax error: missing ')' at '<EOF>'\n | (a\n | ..^"),
        ("a + #b", "1:5: Syntax error: token recognition error at: '#'\n | a + #b\n | ....^"),
        ("a = 400", "1:3: Syntax error: token recognition error at: '= '\n | a = 400\n | ..^\n"
                    "ERROR: <input>:1:5: Syntax error: extraneous input '400' expecting <EOF>\n | a = 400\n | ....^"),
    ],
)
def test_cel(text: str, said: str | None) -> None:
    assert syntax_error(text) == (said and f"ERROR: <input>:{said}")


@given(st.text(alphabet="ab.()[]{}?:!-+*/%<>=&|,'\"1 \n", max_size=40))
def test_no_expression_raises(text: str) -> None:
    syntax_error(text)


def test_deep_expressions_are_refused() -> None:
    assert "recursion limit" in (syntax_error("(" * 5000) or "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10.0.0.0/8", None),
        ("10.1.2.3/8", None),
        ("::/0", None),
        ("10.0.0.0/33", "prefix length out of range"),
        ("10.0.0.0/x", 'bad bits after slash: "x"'),
        ("10.0.0.0/08", 'bad bits after slash: "08"'),
        ("10.0.0/8", 'ParseAddr("10.0.0"): IPv4 address too short'),
        ("10.0.0.256/8", 'ParseAddr("10.0.0.256"): IPv4 field has value >255'),
        ("host/8", 'ParseAddr("host"): unable to parse IP'),
        ("10.0.0.0", "no '/'"),
        ("2001:db8::%eth0/32", "IPv6 zones cannot be present in a prefix"),
        ("unix://a/8", 'ParseAddr("unix://a"): each colon-separated field must have at least one digit (at "unix://a")'),
        ("1:2:3/64", 'ParseAddr("1:2:3"): address string too short'),
        ("1::2::3/64", 'ParseAddr("1::2::3"): multiple :: in address (at ":3")'),
        ("::12345/64", 'ParseAddr("::12345"): each group must have 4 or less digits (at "12345")'),
        ("1:2:3:4:5:6:7:8:9/64", 'ParseAddr("1:2:3:4:5:6:7:8:9"): trailing garbage after address (at "9")'),
        ("::ffff:1.2.3/96", 'ParseAddr("::ffff:1.2.3"): IPv4 address too short'),
        ("1.2.3.4/96", "prefix length out of range"),
    ],
)
def test_prefixes(text: str, said: str | None) -> None:
    assert prefix_error(text) == (said and f'netip.ParsePrefix("{text}"): {said}')


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("", None), ("YWI=", None), ("YQ==", None), ("Y\nWJj", None), ("YWI", 0), ("YWJj*", 4), ("YWI=YQ==", 4), ("Y===", 1), ("YQ=a", 2),
     ("YQ=", 3)],
)
def test_base64_is_gos(text: str, wrong: int | None) -> None:
    assert base64_error(text) == wrong


@pytest.mark.parametrize(
    ("value", "shown"),
    [(7, "7"), (4294967295, "4294967295"), (4294967295.0, "4.294967295e+09"), (100.0, "100"), (0.5, "0.5"), (1e6, "1e+06"),
     (0.00001, "1e-05")],
)
def test_numbers_are_shown_as_go_does(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("text", "valid"), [("1.2.3.4", True), ("01.2.3.4", False), ("::1", True), ("fe80::1%eth0", True), ("1.2.3.4%a", False)]
)
def test_addresses(text: str, valid: bool) -> None:
    assert is_ip(text) is valid


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a:1", ("a", "1", None)),
        ("[::1]:80", ("::1", "80", None)),
        ("a", ("", "", "address a: missing port in address")),
        ("::1", ("", "", "address ::1: too many colons in address")),
        ("[::1", ("", "", "address [::1: missing port in address")),
    ],
)
def test_host_and_port(text: str, found: tuple[str, str, str | None]) -> None:
    said = found[2]
    if text == "[::1":
        said = "address [::1: missing ']' in address"
    assert split_host_port(text) == (found[0], found[1], said)


@pytest.mark.parametrize(
    ("text", "value"),
    [("10s", 10_000_000_000), ("1h30m", 5_400_000_000_000), ("1.5ms", 1_500_000), ("-1s", -1_000_000_000), ("0", 0), (".5s", 500_000_000),
     ("1us", 1_000), ("1µs", 1_000)],
)  # fmt: skip
def test_durations_are_gos(text: str, value: int) -> None:
    assert nanoseconds(text) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [("10", 'missing unit in duration "10"'), ("", 'invalid duration ""'), ("1x", 'unknown unit "x" in duration "1x"'),
     ("s", 'invalid duration "s"'), ("1s2", 'missing unit in duration "1s2"'), ("5 s", 'unknown unit " s" in duration "5 s"')],
)  # fmt: skip
def test_wrong_durations_are_named_in_gos_words(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"time: {said}")):
        nanoseconds(text)


def test_quotes_are_gos() -> None:
    assert quote('a"b\\c\n\x01é\u200b') == '"a\\"b\\\\c\\n\\x01é\\u200b"'
