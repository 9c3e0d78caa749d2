"""A document against its kind's CRD schema, in the API server's words.

How this works: four passes, of which the first that finds something ends the matter, as in Istio's own validator: types, bounds,
required fields and one-of groups; entries of a list with the same key; fields the schema does not know; the CEL rules.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any as Json

from meshsim.resources.decode import camel, nearest, spell
from meshsim.resources.load import TOP_LEVEL
from meshsim.resources.reader import Path
from meshsim.resources.schema import Node
from meshsim.resources.shape import Rule, Unevaluated
from meshsim.resources.validation.golang import number, quote
from meshsim.resources.validation.report import Report

_NAMES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object", type(None): "null"}
_YAML_HINT = "YAML reads yes, no, on and off as booleans; quote the text"


def check(raw: dict[str, Json], node: Node, required: bool, report: Report, *, snake: bool = False) -> bool:
    """Whether the schema takes the document. `node` is that of its spec, which is there when `required`.

    With `snake` the names of proto fields pass for those of the schema.
    """
    before = len(report.problems)
    if "spec" not in raw:
        if required:
            report.at("spec: Required value", ("spec",))
        return not required
    spec = renamed(raw["spec"], node) if snake else raw["spec"]
    for walk in (_types, _keys, _unknown, _rules):
        walk(spec, node, ("spec",), report)
        if walk is _unknown:
            for name in raw:
                if name not in TOP_LEVEL:
                    report.at(f"unknown fields [{name}]", (name,), nearest(name, TOP_LEVEL))
        if len(report.problems) > before:
            return False
    return True


_FITS: dict[int, tuple[Node, Callable[[Json], bool]]] = {}


def fits(node: Node) -> Callable[[Json], bool]:
    """A quick check for values whose types and field names are right already: True means that `check` finds nothing.

    Looks only at what the decoder does not: nulls, bounds, required fields and CEL rules.
    """
    if id(node) not in _FITS:
        _FITS[id(node)] = (node, _fits(node) or (lambda value: True))
    return _FITS[id(node)][1]


def _fits(node: Node) -> Callable[[Json], bool] | None:
    limits, rules = node.bounds, [rule.holds for rule in node.rules]
    if node.type == "object":
        return _object_fits(node)
    item = _fits(node.items) if node.items is not None else None
    if node.type == "integer" and not limits:
        return lambda value: value is not None and -(2**31) <= value < 2**31  # what Go's int32 takes
    if not limits and not rules and item is None:
        return None
    low, high = limits.get("minimum"), limits.get("maximum")
    if "pattern" in limits or "format" in limits:
        return lambda value: False  # rare, so left to the whole check
    least = limits.get("minItems", limits.get("minLength", 0))
    most = limits.get("maxItems", limits.get("maxLength", 1 << 62))
    sized = node.type in ("array", "string")

    def check(value: Json) -> bool:
        if value is None:
            return False
        if sized and not least <= len(value) <= most:
            return False
        if (low is not None and value < low) or (high is not None and value > high):
            return False
        return (item is None or all(map(item, value))) and (not rules or _hold(rules, value))

    if "listMapKeys" not in limits:
        return check
    keys = limits["listMapKeys"]
    return lambda value: check(value) and all(len({entry.get(key) for entry in value}) == len(value) for key in keys)


def _object_fits(node: Node) -> Callable[[Json], bool]:
    rules, required, limits = [rule.holds for rule in node.rules], node.shape.required, node.bounds
    children = [(name, inner) for name, child in node.properties.items() if (inner := _fits(child))]
    each = _fits(node.additional) if node.additional is not None else None
    least, most = limits.get("minProperties", 0), limits.get("maxProperties", 1 << 62)

    def check(value: Json) -> bool:
        if value is None or None in value.values() or not least <= len(value) <= most:
            return False
        for name in required:
            if name not in value:
                return False
        for name, inner in children:
            if name in value and not inner(value[name]):
                return False
        return (each is None or all(map(each, value.values()))) and (not rules or _hold(rules, value))

    return check


def _hold(rules: list[Callable[[Json], bool]], value: Json) -> bool:
    try:
        return all(holds(value) for holds in rules)
    except Unevaluated:
        return False


def renamed(value: Json, node: Node) -> Json:
    """The value with proto names made into the schema's own."""
    if isinstance(value, list) and node.items is not None:
        return [renamed(item, node.items) for item in value]
    if not isinstance(value, dict):
        return value
    if node.additional is not None:
        return {name: renamed(item, node.additional) for name, item in value.items()}
    out: dict[str, Json] = {}
    for name, item in value.items():
        known = name if name in node.properties else camel(name)
        if known in node.properties:
            if known == name or known not in value:
                out[known] = renamed(item, node.properties[known])
        else:
            out[name] = item
    return out


