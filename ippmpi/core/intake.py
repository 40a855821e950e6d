"""What a ``Submit`` must look like to be accepted; the rest ends at once, with a text for its owner."""

from __future__ import annotations

from collections import Counter

from ippmpi.core.ledger import Ledger
from ippmpi.errors import ProtocolError
from ippmpi.ids import TaskId
from ippmpi.wire.messages import CacheKey, Dependency, Placement, Submit

LARGEST_ID = 1 << 31
LONGEST_DIGEST = 128


def check(message: Submit, ledger: Ledger) -> None:
    """Look at what every later text and table about *message* will repeat.

    Raises:
        ProtocolError: no client of ours would send it.
    """
    limits = ledger.limits
    if not 0 < len(message.task) <= limits.name or not message.task.isprintable():
        raise ProtocolError(f"a task id of {len(message.task)} characters; {limits.name} may be printed")
    if message.cache is not None and len(message.cache.name) > limits.label:
        raise ProtocolError(f"task {message.task}: a cache key with a name of {len(message.cache.name)} characters")
    if len(message.op) > limits.name or len(message.label) > limits.label:
        raise ProtocolError(
            f"task {message.task}: op of {len(message.op)} and label of {len(message.label)} characters; "
            f"at most {limits.name} and {limits.label} are possible"
        )
    if max(len(message.targets), len(message.contents)) > limits.targets:
        raise ProtocolError(
            f"task {message.task}: {len(message.targets)} targets and {len(message.contents)} contents; "
            f"at most {limits.targets} are possible"
        )
    if message.targets and not 0 <= min(message.targets) <= max(message.targets) < LARGEST_ID:
        raise ProtocolError(f"task {message.task}: a target that is no engine id")


def problem(message: Submit, ledger: Ledger) -> tuple[str, str] | None:
    """Return the kind and text of the failure of *message*, or None if it is fine."""
    if message.placement is not None:
        return _problem_balanced(message, message.placement, ledger) or _problem_limits(message, ledger)
    if message.cache is not None:
        return "ProtocolError", "a cached task with targets; a placement would be right"
    targets, contents = len(message.targets), len(message.contents)
    if not targets:
        return "NoEnginesRegistered", "no target engines were named"
    if len(set(message.targets)) < targets:
        twice = next(target for target, count in Counter(message.targets).items() if count > 1)
        return "ProtocolError", f"target {twice} is named twice"
    if contents not in (1, targets):
        return "ProtocolError", f"{contents} contents for {targets} targets; 1 or {targets} would be right"
    return _problem_limits(message, ledger)


def _problem_balanced(message: Submit, placement: Placement, ledger: Ledger) -> tuple[str, str] | None:
    if message.targets:
        return "ProtocolError", f"{len(message.targets)} targets for a balanced task; candidates would be right"
    if len(message.contents) != 1:
        return "ProtocolError", f"{len(message.contents)} contents for a balanced task; 1 would be right"
    if message.cache is not None and (found := _problem_key(message.cache, placement)):
        return "ProtocolError", found
    for name, dependency in (("after", placement.after), ("follow", placement.follow)):
        found = _problem_dependency(message.task, dependency, ledger) if dependency is not None else ""
        if found:
            return "InvalidDependency", f"{name}: {found}"
    if placement.follow is not None:
        several = [t for t in placement.follow.tasks if _ran_on_several(t, ledger)]
        if several:
            return "InvalidDependency", f"follow: task {several[0]} has several targets, one is needed"
    return None


def _problem_key(key: CacheKey, placement: Placement) -> str:
    if not 0 < len(key.digest) <= LONGEST_DIGEST or not key.digest.isascii() or not key.digest.isalnum():
        return f"a cache key with a digest of {len(key.digest)} characters; up to {LONGEST_DIGEST}, hexadecimal"
    if placement.after is not None or placement.follow is not None:
        return "a cached task with a dependency: what it would find then is not part of its key"
    return ""


def _problem_dependency(task: str, dependency: Dependency, ledger: Ledger) -> str:
    if task in dependency.tasks:
        return f"task {task} depends on itself"
    if not (dependency.success or dependency.failure):
        return "neither success nor failure is accepted, so it could never be met"
    unknown = [other for other in dependency.tasks if ledger.record_of(other) is None]
    return f"task {unknown[0]} is not known (or ended so long ago that it was forgotten)" if unknown else ""


def _ran_on_several(task: str, ledger: Ledger) -> bool:
    live = ledger.tasks.get(TaskId(task))
    if live is not None:
        return len(live.parts) > 1
    ended = ledger.ended_record(TaskId(task))
    return ended is not None and ended.several


def _problem_limits(message: Submit, ledger: Ledger) -> tuple[str, str] | None:
    limits = ledger.limits
    if any(content.path for content in message.contents):
        return "ProtocolError", "a content with a path; inline, or a transfer, would be right"
    inline = sum(len(content.inline) for content in message.contents)
    if inline > limits.inline_bytes:  # more could not be passed on in one frame
        return "ProtocolError", f"{inline} bytes inline; beyond {limits.inline_bytes} a transfer would be right"
    if len(ledger.tasks) >= limits.live_tasks:
        return "TaskAborted", f"the controller holds {limits.live_tasks} tasks that have not ended, and takes no more"
    size = inline if message.placement is not None else 0
    if size and ledger.held_bytes + size > limits.held_bytes:
        return "TaskAborted", f"the controller holds {limits.held_bytes} bytes of waiting tasks, and takes no more"
    return None
