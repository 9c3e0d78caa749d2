"""Every row of rows.py, byte for byte as a real Envoy did it (envoy_bytes.json); where there is an Envoy, a few as it does them now."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.envoy.needed import NEEDS_ENVOY
from tests.proxy.beside_envoy import RECORDED, differences, on_asyncio, on_envoy
from tests.proxy.rows import KNOWN, ROWS, Row

EXPECTED = json.loads(RECORDED.read_text())
AT_ONCE = 12
FEW = [pytest.param(row, marks=NEEDS_ENVOY, id=row.name) for row in ROWS[::50]]  # all: python -m tests.proxy.beside_envoy


@pytest.mark.parametrize("kind", sorted({row.name.partition(":")[0] for row in ROWS}))
async def test_as_recorded(kind: str) -> None:
    turn = asyncio.Semaphore(AT_ONCE)

    async def played(row: Row) -> tuple[str, list[str]]:
        async with turn:
            return row.name, differences(EXPECTED[row.name], (await on_asyncio(row, EXPECTED[row.name]))[0])

    results = dict(await asyncio.gather(*(played(row) for row in ROWS if row.name.startswith(kind + ":"))))
    wrong = {name: found for name, found in results.items() if found and name not in KNOWN}
    assert not wrong, "\n".join(f"{name}\n  {text}" for name, found in wrong.items() for text in found)
    equal = [name for name in KNOWN if name in results and not results[name]]
    assert not equal, f"equal now, remove from KNOWN: {equal}"


@pytest.mark.parametrize("row", FEW)
async def test_envoy_does_as_recorded(row: Row) -> None:
    assert not differences(EXPECTED[row.name], (await on_envoy(row))[0])
