"""Makes the load, with Locust: callers of a closed loop, arrivals of an open one.

Runs in a process of its own: Locust replaces the standard library's blocking calls by gevent's
in the whole process.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable

import gevent
from gevent.pool import Group
from locust import LoadTestShape, User, constant, task
from locust.env import Environment

from reelserve.client import Client, GenerateOptions, ReelserveError, UnavailableError
from reelserve.loadtest.arrivals import poisson_arrivals
from reelserve.loadtest.in_flight import InFlight
from reelserve.loadtest.plan import CLOSED, Plan
from reelserve.loadtest.records import ERROR, OK, REFUSED, Measurement, RequestRecord
from reelserve.loadtest.sweep import Statistics, Sweep

TICK_S = 0.1
FAILURE_PAUSE_S = 1.0
"""A caller that was refused waits so long; one that tried again at once would load the server
with refusals."""
LEAVE_S = 2.0
"""For requests in flight to end by their cancel when the test is over."""


class Load:
    """Sends requests and writes down how they end.

    Args:
        plan: What to do.
        client: Client of the server; shared by all callers.
        tell: Takes lines about how far the test is.
    """

    def __init__(self, plan: Plan, client: Client, tell: Callable[[str], object]) -> None:
        self.plan = plan
        self.in_flight = InFlight()
        self.sweep = Sweep(plan, self.in_flight, self._statistics)
        self.records: list[RequestRecord] = []
        self.environment = Environment()
        self.callers = 0
        self._client, self._tell = client, tell
        self._numbers, self._start_s = itertools.count(), time.monotonic()
        self._prompts = random.Random(plan.seed).sample(plan.prompts, len(plan.prompts))

    def now_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start_s

    def caller_started(self) -> None:
        """Counts a caller of the closed loop."""
        self.callers += 1
        self.sweep.load_is(self.callers, self.now_s())

    def draw(self, due_s: float | None = None) -> None:
        """Sends one request and waits for its end.

        Args:
            due_s: When it should have been sent; None means now.
        """
        if self.sweep.finished:
            gevent.sleep(FAILURE_PAUSE_S)
            return
        number, sent_s = next(self._numbers), self.now_s()
        due_s = sent_s if due_s is None else due_s
        self.in_flight.enter(number, sent_s)
        self.sweep.sent(number, due_s)
        outcome, message, diffusion_s = self._outcome(number)
        ended_s = self.now_s()
        self.in_flight.leave(number, ended_s)
        if not self.sweep.finished:
            self._ended(
                RequestRecord(number, due_s, sent_s, ended_s, outcome, message, diffusion_s)
            )
        if outcome != OK and self.plan.loop == CLOSED:
            gevent.sleep(FAILURE_PAUSE_S)

    def tick(self) -> None:
        """Moves the test on."""
        self.sweep.tick(self.now_s())

    def measurement(self) -> Measurement:
        """What was written down."""
        return Measurement(
            windows=self.sweep.records(),
            requests=tuple(self.records),
            in_flight=tuple(self.in_flight.history),
            errors={
                str(error.error): error.occurrences
                for error in self.environment.stats.errors.values()
            },
            unfinished=self.sweep.unfinished,
            started_s=self._start_s,
        )

    def _outcome(self, number: int) -> tuple[str, str, float]:
        """How a request ends, why it failed, and the seconds of `video_diffusion`."""
        prompt = self._prompts[number % len(self._prompts)]
        options: GenerateOptions = {**self.plan.request, "seed": self.plan.seed + number}  # type: ignore[typeddict-item]
        try:
            video = self._client.generate(prompt, **options)
        except UnavailableError as refusal:
            return REFUSED, str(refusal), 0.0
        except ReelserveError as error:
            return ERROR, str(error), 0.0
        return OK, "", video.info.seconds.get("video_diffusion", 0.0)

    def _ended(self, record: RequestRecord) -> None:
        self.records.append(record)
        level, unit = self.sweep.level, "at once" if self.plan.loop == CLOSED else "requests/s"
        counts = self.sweep.ended(record)
        self._tell(
            f"{record.ended_s:7.1f} s  {level:g} {unit}: {record.outcome} after "
            f"{record.latency_s:.2f} s{'' if counts else ', not counted'}"
        )
        if counts:
            # Locust's statistics hold what counts; refusals in a row of their own.
            self.environment.events.request.fire(  # type: ignore[no-untyped-call]
                request_type="refused" if record.outcome == REFUSED else "grpc",
                name=self.plan.name,
                response_time=record.latency_s * 1000,
                response_length=0,
                exception=record.message if record.outcome == ERROR else None,
                context={},
            )

    def _statistics(self) -> Statistics:
        try:
            return self._client.statistics()
        except ReelserveError as error:
            self._tell(f"no statistics of the server: {error}")
            return {}


def run_load(plan: Plan, tell: Callable[[str], object]) -> Measurement:
    """Runs a load test to its end.

    Args:
        plan: What to do.
        tell: Takes lines about how far it is.
    """
    with Client(plan.url) as client:
        load = Load(plan, client, tell)
        environment = load.environment
        environment.user_classes = [caller(load) if plan.loop == CLOSED else arrivals(load)]
        environment.shape_class = shape(load)
        runner = environment.create_local_runner()
        runner.start_shape()
        while not load.sweep.finished:
            gevent.sleep(TICK_S)
            load.tick()
        measurement = load.measurement()
        # Cancels what is in flight; killed callers would leave it to the server.
        client.close()
        gevent.sleep(LEAVE_S if load.in_flight.oldest_sent_s() is not None else 0)
        runner.quit()
    return measurement


def caller(load: Load) -> type[User]:
    """A caller of the closed loop: the next request when the last one has ended."""

    class Caller(User):
        wait_time = constant(0)

        def on_start(self) -> None:
            load.caller_started()

        @task
        def draw(self) -> None:
            load.draw()

    return Caller


def arrivals(load: Load) -> type[User]:
    """The one user of an open loop: sends requests when they are due, and waits for none."""

    class Arrivals(User):
        wait_time = constant(0)

        @task
        def send(self) -> None:
            sweep, plan, requests = load.sweep, load.plan, Group()
            number, rng = sweep.number, random.Random(f"{plan.seed} {sweep.level}")
            for moment_s in poisson_arrivals(
                sweep.level, rng, ramp_from_per_s=sweep.previous_level, ramp_s=plan.ramp_s
            ):
                due_s = sweep.started_s + moment_s
                while (left_s := due_s - load.now_s()) > 0:
                    gevent.sleep(min(left_s, TICK_S))
                    if load.now_s() >= sweep.started_s + plan.ramp_s:
                        sweep.load_is(sweep.level, load.now_s())
                    if sweep.finished or sweep.number != number:
                        return
                requests.spawn(load.draw, due_s)

    return Arrivals


def shape(load: Load) -> LoadTestShape:
    """Tells Locust how many users there should be."""

    class SweepShape(LoadTestShape):
        def tick(self) -> tuple[int, float]:
            users = load.sweep.callers(load.now_s()) if load.plan.loop == CLOSED else 1
            return users, float(users)

    return SweepShape()  # type: ignore[no-untyped-call]
