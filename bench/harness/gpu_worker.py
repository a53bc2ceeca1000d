"""A process that runs the cases of one module in turn: python -m bench.harness.gpu_worker MODULE DEVICE FIRST.

Each line of the standard output is JSON: a case that is next, {"case", "shape", "seconds"}, which the line "run" or
another word on the standard input starts or leaves out; then {"rows"}; at last {"done"}. A case that breaks the GPU for
the process ends it. On the device "cpu" cases are tiny, and nothing is timed.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from dataclasses import asdict
from importlib import import_module

from bench.harness.gpu_timing import GpuRow, broken, run, said

BROKEN = 3
"""The exit code after a case that broke the GPU for this process."""


def main() -> int:
    module, device, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values: object) -> None:
        print(json.dumps(values), file=answers, flush=True)

    try:
        cases = import_module(module).cases(device == "cpu")
    except ImportError as error:
        lacks = f"{error.name} is not installed (make gpu-wheels)" if isinstance(error, ModuleNotFoundError) else error
        row = GpuRow(module.rpartition(".")[2], "", "", note=f"left out: {lacks}")
        answer(rows=[asdict(row)])
        answer(done=True)
        return 0
    for case in cases[first:]:
        answer(case=case.case, shape=case.shape, seconds=case.seconds)
        if sys.stdin.readline().strip() != "run":
            continue
        try:
            rows = run(case, device)
        except Exception as error:
            traceback.print_exc()
            rows = [GpuRow(case.case, case.shape, "", note=f"failed: {said(error)}")]
            answer(rows=[asdict(row) for row in rows])
            if broken(error):
                return BROKEN
            continue
        answer(rows=[asdict(row) for row in rows])
    answer(done=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
