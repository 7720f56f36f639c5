"""Draw blocks of uses: all random numbers of a block at once, then one dictionary per event."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.contract.events import STAGE_TYPE, STAGES, USED_TYPE
from pipeline.generator.calibration import (
    CENTRES,
    CHANNEL_SHARES,
    CONSUMERS,
    KNOWN_USER_SHARE,
    RATED_SHARE,
    SIGN_IN_SHARES,
    STATE_INITIATED_SHARE,
)
from pipeline.generator.people import draw_people, pseudonym
from pipeline.generator.profiles import CLOUD_SPEED, Profiles
from pipeline.generator.rhythm import centres_open, in_office_hours

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Dict = dict[str, Any]

_CHANNELS = tuple(CHANNEL_SHARES)
_CHANNEL_EDGES = np.cumsum(tuple(CHANNEL_SHARES.values()))
_WEB, _CENTRE, _API = (_CHANNELS.index(name) for name in ("web", "centre", "api"))
_KNOWN = np.array([KNOWN_USER_SHARE[name] for name in _CHANNELS])
_SIGN_INS = tuple(SIGN_IN_SHARES)
_SIGN_IN_EDGES = np.cumsum(tuple(SIGN_IN_SHARES.values()))
_SIGNED_CHANNELS = np.array([name in ("web", "mobile", "kiosk") for name in _CHANNELS])
_PLACES = tuple((centre, district) for centre, districts in CENTRES.items() for district in districts)
_OUTCOMES = ("failure", "abandoned", "not_eligible", "success")
_FAILURE, _SUCCESS = _OUTCOMES.index("failure"), _OUTCOMES.index("success")
_CONSUMER_EDGES = np.cumsum(1 / np.arange(1, len(CONSUMERS) + 1))
_CONSUMER_EDGES /= _CONSUMER_EDGES[-1]
_RATING_MEAN = np.array([1.9, 2.6, 3.3, 4.3])
_TIMEOUT_MS = 30_000.0
_LONGEST_MS = 600_000.0
# Median and spread (standard deviation of the logarithm) of the time from one stage to the next, in milliseconds.
_STAGE_MEDIANS = np.array([600.0, 20 * 3_600_000.0, 30 * 3_600_000.0])
_STAGE_SIGMAS = np.array([0.6, 0.9, 1.0])
_NEVER_RESPONDED = 0.03


@dataclass(frozen=True, slots=True)
class Block:
    """Uses drawn together. ``delays`` has a row for each use: milliseconds from the use to each stage, -1 for none."""

    times: Indices
    service: Indices
    channel: Indices
    outcome: Indices
    duration: Floats
    cloud: npt.NDArray[np.bool_]
    delays: Indices


def _pick(edges: Floats, uniform: Floats) -> Indices:
    return np.minimum(np.searchsorted(edges, uniform, side="right"), len(edges) - 1).astype(np.int64)


def draw_block(
    rng: np.random.Generator, profiles: Profiles, times: Indices, progress: Floats, speed: float = 1.0
) -> Block:
    """Draw a use for each moment.

    Args:
        rng: source of all draws.
        profiles: what the services are like.
        times: moments of the uses, in milliseconds since 1970.
        progress: how much of the period has passed at each moment, 0 to 1; decides who has moved to the cloud.
        speed: how many times faster than assumed applications are worked on; office hours are kept only at 1.
    """
    count = len(times)
    service = profiles.draw(rng, count)
    channel = _pick(_CHANNEL_EDGES, rng.random(count))
    channel[(channel == _CENTRE) & ~centres_open(times)] = _WEB
    cloud = progress >= profiles.in_cloud_from[service]
    cloud &= profiles.in_cloud_from[service] < 1.0
    uniform = rng.random(count)
    failure = profiles.failure[service]
    abandoned = failure + np.where(channel == _API, 0.0, profiles.abandoned[service])
    not_eligible = abandoned + profiles.not_eligible[service]
    outcome = np.where(
        uniform < failure, 0, np.where(uniform < abandoned, 1, np.where(uniform < not_eligible, 2, _SUCCESS))
    ).astype(np.int64)
    spread = np.exp(rng.standard_normal(count) * profiles.sigma[service])
    duration = profiles.median_ms[service] * spread * np.where(cloud, CLOUD_SPEED, 1.0)
    timed_out = (outcome == _FAILURE) & (rng.random(count) < 0.3)
    duration = np.minimum(np.where(timed_out, _TIMEOUT_MS + duration, duration), _LONGEST_MS)
    steps = _STAGE_MEDIANS * np.exp(rng.standard_normal((count, 3)) * _STAGE_SIGMAS)
    received = steps[:, 0] / speed
    processed = received + steps[:, 1] / speed
    if speed == 1.0:
        processed = in_office_hours(times + processed.astype(np.int64), rng.random(count)) - times
    responded = processed + steps[:, 2] / speed
    if speed == 1.0:
        responded = in_office_hours(times + responded.astype(np.int64), rng.random(count)) - times
    delays = np.ceil(np.stack((received, processed, responded), axis=1)).astype(np.int64)
    delays[rng.random(count) < _NEVER_RESPONDED, 2] = -1
    delays[~(profiles.starts_application[service] & (outcome == _SUCCESS))] = -1
    return Block(times, service, channel, outcome, np.round(duration, 1), cloud, delays)


def _identifiers(rng: np.random.Generator, count: int) -> list[str]:
    """Random UUIDs (version 4, variant a)."""
    text = rng.bytes(16 * count).hex()
    digits = (text[at : at + 32] for at in range(0, 32 * count, 32))
    return [f"{d[:8]}-{d[8:12]}-4{d[13:16]}-a{d[17:20]}-{d[20:]}" for d in digits]


def _rfc3339(times: Indices) -> list[str]:
    return [f"{text}Z" for text in np.datetime_as_string(times.astype("M8[ms]")).tolist()]


def use_events(rng: np.random.Generator, profiles: Profiles, block: Block) -> list[Dict]:
    """The CloudEvents of a block, one for each use, in the order of the block."""
    count = len(block.times)
    channel = block.channel
    signed = _SIGNED_CHANNELS[channel]
    has_user = rng.random(count) < _KNOWN[channel]
    rated = (rng.random(count) < RATED_SHARE) & (channel != _API)
    ratings = np.clip(np.rint(rng.normal(_RATING_MEAN[block.outcome], 0.9)), 1, 5).astype(np.int64)
    ratings[~rated] = 0
    people = draw_people(rng, count)
    people[~has_user] = -1
    sign_in = _pick(_SIGN_IN_EDGES, rng.random(count))
    sign_in[~(signed & has_user)] = -1
    place = rng.integers(0, len(_PLACES), count)
    place[channel != _CENTRE] = -1
    consumer = _pick(_CONSUMER_EDGES, rng.random(count))
    consumer[channel != _API] = -1
    by_state = rng.random(count) < STATE_INITIATED_SHARE
    applies = block.delays[:, 0] >= 0
    events: list[Dict] = []
    for (
        identifier,
        time,
        number,
        way,
        result,
        duration,
        in_cloud,
        who,
        sign,
        where,
        caller,
        state,
        rate,
        opens,
    ) in zip(
        _identifiers(rng, count),
        _rfc3339(block.times),
        block.service.tolist(),
        channel.tolist(),
        block.outcome.tolist(),
        block.duration.tolist(),
        block.cloud.tolist(),
        people.tolist(),
        sign_in.tolist(),
        place.tolist(),
        consumer.tolist(),
        by_state.tolist(),
        ratings.tolist(),
        applies.tolist(),
        strict=True,
    ):
        data: Dict = {
            "agency": profiles.agencies[number],
            "service": profiles.services[number],
            "channel": _CHANNELS[way],
            "outcome": _OUTCOMES[result],
            "duration_ms": duration,
            "hosting": "government_cloud" if in_cloud else "own",
            "initiator": "state" if state else "citizen",
        }
        if who >= 0:
            data["user"] = pseudonym(who)
        if sign >= 0:
            data["sign_in"] = _SIGN_INS[sign]
        if where >= 0:
            data["centre"], data["district"] = _PLACES[where]
        if caller >= 0:
            data["consumer"] = CONSUMERS[caller]
        if rate:
            data["rating"] = rate
        if opens:
            data["application"] = f"app-{identifier[:8]}{identifier[24:]}"
        events.append(
            {
                "specversion": "1.0",
                "id": identifier,
                "source": profiles.sources[number],
                "type": USED_TYPE,
                "time": time,
                "data": data,
            }
        )
    return events


def stage_event(use: Dict, stage: int, time: int) -> Dict:
    """The CloudEvent of a stage (0 received, 1 processed, 2 responded) of the application that a use started.

    Its id follows from the use's, so that nothing more needs to be drawn.
    """
    of_use = use["data"]
    data: Dict = {name: of_use[name] for name in ("agency", "service", "application", "channel")}
    data["stage"] = STAGES[stage]
    if "user" in of_use:
        data["user"] = of_use["user"]
    identifier: str = use["id"]
    return {
        "specversion": "1.0",
        "id": f"{identifier[:14]}8{identifier[15:19]}{'89b'[stage]}{identifier[20:]}",
        "source": use["source"],
        "type": STAGE_TYPE,
        "time": _rfc3339(np.array([time]))[0],
        "data": data,
    }
