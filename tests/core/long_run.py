"""The core's random lives without hypothesis: ``python tests/core/long_run.py --events 1000000 --seed 1``.

Two kinds, in turns. *Life* (``test_properties.py``): peers that do anything, also what is wrong; everything is checked
after each event. *Village* (``village.py``): peers that behave like real ones, around a hub that is killed again and
again; what ran how often is counted. A short form of it is in the suite.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from core import village
from core.test_properties import CLIENTS, HOSTS, KINDS, SIZES, Life
from ippmpi.wire.messages import Failure

EVENTS_OF_LIFE = 400  # its books grow, and all of them are looked at after each event
EVENTS_OF_VILLAGE = 1000


class Chance:
    """Draws what the rules of ``Life`` need, from one seeded source."""

    def __init__(self, seed: object) -> None:
        self.random = random.Random(str(seed))

    def number(self) -> int:
        return self.random.randrange(1 << 16)

    def flag(self) -> bool:
        return self.random.random() < 0.5

    def seldom(self) -> bool:
        return self.random.random() < 0.125

    def some(self, draw: Callable[[], Any], most: int, least: int = 0) -> list[Any]:
        return [draw() for _ in range(self.random.randint(least, most))]

    def maybe(self, draw: Callable[[], Any], likely: float = 0.5) -> Any:
        return draw() if self.random.random() < likely else None

    def engine(self) -> int:
        return self.random.randint(0, 6)

    def client(self) -> Any:
        return self.random.choice(CLIENTS)

    def world(self) -> str:
        return self.random.choice(sorted(SIZES))

    def failure(self) -> Failure | None:
        return self.maybe(lambda: Failure("Oops", "it broke", kind=self.random.choice(KINDS)))

    def condition(self, most: int) -> tuple[list[int], bool, bool, bool]:
        return self.some(self.number, most), self.flag(), self.flag(), self.flag()


def events(life: Life, c: Chance) -> list[tuple[int, Callable[[], Any]]]:
    """Return what may happen to *life*: weight, and the rule with everything drawn."""
    return [
        (2, lambda: life.connect_client(c.client())),
        (2, lambda: life.client_is_away(c.client())),
        (1, lambda: life.client_leaves(c.client(), c.flag(), c.number(), c.seldom())),
        (
            4,
            lambda: life.node_registers(c.world(), c.random.choice(HOSTS), c.flag(), replaced=c.flag(), fresh=c.flag()),
        ),
        (1, lambda: life.agent_is_gone(c.number(), c.seldom())),
        (1, lambda: life.agent_is_away(c.number())),
        (1, lambda: life.engine_is_lost(c.number(), c.world(), c.random.randint(0, 3), c.flag())),
        (2, lambda: life.known_engine_is_lost(c.number(), c.seldom())),
        (4, lambda: life.submit_direct(c.client(), list(dict.fromkeys(c.some(c.engine, 5))), c.flag(), c.flag())),
        (8, lambda: submit_balanced(life, c)),
        (
            2,
            lambda: life.submit_many(
                c.client(), c.flag(), c.random.randint(2, 6), c.maybe(lambda: c.some(c.engine, 3, 1))
            ),
        ),
        (
            3,
            lambda: life.submit_cached(c.client(), c.flag(), c.some(lambda: c.random.choice("abc"), 5, 1), c.flag()),
        ),
        (4, lambda: life.cache_answers(c.number(), c.flag(), c.flag())),
        (1, lambda: life.submit_again(c.number(), c.client())),
        (3, lambda: life.take_back(c.client(), c.maybe(lambda: c.some(c.number, 3)), c.flag(), c.maybe(lambda: [0]))),
        (1, lambda: life.signal_or_stop(c.client(), c.random.random() < 0.9, c.maybe(lambda: c.some(c.engine, 2)))),
        (
            1,
            lambda: life.query(c.client(), c.random.choice(("status", "queue_status", "result_status", "?")), c.flag()),
        ),
        (8, lambda: life.engines_succeed(c.some(lambda: (c.number(), c.flag()), 6, 1))),
        (8, lambda: life.engine_replies(c.number(), c.failure(), c.flag(), c.flag())),
        (3, lambda: life.engines_reply_together(c.number(), c.some(c.failure, 5, 1), c.seldom())),
        (2, lambda: life.engine_replies_late(c.number(), c.failure(), c.flag())),
        (1, lambda: life.engine_replies_nonsense(c.number(), c.engine(), c.flag(), c.number())),
        (1, lambda: life.engine_prints(c.number(), c.flag())),
        (1, lambda: life.upload_fails(c.number(), c.number())),
        (3, lambda: life.time_passes(c.random.choice((0.0, 0.03, 0.03, 0.5, 2.0, 10.0)))),
    ]


def submit_balanced(life: Life, c: Chance) -> None:
    life.submit_balanced(
        c.client(),
        c.flag(),
        c.maybe(lambda: c.some(c.engine, 4), 0.3),
        c.maybe(lambda: c.condition(3)),
        c.maybe(lambda: c.condition(2), 0.3),
        c.random.choice((0.0, 0.0, 1.0, 5.0)),
        c.random.randint(0, 3),
    )


def live(seed: object, count: int = EVENTS_OF_LIFE) -> int:
    """Live one life of *count* events, with everything checked after each; return *count*."""
    chance, life = Chance(seed), Life()
    life.somebody_is_there(chance.flag())
    weights, rules = zip(*events(life, chance), strict=True)
    for _ in range(count):
        chance.random.choices(rules, weights)[0]()
        life.tables_agree()
        life.every_part_has_ended_once_or_is_open()
        life.only_contents_of_live_tasks_are_spooled()
        life.every_agent_gets_direct_work_in_the_order_of_the_hub()
        life.the_policy_knows_the_load()
        life.every_task_has_a_true_reason()
    life.teardown()
    return count


def in_village(seed: object, count: int = EVENTS_OF_VILLAGE) -> int:
    """Let *count* things happen in a village; return how many events there were."""
    return village.live(seed, count)


def run(seed: int, count: int, *, tell: bool = False) -> None:
    """Have *count* events; raise AssertionError, with a note of how to have it again."""
    done, number, began = 0, 0, time.monotonic()
    while done < count:
        kind = live if number % 2 else in_village
        try:
            done += kind(f"{seed}/{number}")
        except BaseException as error:
            error.add_note(f"again: from core.long_run import {kind.__name__}; {kind.__name__}('{seed}/{number}')")
            raise
        number += 1
        if tell and number % 50 == 0:
            print(f"{done:,} events, {number} lives, {time.monotonic() - began:.0f} s", flush=True)


def main() -> int:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    print(f"{options.events:,} events of the core, seed {options.seed}", flush=True)
    run(options.seed, options.events, tell=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
