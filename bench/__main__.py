"""`python -m bench [OPTIONS]`: the fixed table of `meshsim bench`, with its results kept in `bench/results/`.

Options are those of `meshsim bench`; without any, every leg and figure is measured.
"""

from __future__ import annotations

import sys
from pathlib import Path

from meshsim.cli import main

RESULTS = Path(__file__).parent / "results"
EVERYTHING = ["--figures", "--json", str(RESULTS / "latest.json"), "--plot", str(RESULTS / "latest.svg")]

main(["bench", *(sys.argv[1:] or EVERYTHING)])
