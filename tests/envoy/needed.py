"""What a test that runs a real Envoy is marked with: it is skipped, with the reason, where there is none."""

from __future__ import annotations

import pytest

from meshsim import envoy
from meshsim.envoy import EnvoyUnavailable


def _reason() -> str:
    try:
        envoy.binary()
    except EnvoyUnavailable as e:
        return str(e)
    return ""


MISSING = _reason()
NEEDS_ENVOY = [pytest.mark.envoy, pytest.mark.skipif(bool(MISSING), reason=MISSING or "there is one")]
