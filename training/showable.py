"""Which plans of captions the drawn world can show: a sentence may ask for what no scene holds."""

from __future__ import annotations

from reelserve.training.scene.scenes import IN_PLACE, WITH_SPEED
from reelserve.training.scene.vocabulary import ALWAYS_CLEAR, motions_meant
from reelserve.training.words.labels import CaptionPlan, Group

_TOGETHER = (
    {"left", "right"},
    {"top", "bottom"},
    {"top left", "top right", "bottom left", "bottom right"},
    {"in front", "behind"},
)
_ROWS, _COLUMNS = {"top", "centre", "bottom"}, {"left", "centre", "right"}
_SIDEWAYS = ("left", "right", "hop left", "hop right", "zigzag")
_FILED = ("left", "right", "hop left", "hop right")


def can_be_shown(plan: CaptionPlan) -> bool:
    """Whether a scene of the drawn world has all that the plan says."""
    if plan.setting in ALWAYS_CLEAR and plan.weather not in ("", "clear"):
        return False
    if plan.ground_colour and plan.weather not in ("", "clear"):
        return False
    groups = plan.groups
    count = sum(group.count for group in groups)
    if any(group.motion in ("leap", "chase", "flee") for group in groups) and not (
        count == 2 and len(groups) == 2 and _pair(groups)
    ):
        return False
    places = [group.place for group in groups if group.place]
    if any(group.place and group.count > 1 for group in groups) or len(set(places)) < len(places):
        return False
    if not _places_fit(set(places), count):
        return False
    return all(_group_fits(group, groups, count) for group in groups)


def _pair(groups: tuple[Group, ...]) -> bool:
    """Whether one leaps over a resting one, or chases a fleeing one."""
    first, second = (group.motion for group in groups)
    if any(group.place or group.speed for group in groups):
        return False
    return (first == "leap" and second in ("", "stay")) or {first, second} == {"chase", "flee"}


def _places_fit(places: set[str], count: int) -> bool:
    if count == 1 or not places:
        return not places & {"in front", "behind"}
    if places & {"in front", "behind"} and count != 2:
        return False
    layouts = [*_TOGETHER, _ROWS, _COLUMNS] if count == 3 else list(_TOGETHER)
    return any(places <= layout for layout in layouts)


def _group_fits(group: Group, groups: tuple[Group, ...], count: int) -> bool:
    meant = motions_meant(group.motion) if group.motion else ()
    if group.speed and not all(motion in WITH_SPEED for motion in meant):
        return False
    if not group.place:
        return True
    if group.place in ("in front", "behind"):
        still = all(other.motion in ("", "stay") and not other.speed for other in groups)
        # The one behind is large, the one in front is not.
        size = "large" if group.place == "behind" else ("small", "medium")
        return still and (not group.size or group.size in size)
    if all(motion in IN_PLACE for motion in meant):
        return True
    if all(motion in _SIDEWAYS for motion in meant):
        filed = all(motion in _FILED for motion in meant) and count == 2
        alike = all(other.motion in ("", group.motion) for other in groups)
        return group.place in _ROWS or (group.place in _COLUMNS and filed and alike)
    return all(motion in ("up", "down") for motion in meant) and group.place in _COLUMNS
