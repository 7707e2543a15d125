"""The reference: the same steps without a server.

Reads lines of ``pictures threads`` from stdin, and answers each with a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.benchmarks.steps import Steps


def main() -> None:
    steps = Steps()
    content = Path(sys.argv[1]).read_bytes()

    def timed(_: int) -> tuple[float, bytes]:
        began_s = time.perf_counter()
        reply = steps.answer(content)
        return (time.perf_counter() - began_s) * 1e3, reply

    print("ready", flush=True)
    for line in sys.stdin:
        count, threads = map(int, line.split())
        began_s = time.perf_counter()
        if threads == 1:
            answers = [timed(i) for i in range(count)]
        else:
            with ThreadPoolExecutor(threads) as pool:
                answers = list(pool.map(timed, range(count)))
        answer = {
            "seconds": time.perf_counter() - began_s,
            "latencies_ms": [latency_ms for latency_ms, _ in answers],
            "body": answers[-1][1].decode(),
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
