"""`python -m fuzz.requests`: mutated requests to a gateway. None may get a 5xx, and no good one may suffer."""

import argparse
import sys
import time
from collections import Counter
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPException

from fuzz.gateway import Client, GoodRequests, add_options, gateway
from fuzz.mutation import Mutations

# 503 and 504 are the gateway's own words for trouble behind it and for a deadline: here there is none of the first, and
# only a mutation can have made the second too short
EXPECTED = {HTTPStatus.GATEWAY_TIMEOUT}
GOOD_EVERY = 10


def run(url: str, *, count: int, seed: int, deadline: float) -> list[str]:
    """Ask, print a table and return what was wrong."""
    with closing(Client(url)) as client:
        return _run(client, GoodRequests(url), count=count, seed=seed, deadline=deadline)


def _run(client: Client, good: GoodRequests, *, count: int, seed: int, deadline: float) -> list[str]:
    mutations = Mutations(seed)
    statuses: Counter[int] = Counter()
    seconds: list[float] = []
    wrong: list[str] = []
    started = time.perf_counter()
    for number in range(count):
        asked = mutations.next()
        try:
            answer = client.ask(asked)
        except (OSError, HTTPException) as error:
            wrong.append(f"request {number} got no answer ({error!r}): {asked!r:.500}")
            continue
        statuses[answer.status] += 1
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR and answer.status not in EXPECTED:
            wrong.append(f"request {number} got {answer.status} {answer.body[:300]!r}: {asked!r:.500}")
        if number % GOOD_EVERY == 0:
            took, fault = good.check(client, deadline)
            seconds.append(took)
            if fault:
                wrong.append(f"after request {number}: {fault}")
    took = time.perf_counter() - started
    print(f"{count:,} mutated requests (seed {seed}) in {took:.1f} s")  # noqa: T201
    for status, times in sorted(statuses.items()):
        print(f"  {status}  {times:7,}")  # noqa: T201
    print(f"{len(seconds):,} good ones between them, the slowest {max(seconds) * 1000:.1f} ms")  # noqa: T201
    return wrong


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.requests", description=__doc__)
    add_options(parser)
    parser.add_argument("--count", type=int, default=10_000, help="mutated requests (%(default)s)")
    parser.add_argument("--seed", type=int, default=5, help="the same seed asks the same (%(default)s)")
    parser.add_argument("--deadline", type=float, default=2.0, help="seconds for a good request (%(default)s)")
    arguments = parser.parse_args()
    with gateway(arguments) as (url, _):
        wrong = run(url, count=arguments.count, seed=arguments.seed, deadline=arguments.deadline)
    for line in wrong[:20]:
        print(line, file=sys.stderr)  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
