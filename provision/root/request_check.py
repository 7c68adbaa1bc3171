"""What root checks of a request, before it opens or changes anything: the sender may be anybody."""

from __future__ import annotations

from checks.catalogue import Catalogue
from machine.errors import Refused
from provision.apply.journal import ApplyRequest
from provision.model import Plan
from provision.plan.allowed import check_actions, is_user_name, shown
from provision.plan.comparison import Difference, differences, done_steps, with_done
from provision.plan.plan_file import check_digest

# the only settings of a person that root's child processes need: those for the network
NETWORK = ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "ftp_proxy")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
SENT = ("apply", "update", "rollback")


def network_settings(environ: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.lower() in NETWORK or name in CERTIFICATES}


def check_request(request: ApplyRequest, catalogue: Catalogue, where: str = "the request") -> None:
    """Refuse a request with a plan, a user or a setting that gpu-setup never sends.

    What a rollback restores depends on the journal, so root compares it with its own rollback instead.
    """
    if request.kind not in SENT:
        raise _invalid(f"It asks for {shown(request.kind)}.")
    if request.person is not None and not is_user_name(request.person):
        raise _invalid(f"{shown(request.person)} is not a user name.")
    wrong = [name for name, value in request.environ.items() if not value.isprintable()]
    if foreign := [*(request.environ.keys() - network_settings(request.environ).keys()), *wrong]:
        raise _invalid(f"It has the setting {shown(foreign[0])}, which is not one for the network.")
    check_digest(request.plan, where)
    if request.kind != "rollback":
        check_actions(request.plan, catalogue, where)


def approved_plan(request: ApplyRequest, own: Plan) -> Plan:
    """The plan that root carries out: its own, if the request has the same open steps. Raises Refused if not.

    A step that is done for one of the two is done for both: root may see more than the user, and nobody approved a step
    that the user saw as done.
    """
    given = with_done(request.plan, done_steps(own))
    own = with_done(own, done_steps(request.plan))
    if own.refusals:
        first = own.refusals[0]
        raise Refused(first.code, first.what, first.why, first.next)
    if found := differences(given, own):
        raise Refused(
            "plan.differs",
            "The approved plan is not the one that root makes for this machine, so nothing was done.",
            difference_text(found, "the request"),
            f"gpu-setup {request.kind} makes the plan again. If it differs again, do not approve it.",
        )
    return own


def difference_text(found: tuple[Difference, ...], source: str) -> str:
    more = f"; and {len(found) - 4} more differences" if len(found) > 4 else ""
    text = "; ".join(each.text(source) for each in found[:4])
    return f"{text[:1].upper()}{text[1:]}{more}."


def _invalid(why: str) -> Refused:
    return Refused("apply.request", "The privileged helper received an invalid request.", why)
