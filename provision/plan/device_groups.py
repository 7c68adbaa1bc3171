"""Who may use the GPU: groups for the user, only the necessary or requested ones."""

from __future__ import annotations

from checks.facts.host import Host
from provision.model import PlanPart, State, Step, UserGroup
from provision.target import PlanTarget, PlanVendor

AMD_GROUPS = ("render", "video")
DOCKER_GROUP = "docker"


def plan(host: Host, target: PlanTarget, vendor: PlanVendor) -> PlanPart:
    """AMD's device nodes are for the groups render and video, NVIDIA's for everyone; docker only on request."""
    steps: list[Step] = []
    if vendor is PlanVendor.AMD:
        steps.append(
            _member(
                host,
                "groups",
                AMD_GROUPS,
                "These groups may use /dev/kfd and the render nodes; if everyone could, every local account could read "
                "the GPU's memory.",
            )
        )
    if target.docker_group:
        steps.append(
            _member(
                host,
                "docker-group",
                (DOCKER_GROUP,),
                "You asked for it. Membership in docker equals root access without a password.",
            )
        )
    return PlanPart(steps=tuple(steps))


def _member(host: Host, id: str, groups: tuple[str, ...], because: str) -> Step:
    person = host.person
    wanted = " and ".join(groups)
    user = person.user
    if person.uid == 0:
        state, title, why = State.DONE, f"Groups {wanted}", f"{because} root needs no group."
    elif user is None:
        state, title = State.MANUAL, f"Add yourself to {wanted}"
        why = f"{because} Your user name could not be read: write it in place of USER."
    elif person.database_groups is None:
        state, title = State.TODO, f"Add {user} to {wanted}"
        why = f"{because} The group database could not be read, so it is planned as if {user} were not a member."
    elif set(groups) <= set(person.database_groups):
        state, title, why = State.DONE, f"{user} is in {wanted}", because
        if person.groups is not None and not set(groups) <= set(person.groups):
            why += " This session is older than the membership: log out and in again."
    else:
        missing = [group for group in groups if group not in person.database_groups]
        state, title = State.TODO, f"Add {user} to {' and '.join(missing)}"
        why = f"{because} It takes effect at the next login."
    name = user or "USER"
    missing_now = tuple(group for group in groups if group not in (person.database_groups or ()))
    return Step(
        id=id,
        title=title,
        action=UserGroup(user=name, groups=groups),
        state=state,
        because=why,
        commands=() if state is State.DONE else (("usermod", "--append", "--groups", ",".join(missing_now), name),),
        undo="" if state is State.DONE else f"removes {name} from {' and '.join(missing_now)}",
    )