def _go(value: Json) -> str:
    """A value as a Kubernetes error shows it."""
    if isinstance(value, str):
        return quote(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return number(value)
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def _invalid(report: Report, path: Path, shown: str, said: str, hint: str = "") -> None:
    report.at(f"{spell(path)}: Invalid value: {shown}: {spell(path)} in body {said}", path, hint)


def _types(value: Json, node: Node, path: Path, report: Report) -> None:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        value = float(value)  # as a JSON number that no int64 holds is read
    wrong = _wrong_type(value, node)
    if wrong is not None:
        expected, found = wrong
        _invalid(report, path, quote(found), f"must be of type {expected}: {quote(found)}", _hint(value, node))
    if value is None and wrong is None:
        return
    if wrong is not None or not isinstance(value, dict):
        _one_of(node, None, path, report)
    if node.enum and not (isinstance(value, str) and value in node.enum):
        allowed = ", ".join(map(quote, node.enum))
        hint = nearest(str(value), node.enum)
        report.at(f"{spell(path)}: Unsupported value: {_go(value)}: supported values: {allowed}", path,
                  hint if hint.startswith("did") else "")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        _numeral(value, node, path, report)
    if wrong is not None:
        return
    if isinstance(value, str):
        _text(value, node, path, report)
    elif isinstance(value, list):
        _array(value, node, path, report)
    elif isinstance(value, dict):
        _object(value, node, path, report)


def _numeral(value: float, node: Node, path: Path, report: Report) -> None:
    """A number of any type against what the schema says of numbers."""
    kind, limits = type(value), node.bounds
    form = _format(node)
    limit = 2**31 if form == "int32" else 2**63
    if node.type == "integer" and not (float(value).is_integer() and -limit <= value < limit):
        said = f"with format {form}" if form else "(default format)"
        report.at(f'<nil>: Invalid value: "": Checked value must be of type integer {said} in {spell(path)}', path)
    low, high = limits.get("minimum"), limits.get("maximum")
    if high is not None and value > high:
        _invalid(report, path, _go(value), f"should be less than or equal to {_go(kind(high))}")
    elif low is not None and value < low:
        _invalid(report, path, _go(value), f"should be greater than or equal to {_go(kind(low))}")


def _format(node: Node) -> str:
    """The OpenAPI format of a number: unbounded integers are Go's int32."""
    if node.type == "number":
        return "double"
    return str(node.bounds.get("format", "")) if node.bounds else "int32"


def _wrong_type(value: Json, node: Node) -> tuple[str, str] | None:
    """What was expected and what was found, where they differ."""
    if not node.type or (value is None and node.nullable):
        return None
    found = _NAMES[type(value)]
    if found == node.type or (found == "integer" and node.type == "number"):
        return None
    if found == "number" and node.type == "integer" and value.is_integer() and abs(value) < 2**53:
        return None
    if node.type in ("integer", "number") and _format(node) and found not in ("string", "array", "null"):
        return _format(node), ("float64" if found == "number" else "")  # by format, where one is declared
    return node.type, found


def _hint(value: Json, node: Node) -> str:
    if node.type == "string" and isinstance(value, bool):
        return _YAML_HINT
    if node.is_duration and isinstance(value, (int, float)):
        return f'write the unit too, such as "{value}s"'
    return "quote it" if node.type == "string" and isinstance(value, (int, float)) else ""


def _text(value: str, node: Node, path: Path, report: Report) -> None:
    limits = node.bounds
    if "maxLength" in limits and len(value) > limits["maxLength"]:
        report.at(f"{spell(path)}: Too long: may not be more than {limits['maxLength']} bytes", path)
    elif "minLength" in limits and len(value) < limits["minLength"]:
        _invalid(report, path, quote(value), f"should be at least {limits['minLength']} chars long")
    elif limits.get("format") == "byte" and not _is_base64(value):
        _invalid(report, path, quote(value), f"must be of type byte: {quote(value)}")
    elif "pattern" in limits and not re.search(limits["pattern"].replace("$", r"\Z"), value):
        _invalid(report, path, quote(value), f"should match '{limits['pattern']}'")


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True


def _array(value: list[Json], node: Node, path: Path, report: Report) -> None:
    for i, item in enumerate(value):
        if node.items is not None:
            _types(item, node.items, (*path, i), report)
    limits = node.bounds
    if "minItems" in limits and len(value) < limits["minItems"]:
        _invalid(report, path, str(len(value)), f"should have at least {limits['minItems']} items")
    if "maxItems" in limits and len(value) > limits["maxItems"]:
        report.at(f"{spell(path)}: Too many: {len(value)}: must have at most {limits['maxItems']} items", path)


def _keys(value: Json, node: Node, path: Path, report: Report) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            child = node.properties.get(name) or node.additional
            if child is not None:
                _keys(item, child, (*path, name), report)
    if not isinstance(value, list) or node.items is None:
        return
    for key in node.bounds.get("listMapKeys", ()):
        seen: list[Json] = []
        for i, item in enumerate(value):
            name = item.get(key)
            if name in seen:
                report.at(f"{spell((*path, i))}: Duplicate value: {{{quote(key)}:{_go(name)}}}", (*path, i))
            seen.append(name)
    for i, item in enumerate(value):
        _keys(item, node.items, (*path, i), report)


def _object(value: dict[str, Json], node: Node, path: Path, report: Report) -> None:
    limits = node.bounds
    if "maxProperties" in limits and len(value) > limits["maxProperties"]:
        report.at(f"{spell(path)}: Too many: {len(value)}: must have at most {limits['maxProperties']} items", path)
        return
    if "minProperties" in limits and len(value) < limits["minProperties"]:
        _invalid(report, path, str(len(value)), f"should have at least {limits['minProperties']} properties")
        return
    _one_of(node, value, path, report)
    for name, item in value.items():
        child = node.properties.get(name) or node.additional
        if child is not None:
            _types(item, child, (*path, name), report)
    for name in node.shape.required:
        if name not in value:
            similar = nearest(name, [given for given in value if given not in node.properties])
            hint = f"not {similar.removeprefix('did you mean ').removesuffix('?')}" if similar.startswith("did") else ""
            report.at(f"{spell((*path, name))}: Required value", (*path, name), hint)


def _one_of(node: Node, value: dict[str, Json] | None, path: Path, report: Report) -> None:
    """`value` None: something that is no mapping, for which every alternative holds."""
    failed = 0
    groups = [group for group in node.shape.one_of if len(group) > 1]
    for group in groups:
        given = list(group) if value is None else [name for name in group if name in value]
        if len(given) > 1:
            failed += 1
            where = (*path, given[1]) if value is not None else path
            report.at(f'<nil>: Invalid value: "": "{spell(path)}" must validate one and only one schema (oneOf). Found {len(given)} '
                      "valid alternatives", where, f"give only one of {', '.join(given)}" if value is not None else "")
    if failed and len(groups) > 1:
        none = ". None validated" if failed == len(groups) else ""
        report.at(f'<nil>: Invalid value: "": "{spell(path)}" must validate all the schemas (allOf){none}', path)


def _unknown(value: Json, node: Node, path: Path, report: Report) -> None:
    if isinstance(value, list) and node.items is not None:
        for i, item in enumerate(value):
            _unknown(item, node.items, (*path, i), report)
    elif isinstance(value, dict):
        for name in value:
            child = node.properties.get(name) or node.additional
            if child is not None:
                _unknown(value[name], child, (*path, name), report)
            elif node.type:
                known = camel(name)
                hint = f'did you mean "{known}"?' if known in node.properties else nearest(name, node.properties)
                report.at(f"unknown fields [{spell((*path, name))}]", (*path, name), hint)


def _rules(value: Json, node: Node, path: Path, report: Report, shown: str | None = None) -> None:
    where = shown if shown is not None else spell(path)
    if value is None:
        return
    for rule in node.rules:
        _rule(rule, value, node, path, where, report)
    if isinstance(value, list) and node.items is not None:
        for i, item in enumerate(value):
            _rules(item, node.items, (*path, i), report, f"{where}[{i}]")
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in node.properties:
                _rules(item, node.properties[name], (*path, name), report, f"{where}.{name}")
            elif node.additional is not None:
                _rules(item, node.additional, (*path, name), report, f"{where}[{name}]")


def _rule(rule: Rule, value: Json, node: Node, path: Path, where: str, report: Report) -> None:
    try:
        if rule.holds(value):
            return
    except Unevaluated as e:
        report.at(f"{where}: Invalid value: {quote(node.type)}: {e} evaluating rule: {rule.message}", path,
                  'a duration is a number with a unit, such as "10s"' if node.is_duration else "")
        return
    shown = "" if isinstance(value, (dict, list)) else f"{_go(value)}: "
    report.at(f"{where}: Invalid value: {shown}{rule.message}", path)
